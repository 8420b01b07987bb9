"""ACDC spares work, not decisions."""

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.acdc import acdc, naive
from patchclamp.circuit.edges import Question, kept

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("threshold", [1e-5, 1e-4, 1e-3])
def test_its_circuit_is_that_of_the_plain_loop(family, threshold, request):
    model = request.getfixturevalue(family)
    circuit = acdc(model, CLEAN, CORRUPT, threshold)
    q = Question.of(model, CLEAN, CORRUPT, pc.kl(model.run(CLEAN)))
    assert torch.equal(kept(q.wires, circuit.edges), naive(q, threshold))


def test_a_metric_of_ones_own_counts_by_its_fall(gpt2):
    metric = pc.logit_diff(7, 8)
    circuit = acdc(gpt2, CLEAN, CORRUPT, 0.01, metric)
    q = Question.of(gpt2, CLEAN, CORRUPT, metric)
    assert torch.equal(kept(q.wires, circuit.edges), naive(q, 0.01, -1.0))
    assert all(edge.weight >= 0.01 for edge in circuit.edges)


def test_a_high_threshold_leaves_nothing_and_none_is_refused(gpt2):
    assert not acdc(gpt2, CLEAN, CORRUPT, 1e6).edges
    with pytest.raises(ValueError, match="above zero"):
        acdc(gpt2, CLEAN, CORRUPT, 0.0)
