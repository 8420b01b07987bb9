"""Path patching: direct paths are wires, paths through everything are plain patching of the sender."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.cause.path import paths

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


def by_hand(model, sender, receiver, through=(), free=()):
    """Two runs for one pair: everything between frozen, then the receiver patched."""
    clean = model.run(CLEAN, sender.partition("[")[0])
    held = [site for name, site in (("attn", "blocks.*.attn.z"), ("mlp", "blocks.*.mlp.out")) if name not in through]
    base = model.run(CORRUPT, held)
    frozen = model.edit(*(pc.patch(path, base) for path in base.sites if path not in free), pc.patch(sender, clean))
    told = frozen.run(CORRUPT, receiver.partition("[")[0])
    return METRIC(model.edit(pc.patch(receiver, told)).run(CORRUPT).logits) - METRIC(model.run(CORRUPT).logits)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("through", [(), ("mlp",), ("mlp", "attn")])
@pytest.mark.parametrize("receiver", ["blocks.1.attn.q[head=2]", "blocks.1.mlp.in", "blocks.1.attn.v[kv_head=0]"])
def test_every_cell_is_the_two_runs_by_hand(family, through, receiver, request):
    model = request.getfixturevalue(family)
    grid = paths(model, CLEAN, CORRUPT, "blocks.0.attn.z[head=*]", receiver, METRIC, through=through)
    for head in range(model.heads):
        expected = by_hand(model, f"blocks.0.attn.z[head={head}]", receiver, through)
        assert torch.allclose(grid.each[:, head], expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["gemma2", "gpt_neox", "mixtral", "bloom", "gptj"])
def test_other_families_too(kind):
    """Norms behind the layers, parallel layers, experts, biases for positions: what need not run is left out, and no more."""
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        for sender in ("blocks.0.attn.z[head=*]", "blocks.*.mlp.out[pos=*]"):
            grid = paths(model, CLEAN, CORRUPT, sender, "blocks.1.attn.k[kv_head=0]", METRIC)
            one = sender.replace("*", "0", 1) if "mlp" in sender else sender
            for n in range(0, grid.values.shape[-1], 3):
                expected = by_hand(model, one.replace("=*", f"={n}"), "blocks.1.attn.k[kv_head=0]")
                mine = grid.each[:, 0, n] if "mlp" in sender else grid.each[:, n]
                assert torch.allclose(mine, expected, atol=2e-5), (sender, n)


@pytest.mark.parametrize(
    ("sender", "out", "count"),
    [("blocks.0.mlp.act[neuron=*]", "blocks.0.mlp.out", 4), ("blocks.0.attn.v[kv_head=*]", "blocks.0.attn.z", 4)],
)
@pytest.mark.parametrize("through", [(), ("mlp",)])
def test_a_sender_inside_a_layer_speaks_through_it(gpt2, sender, out, count, through):
    grid = paths(gpt2, CLEAN, CORRUPT, sender, "blocks.1.mlp.in", METRIC, through=through)
    assert bool(grid.values.any())
    for n in range(count):
        expected = by_hand(gpt2, sender.replace("*", str(n)), "blocks.1.mlp.in", through, free=[out])
        assert torch.allclose(grid.each[:, n], expected, atol=2e-5)


def test_receivers_are_patched_together(gpt2):
    together = paths(gpt2, CLEAN, CORRUPT, "blocks.0.mlp.out", "blocks.1.attn.q", METRIC)
    apart = paths(gpt2, CLEAN, CORRUPT, "blocks.0.mlp.out", [f"blocks.1.attn.q[head={h}]" for h in range(gpt2.heads)], METRIC)
    assert torch.allclose(together.values, apart.values, atol=1e-5)


def test_a_sender_tells_nothing_to_what_came_before_it(gpt2):
    grid = paths(gpt2, CLEAN, CORRUPT, "blocks.1.attn.z[head=*]", "blocks.0.attn.q", METRIC)
    assert not grid.values.any()


def test_what_may_pass_things_on_has_two_names(gpt2):
    with pytest.raises(ValueError, match="mlp"):
        paths(gpt2, CLEAN, CORRUPT, "blocks.0.mlp.out", "blocks.1.attn.q", METRIC, through=["norm"])
