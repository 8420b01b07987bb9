"""Codes: short for what is easy to read, a coin's for what is not."""

from __future__ import annotations

import math

import pytest
import torch

from patchclamp.core.errors import WrongPrompt
from patchclamp.probe.codelength import PORTIONS, codelength, codelengths
from patchclamp.probe.linear import logistic


@pytest.fixture
def x():
    return torch.randn(600, 8, generator=torch.Generator().manual_seed(0))


def test_the_code_is_what_the_portions_cost_by_hand(x):
    y = [int(v > 0) for v in x[:, 0]]
    found = codelength(x, y, seed=4)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(4))
    ends = [round(p * 600) for p in PORTIONS if round(p * 600) >= 8]
    bits, start = 0.0, 0
    for end in ends:
        own = torch.tensor(y)[order[start:end]]
        if start:
            said = logistic(x[order[:start]], torch.tensor(y)[order[:start]]).log_probabilities(x[order[start:end]])
            bits -= float(said[range(end - start), own].sum()) / math.log(2)
        else:
            bits += end
        start = end
    assert found.bits == pytest.approx(bits, rel=1e-6) and found.uniform == 600
    assert sum(rows for rows, _ in found.portions) == 600


def test_easy_is_short_hard_is_longer_chance_is_a_coin(x):
    noise = torch.randn(600, generator=torch.Generator().manual_seed(1))
    easy, hard = ([int(v > 0) for v in x[:, 0] + size * noise] for size in (0.0, 1.0))
    chance = [int(v > 0) for v in noise]
    lengths = [codelength(x, y).compression for y in (easy, hard, chance)]
    assert lengths[0] > 2 * lengths[1] and lengths[1] > 1.1 and lengths[2] < 1.05


def test_a_class_that_was_never_named_costs_what_a_guess_does():
    y = [0] * 90 + [1] * 10
    found = codelength(torch.randn(100, 2), y, groups=[0] * 90 + [1] * 10)
    first = found.portions[0]
    assert first == (first[0], first[0] * 1.0)


def test_the_trained_model_has_a_shorter_code_than_the_embedding(town):
    from patchclamp.specimens.town.homographs import homographs
    from patchclamp.specimens.town.world import town as world

    uses = homographs(world(0), 12)
    grid = codelengths(town, "blocks.*.in", [u.text for u in uses], [u.kind for u in uses], seeds=[0, 1])
    assert grid.values[0] < 1 and grid.values[3] > 2 and (grid.details["least"] <= grid.values).all()


def test_numbers_have_no_code(x):
    with pytest.raises(WrongPrompt, match="sort them into classes"):
        codelength(x, x[:, 0].tolist())


def test_numbers_as_labels_are_classes_in_whatever_order():
    """Ten sorts before two as a word and after it as a number."""
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    as_words = codelength(x, ["high" if r[0] > 0 else "low" for r in x]).bits
    assert codelength(x, [10 if r[0] > 0 else 2 for r in x]).bits == pytest.approx(as_words, rel=1e-3)
