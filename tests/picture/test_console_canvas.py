"""A canvas puts points where they belong and leaves no gap in a line."""

from __future__ import annotations

import numpy as np

from patchclamp.picture.console.canvas import Canvas, span
from patchclamp.picture.console.room import Room


def field(canvas: Canvas) -> list[str]:
    return [line.plain[9:] for line in canvas.lines(Room(80, True), "x")][: canvas.height]


def test_signs_stand_in_their_corners():
    x, y = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    canvas = Canvas(10, 3, x, y)
    canvas.sign(0.0, 0.0, 0)
    canvas.sign(1.0, 1.0, 1)
    rows = field(canvas)
    assert rows[-1][0] == "●"
    assert rows[0][-1] == "○"


def test_a_line_has_no_gap():
    x, y = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    canvas = Canvas(20, 5, x, y)
    canvas.curve(x, y, 0)
    assert all(row.strip() for row in field(canvas))
    assert (canvas.bits > 0).any(axis=0).all()


def test_a_missing_value_leaves_a_gap():
    x, y = np.arange(4.0), np.array([0.0, 1.0, np.nan, 1.0])
    canvas = Canvas(20, 5, x, y)
    canvas.curve(x, y, 0)
    assert not (canvas.bits > 0)[:, 8:19].any()
    assert (canvas.bits > 0)[:, 19].any()  # the last point has no neighbour and is still there


def test_bounds_are_written():
    lines = [line.plain for line in Canvas(20, 5, np.array([0.0, 9.0]), np.array([-1.0, 2.5])).lines(Room(80, True), "step")]
    assert "2.5" in lines[0]
    assert "−1" in lines[4]
    assert lines[5].split() == ["0", "step", "9"]


def test_a_range_has_a_width():
    assert span(np.array([3.0, 3.0])) == (1.5, 4.5)
    assert span(np.array([0.0])) == (-0.5, 0.5)
