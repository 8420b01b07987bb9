"""Invisible characters become visible, numbers short and aligned."""

from __future__ import annotations

import unicodedata

import numpy as np
import picture_samples as samples
import pytest

from patchclamp.picture import words


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" Mary", "·Mary"),
        ("New York", "New York"),
        ("a  b", "a··b"),
        ("end ", "end·"),
        (" ", "␣"),
        ("   ", "␣␣␣"),
        (" " * 12, "␣×12"),
        ("\n", "↵"),
        ("\n\n", "↵↵"),
        ("\tx", "⇥x"),
        ("\u200b", "‹200B›"),
        ("\u202eevil", "‹202E›evil"),
        ("\x1b[2J", "‹001B›[2J"),
        ("\ud800", "‹D800›"),
        ("\xa0x", "⍽x"),
        ("\u0301", "◌\u0301"),
        ("", ""),
    ],
)
def test_what_is_invisible_gets_a_mark(token, shown):
    assert words.visible(token) == shown


def test_marks_are_told_from_letters():
    assert words.pieces(" a\n") == [("·", True), ("a", False), ("↵", True)]


@pytest.mark.parametrize("token", samples.HOSTILE)
def test_nothing_invisible_is_left(token):
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    assert not [char for char in words.visible(token) if unicodedata.category(char) in hidden]


def test_prose_keeps_its_lines_and_loses_its_escapes():
    assert words.prose("a\nb\tc\x1b[31m\ud800") == "a\nb\tc\ufffd[31m\ufffd"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.5, "0.5"),
        (0.68123456, "0.6812"),
        (-0.3, "−0.3"),
        (0.00001, "0.00001"),
        (0.1 + 0.2, "0.3"),
        (123456.7, "123457"),
        (1e9, "1×10⁹"),
        (-1.23456e-12, "−1.235×10⁻¹²"),
        (0.0, "0"),
        (-0.0, "0"),
        (float("inf"), "∞"),
        (float("-inf"), "−∞"),
        (float("nan"), "–"),
        (None, "–"),
        (31164353, "31164353"),
        (-3, "−3"),
        (True, "yes"),
        (np.float32(0.25), "0.25"),
        (np.int64(-7), "−7"),
        (np.str_(" a"), "·a"),
    ],
)
def test_a_number_is_written_for_people(value, written):
    assert words.number(value) == written


def test_fewer_digits():
    assert words.number(0.68123, 2) == "0.68"


def test_cells_share_their_decimals():
    assert words.cells(np.array([[1.0, -0.054], [12.34, 0.0]])) == ["1.0", "−0.1", "12.3", "0"]


@pytest.mark.parametrize("top", [1e-4, 0.5, 3.0, 42.0, 999.0, 54321.0])
def test_cells_stay_short(top):
    assert max(map(len, words.cells(np.array([top, -top, top / 3])))) <= 8


def test_a_column_stands_on_its_points():
    column = words.column([0.5, 12.25, None, "a", 3])
    points = {text.index(".") if "." in text else text.index("\u2008") for text in column if text[0].isdigit()}
    assert {len(text) - text.find(sign) for text in column for sign in ".\u2008" if sign in text} == {3}
    assert points == {1, 2}
    assert column[2:4] == ["–", "a"]


def test_numbers_beside_bars_do_not_go_below_what_is_seen():
    assert [text.rstrip("\u2007\u2008") for text in words.beside(np.array([24.81, 1e-9, -0.00004]))] == [
        "24.8",
        "0",
        "0",
    ]
    assert words.beside(np.array([0.7134, 0.00091]))[1] == "0.00091"
