"""Ticks are round, ranges are never empty, lines are interrupted where a value is missing."""

from __future__ import annotations

import numpy as np
import pytest

from patchclamp.picture.web import axes


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 0.93, ["0", "0.2", "0.4", "0.6", "0.8"]),
        (0.0, 11.0, ["0", "2", "4", "6", "8", "10"]),
        (-1.0, 1.0, ["−1", "−0.5", "0", "0.5", "1"]),
        (0.1, 0.35, ["0.1", "0.15", "0.2", "0.25", "0.3", "0.35"]),
    ],
)
def test_ticks_are_round(low, high, texts):
    assert [text for _, text in axes.ticks(low, high)] == texts


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 3.7, 1e6, 1e300])
def test_ticks_at_every_scale(scale):
    found = axes.ticks(-scale, 2 * scale)
    assert 2 <= len(found) <= 7
    assert all(-scale * 1.001 <= value <= 2 * scale * 1.001 for value, _ in found)


@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [0.0, 0.0], [1e300, 1e300], [-1.7e308, 1.7e308], [1, 1 + 1e-15]])
def test_a_range_has_a_width(values):
    low, high = axes.span(np.array(values, dtype=float), margin=0.06)
    assert low < high
    assert np.isfinite(high - low)


def test_a_missing_value_interrupts_the_line():
    nan = float("nan")
    assert axes.path([(0, 1), (1, 2), (2, nan), (3, 4)]) == "M0 1L1 2M3 4"


def test_places_are_thousandths_from_the_top_left():
    frame = axes.Axes((0.0, 10.0), (0.0, 1.0))
    assert frame.at(0.0, 1.0) == (0.0, 0.0)
    assert frame.at(10.0, 0.25) == (1000.0, 750.0)
