"""Pages are self-contained, small, and well-formed whatever the tokens are."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import picture_samples as samples
import pytest

from patchclamp.picture import Page, Picture, Section, html

TAGS = {
    *("html", "head", "meta", "title", "link", "style", "body", "script", "patchclamp-picture"),
    *("article", "header", "footer", "h1", "h2", "p", "dl", "dt", "dd", "details", "summary", "div", "span"),
    *("figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "button", "small", "i", "b", "bdi", "br"),
    *("svg", "path", "img"),
}
ATTRIBUTES = {
    *("charset", "name", "content", "rel", "href", "lang", "dir", "class", "style", "title", "scope", "type", "open"),
    *("tabindex", "role", "aria-label", "aria-hidden", "aria-pressed", "src", "alt", "width", "height"),
    *(
        "viewbox",
        "preserveaspectratio",
        "d",
        "stroke-dasharray",
        "data-ends",
        "data-weight",
        "data-at",
        "data-note",
        "data-into",
    ),
}
VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Checks nesting, and collects what a document is made of."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[str | None] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(document)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        named = dict(attrs)
        self.attributes |= set(named)
        if tag == "script":
            self.scripts.append(named.get("type"))
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_every_picture_is_well_formed_and_harmless(name):
    document = samples.EVERYTHING[name].html()
    read = Reader(document)
    assert read.tags <= TAGS
    assert read.attributes <= ATTRIBUTES
    assert [kind for kind in read.scripts if kind is None] == [None], "one script of ours, the others are data"
    assert set(read.scripts) <= {None, "application/json"}


@pytest.mark.parametrize("name", samples.EVERYTHING)
def test_nothing_is_fetched(name):
    document = samples.EVERYTHING[name].html()
    assert "http" not in document
    assert all(source.startswith("data:") for source in Reader(document).sources)
    assert not re.search(r"@import|url\(|//[a-z]", re.sub(r'src="data:[^"]*"', "", document))


def test_hostile_words_are_words():
    read = Reader(samples.hostile().html())
    assert "<script>alert(1)</script>" in read.words
    assert '"onmouseover=alert(1) x="' in read.words


def test_no_control_characters_reach_the_page():
    document = samples.hostile().html()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202d\u202e\ud800-\udfff]", document)


def test_a_report_is_small():
    assert len(samples.report().html().encode()) < 400_000


def test_a_notebook_piece_is_small():
    assert len(html.fragment(samples.bars()).encode()) < 48_000


def test_a_fragment_brings_style_and_script_of_its_own():
    read = Reader(html.fragment(samples.effects()))
    assert {"style", "script", "patchclamp-picture"} <= read.tags
    assert not {"html", "head", "body"} & read.tags


def test_a_body_leaves_style_and_script_to_its_page():
    assert not {"style", "html"} & Reader(html.body(samples.effects())).tags
    assert ".q64{" in html.style()
    assert "customElements.define" in html.script()


def test_styles_stay_within_the_piece():
    """Every rule begins with our own classes, so that a notebook keeps its looks."""
    depth, start, selectors, sheet = 0, 0, [], html.style()
    for at, char in enumerate(sheet):
        if char == "{":
            selectors += [sheet[start:at].strip()] if depth == 0 else []
            depth += 1
        elif char == "}":
            depth, start = depth - 1, at + 1
    assert depth == 0
    assert len(selectors) > 100
    for selector in selectors:
        assert selector.startswith("@media") or all("patchclamp" in part for part in selector.split("],")), selector


def test_only_used_shades_are_carried():
    assert ".d64{" in html.fragment(samples.effects())
    assert ".q64{" not in html.fragment(samples.effects())


def test_a_page_shows_facts_sections_and_what_was_left_out():
    words = Reader(Page("T", "S", {"model": "gpt2"}, (Section("One", "A.\n\nB.", (), "neurons"),), "end").html()).words
    assert {"T", "S", "model", "gpt2", "One", "A.", "B.", "neurons", "end"} <= set(words)


def test_folded_sections_start_closed():
    opened, closed = (html.body(Page("T", sections=(Section("S", folded=folded),))) for folded in (False, True))
    assert '<details class="section" open>' in opened
    assert '<details class="section">' in closed


def test_an_unknown_picture_is_refused_by_name():
    class Sculpture(Picture):
        pass

    with pytest.raises(TypeError, match="no drawing for Sculpture; a page can show Attention, Bars"):
        html.page(Sculpture())
