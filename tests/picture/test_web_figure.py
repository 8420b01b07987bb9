"""Titles, notes, scale bars and the tables behind drawings."""

from __future__ import annotations

import numpy as np

from patchclamp.picture.web import figure


def test_a_figure_has_a_caption_and_a_note():
    drawn = figure.figure("bars", "A <title>", "A note", "body")
    assert drawn == (
        '<figure class="figure bars"><figcaption>A &lt;title&gt;</figcaption>body<p class="note">A note</p></figure>'
    )


def test_a_figure_without_words_has_none():
    assert figure.figure("bars", "", "") == '<figure class="figure bars"></figure>'


def test_an_empty_picture_says_so():
    assert "nothing to draw" in figure.nothing("bars", "T", "")


def test_a_scale_bar_names_limits_and_unit():
    drawn = figure.legend("diverging", (-1.5, 1.5), "logits")
    assert "−1.5" in drawn
    assert "logits" in drawn


def test_a_scale_bar_says_when_values_lie_beyond():
    drawn = figure.legend("sequential", (0.0, 1.0), "", np.array([0.5, 3.0, np.nan]))
    assert "≥ 1" in drawn
    assert "≤" not in drawn


def test_measured():
    assert figure.measured(0.25, "nats") == "0.25 nats"
    assert figure.measured(float("nan"), "nats") == "no value"


def test_numbers_stand_right_and_words_left():
    drawn = figure.grid(("word", "n"), ((" a", 1.5), ("b", None)))
    assert '<th scope="col">word</th><th scope="col" class="n">n</th>' in drawn
    assert '<td class="n">1.5</td>' in drawn


def test_a_column_of_mixed_kinds_is_words():
    assert 'class="n"' not in figure.grid(("mixed",), (("a",), (1,)))


def test_long_tables_behind_drawings_say_what_they_show():
    drawn = figure.behind(("n",), [(at,) for at in range(30)], "Numbers", most=10)
    assert "Numbers (the first 10 of 30)" in drawn
    assert drawn.count("<tr>") == 11
