"""Tables and bars are real tables; a bar's box is as long as its value."""

from __future__ import annotations

import re

import numpy as np
import picture_samples as samples
import pytest

from patchclamp.picture import Bars
from patchclamp.picture.web import rows


def boxes(picture: Bars) -> list[tuple[str, float, float]]:
    found = re.findall(r'class="bar (\w+)" style="left:([\d.]+)%;width:([\d.]+)%"', rows.bars(picture))
    return [(kind, float(left), float(width)) for kind, left, width in found]


def test_bars_start_at_zero():
    assert boxes(Bars(np.array([3.0, -1.0]), ("a", "b"))) == [("positive", 25.0, 75.0), ("negative", 0.0, 25.0)]


def test_sequential_bars_have_one_colour():
    assert boxes(Bars(np.array([2.0, 1.0]), ("a", "b"), scale="sequential")) == [("plain", 0, 100), ("plain", 0, 50)]


def test_a_missing_value_has_no_length():
    assert boxes(Bars(np.array([1.0, np.nan]), ("a", "b")))[1][2] == 0


def test_intervals_are_drawn_and_fit():
    drawn = rows.bars(samples.bars())
    assert drawn.count('class="interval"') == 4
    assert rows.span(samples.bars()) == pytest.approx((-0.72, 2.51))


def test_numbers_stand_beside_their_bars():
    drawn = rows.bars(samples.bars())
    assert "2.41" in drawn
    assert "−0.62" in drawn


def test_many_bars_are_folded_not_lost():
    drawn = rows.bars(Bars(np.arange(100.0), tuple(map(str, range(100)))))
    assert "60 more" in drawn
    assert len(boxes(Bars(np.arange(100.0), tuple(map(str, range(100)))))) == 100


def test_a_table_keeps_words_and_numbers():
    drawn = rows.table(samples.table())
    assert '<i class="mark">·</i>Mary' in drawn
    assert "0.00091" in drawn
    assert '<td class="n">–</td>' in drawn
