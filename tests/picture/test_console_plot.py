"""Curves in colour, sparklines without; points as signs."""

from __future__ import annotations

import picture_samples as samples

from patchclamp.picture.console import plot
from patchclamp.picture.console.room import Room


def plain(lines) -> str:
    return "\n".join(line.plain for line in lines)


def test_several_curves_have_keys():
    text = plain(plot.lines(samples.lines(), Room(80, True)))
    assert "━ ·Mary  ━ band" in text
    assert "probability" in text


def test_without_colour_each_curve_has_its_own_line():
    text = plain(plot.lines(samples.lines(), Room(80, False)))
    assert "first 0, last 1" in text
    assert "▁" in text
    assert "layer from 0 to 11" in text


def test_points_have_signs_of_their_group_and_the_outermost_have_names():
    text = plain(plot.scatter(samples.scatter(), Room(80, False)))
    assert "● one  ○ two" in text
    assert "outermost: L" in text
