"""Likeness: 1 with oneself however turned, about 0 with chance, and the biases that are known are there."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.model.untrained import untrained
from patchclamp.probe.similarity import alike, biased_cka, cca, cka, correlations, rsa, svcca


@pytest.fixture
def x():
    return torch.randn(400, 32, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.5, 3, 32)


@pytest.fixture
def other():
    return torch.randn(400, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("measure", [cka, biased_cka, cca, svcca], ids=lambda m: m.__name__)
def test_a_place_is_like_itself_turned_scaled_and_moved(x, measure):
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(2))).Q
    assert measure(x, x) == pytest.approx(1, abs=1e-4) and measure(x, 5 * x @ turn + 3) == pytest.approx(1, abs=1e-3)


def test_chance_is_not_alike(x, other):
    assert abs(cka(x, other)) < 0.3 and abs(rsa(x, other)) < 0.3 and biased_cka(x, other) < 0.3
    shuffled = x[torch.randperm(400, generator=torch.Generator().manual_seed(3))]
    assert abs(cka(x, shuffled)) < 0.05


def test_few_rows_fool_the_biased_estimate_and_not_the_unbiased_one():
    wide, another = (torch.randn(60, 512, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert biased_cka(wide, another) > 0.8 and abs(cka(wide, another)) < 0.1


def test_cka_is_that_of_a_naive_sum(x, other):
    """The unbiased estimate as a sum over four different rows (Song et al. 2012, eq. 4)."""
    from itertools import permutations

    a, b = x[:7].double(), other[:7].double()
    k, m = a @ a.T, b @ b.T

    def hsic(k, m):
        terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(7), 4)]
        return sum(terms) / len(terms)

    by_hand = hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5
    assert cka(x[:7], other[:7]) == pytest.approx(float(by_hand), rel=1e-6)


def test_canonical_correlations_find_the_planted_one(x, other):
    made = torch.cat([x[:, :1] + 0.1 * other[:, :1], other[:, 1:8]], 1)
    found = correlations(x, made)
    assert found[0] > 0.95 and found[1] < 0.5


def test_layers_of_one_model_are_alike_near_the_diagonal(town):
    prompts = [
        f"{a} and {b} went to the {c}"
        for a in ("Mary", "Anna", "John")
        for b in ("Leo", "Nora")
        for c in ("store", "park", "farm")
    ]
    own, chance = alike(town, town, "blocks.*.out", prompts), alike(town, untrained(town), "blocks.*.out", prompts)
    assert torch.allclose(own.values.diagonal(), torch.ones(4), atol=1e-4) and torch.allclose(
        own.values, own.values.T, atol=1e-4
    )
    assert chance.values.max() < 1 and chance.axes == ("layer", "other layer")


def test_what_is_alike_by_counting_is_refused(x):
    with pytest.raises(WrongPrompt, match="alike by counting"):
        cca(x[:40], x[:40])
    with pytest.raises(ShapeMismatch, match="activations of the same rows"):
        cka(x, x[:3])
    with pytest.raises(WrongPrompt, match="needs four rows"):
        cka(x[:3], x[:3])
