"""Drawings fit the terminal, lose nothing but colour without colour, and never let a token speak to the terminal."""

from __future__ import annotations

import io
import re

import picture_samples as samples
import pytest
from rich.cells import cell_len
from rich.console import Console

from patchclamp.picture import Picture, terminal


def drawn(picture: Picture, width: int, colour: str | None = "truecolor", **settings) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=colour is not None, color_system=colour, **settings)
    console.print(terminal.renderable(picture))
    return file.getvalue()


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("colour", ["truecolor", None])
@pytest.mark.parametrize("width", [24, 80, 160])
@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_nothing_is_wider_than_the_terminal(name, width, colour):
    text = bare(drawn(samples.EVERYTHING[name], width, colour))
    assert text.strip()
    assert max(cell_len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_no_colour_no_escape_codes(name, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    terminal.show(samples.EVERYTHING[name], file)
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_plain_text(term, monkeypatch):
    monkeypatch.setenv("TERM", term)
    file = io.StringIO()
    terminal.show(samples.effects(), file)
    assert "\x1b" not in file.getvalue()


def test_tokens_cannot_send_commands():
    text = drawn(samples.hostile(), 80)
    assert not re.sub(r"\x1b\[[0-9;]*m", "", text).count("\x1b")
    assert "\x00" not in text


def test_an_old_encoding_gets_plain_signs():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    terminal.show(samples.bars(), file)
    file.flush()
    assert b"-0.62" in raw.getvalue()


def test_text_has_no_colour_and_no_trailing_space():
    text = terminal.text(samples.report(), 100)
    assert "\x1b" not in text
    assert not re.search(r" $", text, re.MULTILINE)


def test_numbers_stay_readable_without_colour():
    assert "0.71" in terminal.text(samples.table())
    assert "·Mary[0.08]" in terminal.text(samples.tokens())
    assert "from 0 to 1 weight" in terminal.text(samples.tokens())


def test_sixteen_colours_count_as_none():
    assert "[48;" not in drawn(samples.effects(), 80, "standard")


def test_an_unknown_picture_is_refused_by_name():
    class Sculpture(Picture):
        pass

    with pytest.raises(TypeError, match="no drawing for Sculpture; a terminal can show Attention"):
        terminal.text(Sculpture())
