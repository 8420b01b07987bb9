"""Learned gates: they open where the work is done, and the seed decides nothing else."""

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.faithful import judge
from patchclamp.circuit.mask import Gates, _drawn, learned

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"


@pytest.fixture(scope="module")
def gates(town):
    return learned(town, CLEAN, CORRUPT, gates=Gates(steps=150))


def test_the_open_gates_are_a_circuit(town, gates):
    circuit = gates.only(e for e in gates.edges if e.weight > 0.5)
    found = judge(town, circuit, CLEAN, CORRUPT, pc.logit_diff(" Mary", " John"), random=5)
    assert found.share < 0.3
    assert found.faithfulness > 0.9
    assert found.complement < 0.15


def test_it_leaves_no_gradient_in_the_model(town, gates):
    assert all(p.grad is None for p in town.hf.parameters())


def test_the_same_seed_learns_the_same(town):
    few = Gates(steps=3, seed=5)
    one, two = (learned(town, CLEAN, CORRUPT, pc.logit_diff(" Mary", " John"), gates=few) for _ in range(2))
    assert one.edges == two.edges


def test_straight_through_gates_are_whole_or_cut_and_have_a_gradient():
    alpha = torch.linspace(-3, 3, 50, requires_grad=True)
    drawn = _drawn(alpha, torch.Generator().manual_seed(0), "straight-through")
    assert set(drawn.round(decimals=5).tolist()) == {0.0, 1.0}
    (slope,) = torch.autograd.grad(drawn.sum(), alpha)
    assert bool((slope > 0).all())


def test_straight_through_gates_find_a_circuit(town):
    found = learned(town, CLEAN, CORRUPT, gates=Gates(steps=30, rate=0.4, kind="straight-through"))
    circuit = found.only(e for e in found.edges if e.weight > 0.5)
    assert judge(town, circuit, CLEAN, CORRUPT, pc.logit_diff(" Mary", " John"), random=0).faithfulness > 0.9
    assert "straight-through" in found.facts["method"]


def test_gates_of_another_kind_are_refused(town):
    with pytest.raises(ValueError, match="hard-concrete or straight-through"):
        learned(town, CLEAN, CORRUPT, gates=Gates(kind="soft"))
