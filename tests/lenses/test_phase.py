"""Phase: measures equal those taken by hand, jumps are found where they were put, and a slope is not called a jump."""

from pathlib import Path

import pytest
import torch

import patchclamp as pc
import six_heads
from patchclamp.core.errors import NotAModel, Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.journal import keeping
from patchclamp.lenses.attention import looks, repeated, unrepeated
from patchclamp.lenses.phase import checkpoints, jump, phase
from patchclamp.specimens import town as place
from patchclamp.task.tasks import draw

FOLDER = Path(place.__file__).parent


def grid(curve, each=None):
    values = torch.as_tensor(curve)
    return Grid(values, ("step",), {"step": [str(100 * n) for n in range(len(values))]}, each=each)


def test_a_jump_is_found_where_it_was_put_and_the_interval_holds_it():
    generator = torch.Generator().manual_seed(0)
    for at in (3, 7, 12):
        each = 4 + 0.3 * torch.randn(20, 16, generator=generator)
        each[:, at:] -= 3
        found = jump(grid(each.mean(0), each))
        assert (found.before, found.after) == (100 * (at - 1), 100 * at) and found.abrupt
        assert found.size == pytest.approx(-3, abs=0.2) and found.low <= found.after <= found.high and found.p < 0.02


def test_a_slope_is_not_abrupt_and_noise_is_no_jump():
    assert not jump(grid(torch.linspace(4, 1, 16))).abrupt
    ps = [jump(grid(torch.randn(16, generator=torch.Generator().manual_seed(s)))).p for s in range(20)]
    assert sum(p < 0.05 for p in ps) <= 3


def test_the_interval_is_wide_where_prompts_disagree():
    each = torch.full((2, 12), 3.0)
    each[0, 2:], each[1, 9:] = 0.0, 0.0
    found = jump(grid(each.mean(0), each))
    assert found.low <= 200 and found.high >= 900


def test_measures_are_those_taken_by_hand(monkeypatch):
    model = six_heads.model()
    monkeypatch.setattr("patchclamp.lenses.phase.repeated", lambda m: repeated(m, 4, 10))
    monkeypatch.setattr("patchclamp.lenses.phase.unrepeated", lambda m: unrepeated(m, 4, 10))
    without = model.edit(pc.zero("blocks.1.attn.z[head=0]"))
    found = phase([(0, without), (1, model)])
    tokens = repeated(model, 4, 10)
    nll = -model.run(tokens).logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    assert float(found.at(measure="loss on repeats", step="1").values) == pytest.approx(float(nll[:, 10:].mean()), abs=1e-4)
    assert float(found.at(measure="loss elsewhere", step="1").values) == pytest.approx(float(nll[:, :10].mean()), abs=1e-4)
    most = looks(model, tokens).at(look="induction").values.nan_to_num(0).max()
    assert float(found.at(measure="induction", step="1").values) == pytest.approx(float(most), abs=1e-5)
    change = found.at(measure="loss on repeats").values
    assert change[0] > change[1] + 1


def test_the_towns_checkpoints_learn_from_context_between_the_first_and_the_second():
    models = list(checkpoints(FOLDER))
    parrots = [p.clean for p in draw("town/parrot", 8, seed=0, tokenizer=models[-1][1].tokenizer)]
    found = phase(models, parrots)
    assert list(found.words("step")) == ["600", "1600", "8000"]
    looks_at, control = (found.at(measure=m).values for m in ("induction", "induction, control"))
    assert looks_at[0] < 0.3 and looks_at[-1] > 0.6 and control.max() < 0.15
    assert found.at(measure="loss on repeats").values[-1] < 0.2 < 2 < found.at(measure="loss on repeats").values[0]
    with pytest.raises(Unserved, match="3 checkpoints are too few"):
        jump(found.at(measure="induction"))


def test_what_is_measured_is_not_measured_again(tmp_path, monkeypatch):
    model, tokens = six_heads.model(), torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4], [5, 6, 7, 8, 5, 6, 7, 8]])
    with keeping(tmp_path / "work"):
        once = phase([(0, model), (1, model)], tokens)
    monkeypatch.setattr("patchclamp.lenses.phase._measured", None)
    with keeping(tmp_path / "work"):
        again = phase([(0, model), (1, model)], tokens)
    assert torch.equal(once.values, again.values)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(NotAModel, match="has no folders step-"):
        next(checkpoints(tmp_path))
    with pytest.raises(WrongPrompt, match="no checkpoint"):
        phase([])
    with pytest.raises(WrongPrompt, match=r"take grid.at\(measure=...\)"):
        jump(Grid(torch.zeros(2, 5), ("measure", "step")))
