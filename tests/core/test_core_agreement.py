"""Agreement: what is right is called right, what is missed is named."""

import math

import pytest
import torch

from patchclamp.core.agreement import Agreement, chosen
from patchclamp.picture import Scatter

TRUE = torch.tensor([4.0, -3.0, 1.0, 0.2, 0.0])
NAMES = ["a", "b", "c", "d", "e"]


def test_what_is_exact_agrees():
    found = Agreement.of(TRUE, TRUE, NAMES)
    assert found.spearman == pytest.approx(1) and found.error == 0 and found.saturated == ()
    assert "None is saturated" in str(found)


def test_strong_effects_that_are_not_seen_are_named():
    said = torch.tensor([4.0, -0.2, 0.0, 0.0, 0.0])  # d is missed as well, but it is no strong effect
    found = Agreement.of(TRUE, said, NAMES, unit="logits")
    assert found.saturated == ("b", "c") and "2 of 5 are saturated" in str(found)
    assert found.error == pytest.approx((2.8 + 1 + 0.2) / 8.2)
    assert found.grid.words("cell") == ["a", "b (saturated)", "c (saturated)", "d", "e"]
    assert found.grid.details["saturated"].tolist() == [[0, 1, 1, 0, 0]] * 2
    picture = found.picture()
    assert isinstance(picture, Scatter) and picture.groups == ("seen", "saturated", "saturated", "seen", "seen")
    assert "saturated" in found.html()


def test_where_all_are_equal_there_are_no_ranks():
    assert math.isnan(Agreement.of(TRUE, torch.zeros(5), NAMES).spearman)


def test_half_of_a_sample_are_the_strongest():
    estimated = torch.arange(100.0)
    mine = chosen(estimated, 10)
    assert mine[:5] == [99, 98, 97, 96, 95] and len(set(mine)) == 10
    assert mine == chosen(estimated, 10) != chosen(estimated, 10, seed=1)
    assert sorted(chosen(estimated[:4], 10)) == [0, 1, 2, 3]
