"""What every drawing in a terminal is made of: words of a given width, shades, and what is kept."""

from __future__ import annotations

import numpy as np
import picture_samples as samples
import pytest
from rich.cells import cell_len
from rich.style import Style

from patchclamp.picture import colour
from patchclamp.picture.console import room
from patchclamp.picture.console.room import Room


@pytest.mark.parametrize("width", [1, 2, 5, 20])
@pytest.mark.parametrize("text", samples.HOSTILE)
def test_a_word_has_exactly_its_width(text, width):
    assert room.word(text, width).cell_len == width


@pytest.mark.parametrize("width", [1, 2, 5, 20])
@pytest.mark.parametrize("text", ["", "abc", "漢字かな", "a" * 300])
def test_plain_text_has_exactly_its_width(text, width):
    assert cell_len(room.plain(text, width)) == width


def test_words_align():
    assert room.word("ab", 4, "right").plain == "  ab"
    assert room.word("abcdef", 4).plain == "abc…"


def test_marks_are_dim():
    assert [span.style for span in room.word(" a", 2).spans] == ["dim"]


def test_shades_near_zero_stay_the_terminals_own():
    assert Room(80, True).shade("sequential", 0) == Style()
    assert Room(80, True).shade("diverging", colour.LEVELS // 2) == Style()
    assert Room(80, True).shade("sequential", 40).bgcolor is not None


def test_without_colour_there_are_no_shades():
    assert Room(80, False).shade("sequential", 64) == Style()
    assert Room(80, False).mark("negative") == Style()


@pytest.mark.parametrize(
    ("setting", "theme"),
    [("15;0", "dark"), ("0;15", "light"), ("0;default;15", "light"), ("", "dark"), ("odd", "dark")],
)
def test_the_terminal_may_tell_its_background(setting, theme, monkeypatch):
    monkeypatch.setenv("COLORFGBG", setting)
    assert room.theme() == theme


def test_the_strongest_and_the_last_are_kept_in_order():
    assert room.strongest(np.array([1.0, 9.0, 2.0, 8.0, 0.0]), 3) == [1, 3, 4]
    assert room.strongest(np.array([1.0, np.nan, 2.0]), 2) == [0, 2]
    assert room.strongest(np.array([1.0, 2.0]), 5) == [0, 1]


def test_paragraphs_break_at_words():
    assert [line.plain.strip() for line in room.paragraph("one two three", 8)] == ["one two", "three"]
    assert room.paragraph("", 8) == []
