"""Attribution patching: first order of the exact effect, checked against exact patching and finite differences."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import WrongAxis

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36]])
METRIC = pc.logit_diff(7, 8)
PATTERNS = ["blocks.*.out[pos=*]", "blocks.*.attn.z[head=*]", "blocks.*.attn.q[head=*, pos=*]", "blocks.*.mlp.act[neuron=*]",
            "blocks.*.attn.pattern[head=*]", "blocks.*.attn.out", "blocks.*.mlp.out[pos=-1]"]  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "bert", "mixtral", "mamba"])
def test_it_is_the_slope_of_a_small_patch(kind):
    """Patching a small step towards the clean value changes the metric by the estimate times the step (in float64)."""
    with zoo.quiet():
        model = pc.load(zoo.build(kind, "masked" if kind == "bert" else "causal").double())
        for pattern in PATTERNS:
            try:
                paths = model.places(pattern)
            except pc.PatchclampError:
                continue
            grid = pc.effects(model, CLEAN, CORRUPT, pattern, METRIC, estimate=pc.gradient)
            assert grid.values.shape == pc.effects(model, CLEAN, CORRUPT, pattern, METRIC).values.shape
            clean, corrupt = model.run(CLEAN, paths), model.run(CORRUPT, paths)
            step, at, last = 1e-2, paths[0], "pos=-1" in pattern
            site = f"{at}[pos=-1]" if last else at

            def moved(by, at=at, site=site, last=last, clean=clean, corrupt=corrupt, model=model):
                mixed = corrupt[at] + by * (clean[at] - corrupt[at])
                return METRIC(model.edit(pc.Edit(site, lambda value: mixed[:, -1] if last else mixed)).run(CORRUPT).logits)

            slope = float(moved(step) - moved(-step)) / (2 * step)  # some norms compute in single precision
            assert float(grid.values[0].sum()) == pytest.approx(slope, rel=1e-2, abs=5e-4), (kind, pattern)


def test_it_is_exact_where_the_model_is_linear():
    """The last stream before a head without a norm acts on the logits linearly, so its first order is all there is."""
    torch.manual_seed(0)

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(99, 16)
            self.layers = torch.nn.ModuleList([Add(16), Add(16)])
            self.head = torch.nn.Linear(16, 99, bias=False)

        def forward(self, input_ids):
            x = self.embed(input_ids)
            for layer in self.layers:
                x = layer(x)
            return self.head(x)

    class Add(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.mlp = torch.nn.Linear(width, width)

        def forward(self, x):
            return x + self.mlp(x)

    model = pc.load(Linear())
    for pattern in ("blocks.*.out[pos=*]", "blocks.*.out"):
        exact = pc.effects(model, CLEAN, CORRUPT, pattern, METRIC)
        estimate = pc.effects(model, CLEAN, CORRUPT, pattern, METRIC, estimate=pc.gradient)
        assert torch.allclose(exact.values, estimate.values, atol=1e-5)
        assert estimate.note.startswith("Estimated") and exact.note == ""


def test_both_have_the_same_axes_and_baselines(gpt2):
    for pattern in PATTERNS:
        exact = pc.effects(gpt2, CLEAN, CORRUPT, pattern, METRIC)
        estimate = pc.effects(gpt2, CLEAN, CORRUPT, pattern, METRIC, estimate=pc.gradient)
        assert exact.axes == estimate.axes and exact.values.shape == estimate.values.shape
        assert estimate.baseline == pytest.approx(exact.baseline, abs=1e-5)


def test_frozen_weights_have_slopes_too():
    hf = zoo.build("gpt2")
    before = pc.effects(pc.load(hf), CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, estimate=pc.gradient)
    hf.requires_grad_(False)
    after = pc.effects(pc.load(hf), CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, estimate=pc.gradient)
    assert torch.equal(before.values, after.values)
    assert all(p.grad is None for p in hf.parameters())


@pytest.mark.parametrize("kind", ["llama", "gpt_oss"])
def test_a_pattern_has_a_slope_where_the_model_casts_it_or_gives_a_sink_a_share(kind):
    """In bfloat16 the softmax is taken in float32 and cast down; a sink's column is cut off afterwards."""
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        half = pc.load(zoo.build(kind).to(torch.bfloat16))
    exact = pc.effects(model, CLEAN, CORRUPT, "blocks.1.attn.pattern[head=*]", METRIC)
    estimate = pc.effects(model, CLEAN, CORRUPT, "blocks.1.attn.pattern[head=*]", METRIC, estimate=pc.gradient)
    rough = pc.effects(half, CLEAN, CORRUPT, "blocks.1.attn.pattern[head=*]", METRIC, estimate=pc.gradient)
    assert torch.allclose(exact.values, estimate.values, atol=2e-3) and float(estimate.values.abs().max()) > 5e-3
    assert torch.allclose(rough.values, estimate.values, atol=2e-2) and bool((rough.values != 0).all())


def test_a_metric_without_gradient_says_so(gpt2):
    with pytest.raises(pc.PatchclampError, match="gradient"):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out[pos=*]", pc.rank(7), estimate=pc.gradient)


def test_an_estimator_of_ones_own(gpt2):
    def zero(c):
        return torch.zeros(1, len(c.spread.paths)), c.read(c.model.run(c.corrupt).logits)

    assert torch.equal(pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out", METRIC, estimate=zero).values, torch.zeros(2))


def test_an_axis_that_is_not_there(gpt2):
    with pytest.raises(WrongAxis):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out[head=*]", METRIC, estimate=pc.gradient)
