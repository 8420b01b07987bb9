"""The logits are a sum over paths: exactly, and each path is the product of matrices that its name says."""

import pytest
import torch

import attention_only
import patchclamp as pc
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.matrix.frozen import Frozen
from patchclamp.matrix.paths import LONGER, count, expand, group, last, list_paths, order, source, virtual

IDS = [[3, 1, 4, 1, 5]]


@pytest.mark.parametrize(
    "options", [{}, {"layers": 3, "heads": [1, 2, 3]}, {"positional": "rotary"}, {"bias": False, "positional": "none"}]
)
def test_paths_of_attention_only_models_without_norms_add_up_to_the_logits(options):
    model = attention_only.drawn(**options)
    frozen = Frozen.of(model, IDS)
    made = [(name, frozen.logits(stream)) for name, stream in list_paths(frozen)]
    assert (sum(logits for _, logits in made) - frozen.run.logits).abs().max() < 1e-4
    assert len(made) == count(frozen) == len({name for name, _ in made})


def test_paths_of_the_published_model_add_up_to_its_logits(shared):
    model = attention_only.induction(shared)
    half = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:20]
    ids = torch.cat([half, half])[None]
    frozen = Frozen.of(model, ids)
    total = sum(frozen.logits(stream) for _, stream in list_paths(frozen))
    assert count(frozen) == 25 and (total - model.run(ids).logits).abs().max() < 1e-4
    grid = expand(model, ids[:, :-10], pc.logit(int(half[10])))  # the next token, if the repeat goes on
    by_last = group(grid, last)
    assert by_last.words("path") == ["straight on", *(f"{i}.{h}" for i in (0, 1) for h in range(4))]
    assert (
        by_last.top(3)[0][0]["path"] in ("1.1", "1.2", "1.3") and abs(float(grid.values.sum()) - grid.baseline["metric"]) < 1e-4
    )


def test_a_path_is_the_product_that_its_name_says():
    model = attention_only.drawn(bias=False)
    frozen, w = Frozen.of(model, IDS), model.weights
    x = frozen.run["blocks.0.in"]
    A = [model.run(IDS, keep=f"blocks.{i}.attn.pattern")[f"blocks.{i}.attn.pattern"] for i in (0, 1)]
    by_hand = A[1][0, 2] @ A[0][0, 1] @ x[0] @ w["blocks.0.attn.W_V[kv_head=1]"] @ w["blocks.0.attn.W_O[head=1]"]
    by_hand = by_hand @ w["blocks.1.attn.W_V[kv_head=2]"] @ w["blocks.1.attn.W_O[head=2]"]
    found = dict(list_paths(frozen))
    assert torch.allclose(found["embedding → 0.1 → 1.2"][0], by_hand, atol=1e-4) and torch.equal(found["embedding"], x)
    pattern = virtual(model, IDS, "blocks.0.attn.z[head=1]", "blocks.1.attn.z[head=2]")
    assert torch.allclose(pattern.values, A[1][0, 2] @ A[0][0, 1], atol=1e-5) and pattern.title == "Virtual head 0.1, 1.2"


def test_norms_hold_the_scale_they_had():
    for norm in ("layer", "rms"):
        model = attention_only.drawn(norm=norm, d_mlp=8)
        grid = expand(model, IDS, pc.logit_diff(7, 8))
        assert abs(float(grid.values.sum()) - grid.baseline["metric"]) < 1e-3
        run = model.run(IDS)
        assert grid.baseline["metric"] == pytest.approx(float(run.logits[0, -1, 7] - run.logits[0, -1, 8]), abs=1e-4)


def test_what_is_longer_than_asked_is_one_term():
    model = attention_only.drawn(layers=3, norm="rms", d_mlp=8, bias=False)
    whole, short = (expand(model, IDS, pc.logit_diff(7, 8), order=n) for n in (None, 1))
    rest = group(whole, order)
    assert rest.words("path") == ["no head", "1 head", "2 heads", "3 heads"]
    assert short.words("path")[-1] == LONGER and whole.words("path")[-1] != LONGER
    assert float(short.values[-1]) == pytest.approx(float(rest.values[2:].sum()), abs=1e-3)
    assert abs(float(short.values.sum()) - short.baseline["metric"]) < 1e-3
    assert group(short, source).words("path") == ["embedding", "mlp 0", "mlp 1", "mlp 2", LONGER]
    assert len(whole.picture().labels) == 20


def test_several_prompts_are_averaged_and_kept_apart():
    model = attention_only.drawn()
    grid = expand(model, [[3, 1, 4], [1, 5, 9]], pc.logit([7, 8]))
    assert grid.each.shape == (2, len(grid.words("path"))) and torch.allclose(grid.each.mean(0), grid.values)
    alone = expand(model, [[1, 5, 9]], pc.logit(8))
    assert torch.allclose(alone.values, grid.each[1], atol=1e-4)
    assert group(grid, order).each.shape[0] == 2


def test_too_many_paths_and_other_metrics_are_refused(monkeypatch):
    model = attention_only.drawn()
    with pytest.raises(Unserved, match="a logit or a difference of two"):
        expand(model, IDS, pc.prob(3))
    with pytest.raises(Unserved, match="not to a my_own"):

        def my_own(logits):
            return logits[:, -1, 0]

        expand(model, IDS, my_own)
    with pytest.raises(WrongAxis, match="does not come after"):
        virtual(model, IDS, "blocks.1.attn.z[head=1]", "blocks.0.attn.z[head=1]")
    monkeypatch.setattr("patchclamp.matrix.paths.MOST", 10)
    with pytest.raises(Unserved, match="order=2"):
        expand(model, IDS, pc.logit(3))
    with pytest.raises(Unserved, match="one prompt at a time"):
        virtual(model, [[1, 2], [3, 4]], "blocks.0.attn.z[head=1]")
