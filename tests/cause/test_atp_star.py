"""AtP*: a saturated softmax and a cancellation, each built so that plain gradients see nothing, and each mended."""

import pytest
import torch

import by_weights
import patchclamp as pc
from patchclamp.cause.atp_star import atp_star
from patchclamp.core.errors import Unserved

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


@pytest.mark.parametrize(
    ("clean", "corrupt", "site"),
    [
        ([[0, 1, 3]], [[0, 1, 2]], "blocks.*.attn.q[head=*]"),
        ([[0, 1, 3]], [[0, 1, 2]], "blocks.*.attn.q[pos=*]"),
        ([[1, 0, 2]], [[0, 1, 2]], "blocks.*.attn.k[kv_head=*, pos=*]"),
        ([[1, 0, 2]], [[0, 1, 2]], "blocks.*.attn.k"),
    ],
)
def test_a_saturated_softmax_is_taken_again(clean, corrupt, site):
    """All that follows the softmax is linear here, so the mended estimate is the exact effect."""
    model = by_weights.saturated()

    def ask(estimate=None):
        return pc.effects(model, clean, corrupt, site, pc.logit(0), **({} if estimate is None else {"estimate": estimate}))

    exact, plain, mended = ask(), ask(pc.gradient), ask(atp_star(drop=False))
    assert float(exact.values.abs().max()) >= 0.9 and float(plain.values.abs().max()) < 1e-6
    assert torch.allclose(mended.values, exact.values, atol=1e-5)


def test_a_deaf_layer_cannot_cancel():
    """To first order block 1 takes back what block 0 writes; with block 1 deaf the estimate is 3, with block 2 deaf 0."""
    model = by_weights.cancelling()

    def ask(estimate):
        return pc.effects(model, [[1]], [[0]], "blocks.*.mlp.out", pc.logit(0), estimate=estimate).values.tolist()

    assert ask(pc.gradient) == pytest.approx([0, 1, 0], abs=1e-6) == ask(atp_star(drop=False))
    assert ask(atp_star()) == pytest.approx([1.5, 1, 0], abs=1e-6)


@pytest.mark.parametrize(("family", "site"), [("gpt2", "blocks.*.attn.k[kv_head=*, pos=*]"), ("llama", "blocks.*.attn.k[kv_head=*]"),
                                              ("llama", "blocks.*.attn.k[kv_head=*, pos=4]"), ("llama", "blocks.*.attn.q[head=*]"),
                                              ("llama", "blocks.*.attn.q[pos=*]")])  # fmt: skip
def test_patterns_are_those_of_the_patched_model(family, site, request):
    """Cell by cell: the patched model's own pattern in that layer, less the corrupt one, times the slope there."""
    model = request.getfixturevalue(family)
    grid = pc.effects(model, CLEAN, CORRUPT, site, METRIC, estimate=atp_star(drop=False))
    run = model.run(CORRUPT, "blocks.*.attn.pattern", grad=True)
    slope = run.gradient(METRIC)
    clean = model.run(CLEAN, site.partition("[")[0])
    for cell in torch.cartesian_prod(*map(torch.arange, grid.values.shape)).tolist():
        layer, *rest = cell
        index = dict(pc.Site.parse(site).index)
        index.update(zip((a for a in grid.axes if a != "layer"), rest))
        one = pc.Site.parse(site.partition("[")[0].replace("*", str(layer))).at(**index)
        pattern = f"blocks.{layer}.attn.pattern"
        patched = model.edit(pc.patch(one, clean)).run(CORRUPT, pattern)[pattern]
        expected = ((patched - run[pattern].detach()) * slope[pattern]).sum((1, 2, 3))
        assert torch.allclose(grid.each[(slice(None), *cell)], expected, atol=1e-5), one


def test_other_places_are_as_with_gradients_until_layers_are_deaf(gpt2):
    for site in ("blocks.*.attn.z[head=*]", "blocks.*.out[pos=*]"):
        plain = pc.effects(gpt2, CLEAN, CORRUPT, site, METRIC, estimate=pc.gradient)
        mended = pc.effects(gpt2, CLEAN, CORRUPT, site, METRIC, estimate=atp_star(drop=False))
        assert torch.allclose(plain.each, mended.each, atol=1e-5)
    deaf = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, estimate=atp_star())
    silent = gpt2.edit(pc.freeze("blocks.1.attn.out"), pc.freeze("blocks.1.mlp.out"))
    other = pc.effects(silent, CLEAN, CORRUPT, "blocks.0.attn.z[head=*]", METRIC, estimate=pc.gradient)
    assert torch.allclose(deaf.each[:, 0], other.each.abs(), atol=1e-5)  # of two layers, one is the place's own
    assert "AtP*" in deaf.note


def test_roles_and_positions_agree(gpt2):
    by_role = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.k[role=*]", METRIC, estimate=atp_star(), roles={"a": [2, 4]})
    by_pos = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.k[pos=*]", METRIC, estimate=atp_star())
    assert torch.allclose(by_role.each[0, :, 0], by_pos.each[0, :, 2], atol=1e-6)
    assert torch.allclose(by_role.each[1, :, 0], by_pos.each[1, :, 4], atol=1e-6)
    with pytest.raises(Unserved, match="single places"):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.k", METRIC, estimate=atp_star(), window=2)
