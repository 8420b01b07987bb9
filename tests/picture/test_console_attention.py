"""Attention in a terminal: maps side by side in colour, sentences without."""

from __future__ import annotations

import picture_samples as samples

from patchclamp.picture.console import attention
from patchclamp.picture.console.room import Room


def plain(lines) -> list[str]:
    return [line.plain for line in lines]


def test_as_many_side_by_side_as_fit():
    names = [line for line in plain(attention.attention(samples.attention(4), Room(160, True))) if "L0H0" in line]
    assert "L3H3" in names[0]
    names = [line for line in plain(attention.attention(samples.attention(4), Room(80, True))) if "L0H0" in line]
    assert "L1H1" in names[0]
    assert "L2H2" not in names[0]


def test_the_last_query_names_its_strongest_key():
    picture = samples.attention(1)
    key = picture.keys[int(picture.patterns[0].weights[-1].argmax())].strip()
    [line] = [line for line in plain(attention.attention(picture, Room(80, True))) if "→" in line]
    assert line.startswith("·to → ")
    assert key in line


def test_without_colour_every_query_is_a_sentence():
    lines = plain(attention.attention(samples.attention(1), Room(80, False)))
    assert sum("→" in line for line in lines) == 14


def test_of_a_long_text_the_end_is_shown():
    lines = plain(attention.attention(samples.attention(1, 120), Room(80, False)))
    assert any("104 of 120 queries not shown" in line for line in lines)
