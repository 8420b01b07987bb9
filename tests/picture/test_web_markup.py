"""Nothing that is not markup becomes markup."""

from __future__ import annotations

import json

import numpy as np
import picture_samples as samples
import pytest

from patchclamp.picture.web import markup
from patchclamp.picture.web.markup import Html, tag


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_children_and_attributes_are_escaped(text):
    drawn = tag("p", text, title=text)
    inside = drawn.removeprefix("<p title=").removesuffix("</p>")
    assert "<" not in inside
    assert inside.count('"') == 2
    assert "'" not in inside


def test_markup_is_not_escaped_twice():
    assert tag("p", tag("b", "a&b")) == "<p><b>a&amp;b</b></p>"


def test_nothing_is_left_out_and_attributes_without_a_value():
    assert tag("p", None, hidden=True, title=None, lang=False) == "<p hidden></p>"


def test_names_of_attributes():
    assert tag("img", class_="a", aria_label="b") == '<img class="a" aria-label="b">'


@pytest.mark.parametrize("text", samples.HOSTILE)
def test_data_cannot_end_its_block(text):
    block = markup.data({"words": [text]})
    inside = block.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert "<" not in inside
    assert json.loads(inside) == {"words": [text]}


def test_a_mark_beside_letters_stands_back_and_alone_it_does_not():
    assert markup.label(" a") == '<i class="mark">·</i>a'
    assert markup.label("\n") == '<i class="mark alone">↵</i>'


def test_an_empty_token_leaves_a_trace():
    assert "∅" in markup.shown("")
    assert markup.shown("a") == "a"


def test_a_long_name_carries_its_whole_text():
    assert 'title="' + "a" * 20 in markup.name("a" * 20)
    assert "title" not in markup.name("short")


def test_numbers_are_short():
    assert markup.rounded(np.array([[0.123456789, 1e-12, np.inf]])) == [[0.1235, 1e-12, None]]
    assert json.dumps(markup.rounded(np.array([2.0, 1e20]))) == "[2, 1e+20]"


def test_html_is_text():
    assert isinstance(Html("<b>"), str)
