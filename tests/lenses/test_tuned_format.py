"""Lenses on disk: ours, the tuned-lens package's, and what is refused. `bench/tuned.py` asks the package itself."""

import json

import pytest
import torch

from patchclamp.core.errors import NotSaved, ShapeMismatch, UnsafeWeights
from patchclamp.lenses import tuned_format
from patchclamp.lenses.tuned import TunedLens


def some_lens(model):
    torch.manual_seed(0)
    layers, width = model.layers, model.width
    return TunedLens(
        torch.randn(layers, width, width), torch.randn(layers, width), {"model": model.name}, torch.rand(3, layers)
    )


def test_ours_survives_the_journey(llama, tmp_path):
    lens = some_lens(llama)
    again = TunedLens.load(lens.save(tmp_path / "lens"))
    assert torch.equal(again.weight, lens.weight) and torch.equal(again.bias, lens.bias)
    assert torch.equal(again.history, lens.history) and again.about == lens.about


def test_theirs_survives_the_journey_and_is_what_the_package_reads(llama, tmp_path):
    lens = some_lens(llama)
    folder = tuned_format.write(lens, tmp_path / "lens", llama)
    again = tuned_format.read(folder)
    assert torch.equal(again.weight, lens.weight) and torch.equal(again.bias, lens.bias)
    config = json.loads((folder / "config.json").read_text())
    assert (config["d_model"], config["num_hidden_layers"], config["lens_type"]) == (64, 2, "linear_tuned_lens")
    modules = torch.nn.ModuleList([torch.nn.Linear(64, 64) for _ in range(2)])  # as the package builds them
    modules.load_state_dict(torch.load(folder / "params.pt", weights_only=True))
    h = torch.randn(5, 64)
    assert torch.allclose(h + modules[1](h), lens("blocks.1.in", h), atol=1e-5)


def test_a_lens_without_biases_is_read(llama, tmp_path):
    folder = tuned_format.write(some_lens(llama), tmp_path, llama)
    state = torch.load(folder / "params.pt", weights_only=True)
    torch.save({k: v for k, v in state.items() if "weight" in k}, folder / "params.pt")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "bias": False, "something": "new"}))
    assert float(tuned_format.read(folder).bias.abs().max()) == 0


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_lens_is_refused(llama, gpt2, tmp_path, capsys):
    lens = some_lens(llama)
    folder = tuned_format.write(lens, tmp_path / "theirs", llama)
    with pytest.raises(NotSaved, match="looks like a lens of the tuned-lens package; open it with"):
        TunedLens.load(folder)
    with pytest.raises(NotSaved, match="holds no card.json"):
        TunedLens.load(tmp_path / "nothing")
    with pytest.raises(NotSaved, match="holds no config.json"):
        tuned_format.read(tmp_path / "nothing")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(NotSaved, match="does not hold the 3 translators that config.json speaks of; see 2.bias"):
        tuned_format.read(folder)
    (folder / "config.json").write_text(json.dumps({**config, "d_model": 7}))
    with pytest.raises(ShapeMismatch, match="where config.json says 7"):
        tuned_format.read(folder)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"0.weight": Evil()}, folder / "params.pt")
    with pytest.raises(UnsafeWeights, match="holds more than tensors"):
        tuned_format.read(folder)
    assert "run" not in capsys.readouterr().out
    small = TunedLens(torch.zeros(1, 8, 8), torch.zeros(1, 8))
    with pytest.raises(ShapeMismatch, match="1 translators of width 8"):
        tuned_format.write(small, tmp_path / "other", llama)
