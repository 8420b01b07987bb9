"""Bars either side of zero, tables with aligned numbers."""

from __future__ import annotations

import numpy as np
import picture_samples as samples

from patchclamp.picture import Bars, Table
from patchclamp.picture.console import rows
from patchclamp.picture.console.room import Room


def plain(lines) -> list[str]:
    return [line.plain.rstrip() for line in lines]


def test_bars_grow_from_zero():
    lines = plain(rows.bars(Bars(np.array([1.0, -0.5]), ("a", "b")), Room(40, False)))
    up, down = lines
    assert up.count("█") == 2 * down.count("█") or abs(up.count("█") - 2 * down.count("█")) <= 2
    assert down.rindex("█") < up.index("█")


def test_intervals_follow_the_number():
    assert "2.41  2.31 to 2.51" in "\n".join(plain(rows.bars(samples.bars(), Room(80, False))))


def test_many_bars_are_cut_and_counted():
    lines = plain(rows.bars(Bars(np.arange(200.0), tuple(map(str, range(200)))), Room(80, False)))
    assert lines[-1] == "152 of 200 bars not shown (the smallest)"


def test_a_small_bar_is_still_seen():
    [_, small] = plain(rows.bars(Bars(np.array([1000.0, -1.0]), ("a", "b")), Room(80, False)))
    assert any(sign in small for sign in "▕▐▏")


def test_numbers_stand_on_their_points():
    lines = plain(rows.table(samples.table(), Room(80, False)))
    points = {line.index(".") for line in lines if "0." in line}
    assert len(points) == 1


def test_columns_that_do_not_fit_are_named():
    picture = Table(tuple(f"column {at}" for at in range(20)), (tuple(range(20)),))
    text = " ".join(plain(rows.table(picture, Room(80, False))))
    assert "columns not shown: column 8" in text
