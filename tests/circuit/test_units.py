"""Units: a neuron's or latent's edges add up to its weight, which is the first order of putting its corrupt value in."""

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.units import units
from patchclamp.core.errors import Unserved

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


class Turned:
    """Latents that are the activation in another basis, so that nothing is lost."""

    def __init__(self, width):
        self.basis = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0]

    def encode(self, x):
        return x @ self.basis

    def decode(self, latents):
        return latents @ self.basis.T


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_edges_of_a_neuron_add_up_to_its_weight(name, request):
    graph = units(request.getfixturevalue(name), CLEAN, CORRUPT, METRIC, "blocks.*.mlp.act", top=6)
    for unit in graph.top(6):
        assert sum(e.weight for e in graph.outgoing(unit.site)) == pytest.approx(unit.value, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("place", ["blocks.0.out", "blocks.0.mlp.out", "blocks.0.attn.out", "blocks.1.in"])
def test_the_edges_of_a_latent_add_up_to_its_weight(gpt2, place):
    model = gpt2.edit(pc.splice(place, Turned(gpt2.width)))
    graph = units(model, CLEAN, CORRUPT, METRIC, f"{place}.latents", top=4)
    assert "latent" in graph.top(1)[0].label
    for unit in graph.top(4):
        assert sum(e.weight for e in graph.outgoing(unit.site)) == pytest.approx(unit.value, rel=1e-3, abs=1e-6)


def test_a_neurons_weight_is_the_first_order_of_its_effect(gpt2):
    near = CLEAN.clone()
    unit = units(gpt2, CLEAN, CORRUPT, METRIC, "blocks.*.mlp.act", top=1).top(1)[0]
    ours, theirs = (gpt2.run(ids, [unit.site]) for ids in (CLEAN, CORRUPT))
    step = 0.01 * (theirs[unit.site] - ours[unit.site])
    moved = gpt2.edit(pc.Edit(unit.site, lambda value: value + step)).run(near).logits
    fall = (gpt2.metric(METRIC, ours)(ours.logits) - gpt2.metric(METRIC, ours)(moved)).mean()
    assert 100 * float(fall) == pytest.approx(unit.value, rel=0.1)


def test_units_are_ranked_by_magnitude_or_by_weight(gpt2):
    whole = units(gpt2, CLEAN, CORRUPT, METRIC, "blocks.*.mlp.act", top=10_000)
    values = sorted((n.value for n in whole.nodes if "mlp.act" in n.site), reverse=True)
    best = units(gpt2, CLEAN, CORRUPT, METRIC, "blocks.*.mlp.act", top=3, signed=True)
    assert sorted((n.value for n in best.nodes if "mlp.act" in n.site), reverse=True) == pytest.approx(values[:3])


def test_places_whose_units_write_nothing_known_are_refused(gpt2):
    with pytest.raises(Unserved, match="mlp.act"):
        units(gpt2, CLEAN, CORRUPT, METRIC, "blocks.*.mlp.pre")
