"""Heatmaps take the best form that fits, and say what does not."""

from __future__ import annotations

import numpy as np
import picture_samples as samples

from patchclamp.picture import Heatmap, Tokens
from patchclamp.picture.console import cells
from patchclamp.picture.console.room import Room


def plain(lines) -> str:
    return "\n".join(line.plain for line in lines)


def test_numbers_stand_in_the_cells():
    text = plain(cells.heatmap(samples.effects(3, 3), Room(80, True)))
    assert "layer ↓ · head →" in text
    assert f"{samples.effects(3, 3).values[0, 0]:.2f}".replace("-", "−") in text


def test_a_narrow_terminal_drops_the_leading_zero_first():
    picture = Heatmap(np.full((1, 14), -0.25), ("0",), tuple(map(str, range(14))), scale="diverging")
    assert "−0.25" in plain(cells.heatmap(picture, Room(120, True)))
    assert "−.25" in plain(cells.heatmap(picture, Room(80, True)))


def test_with_colour_numbers_give_way_before_columns():
    lines = cells.heatmap(samples.effects(12, 30), Room(80, True))
    assert "not shown" not in plain(lines)
    [row] = [line for line in lines if line.plain.startswith(" 5 ")]
    assert not row.plain[3:].strip()
    assert len(row.spans) > 20


def test_without_colour_columns_give_way_and_are_counted():
    text = plain(cells.heatmap(samples.effects(12, 30), Room(80, False)))
    assert "of 30 columns not shown" in text


def test_words_without_colour_come_with_their_numbers():
    picture = Heatmap(np.array([[0.25]]), ("0",), ("a",), text=((" word",),))
    assert "·word" in plain(cells.heatmap(picture, Room(80, False)))
    assert "0.25" in plain(cells.heatmap(picture, Room(80, False)))
    assert len(cells.heatmap(picture, Room(80, True))) == len(cells.heatmap(picture, Room(80, False))) - 1


def test_numbers_below_words_are_never_cut():
    picture = Heatmap(np.full((1, 8), 0.0123), ("0",), ("a",) * 8, text=(("x",) * 8,))
    assert "…" not in plain(cells.heatmap(picture, Room(80, False)))


def test_narrow_cells_have_labels_letter_below_letter():
    picture = Heatmap(np.ones((1, 30)), ("0",), ("ab",) * 30)
    lines = [line.plain.split() for line in cells.heatmap(picture, Room(80, True))]
    assert ["a"] * 30 in lines
    assert ["b"] * 30 in lines


def test_many_rows_are_cut_and_counted():
    assert "136 of 200 rows not shown" in plain(cells.heatmap(samples.effects(200, 3), Room(80, True)))


def test_tokens_break_lines_at_line_breaks():
    lines = cells.tokens(Tokens(("a", "\n", "b")), Room(80, True))
    assert [line.plain for line in lines] == ["a↵", "b"]


def test_tokens_without_colour_carry_numbers():
    assert "a[0.50]" in plain(cells.tokens(Tokens(("a",), np.array([0.5])), Room(80, False)))


def test_grey_levels_without_colour():
    from patchclamp.picture import Image

    picture = Image(np.concatenate([np.zeros((16, 8)), np.ones((16, 8))], axis=1))
    text = plain(cells.image(picture, Room(80, False)))
    assert " █" in text
