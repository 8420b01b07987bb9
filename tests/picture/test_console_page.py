"""A report in a terminal reads from top to bottom."""

from __future__ import annotations

import picture_samples as samples

from patchclamp.picture import Page, Section, terminal


def test_a_page_has_everything_in_order():
    page = Page(
        "Title", "Subtitle", {"model": "gpt2"}, (Section("One", "A reading.", (samples.bars(),), "neurons"),), "the end"
    )
    text = terminal.text(page)
    order = [
        "Title",
        "Subtitle",
        "model  gpt2",
        "── One ──",
        "A reading.",
        "Direct",
        "2.41",
        "Left out: neurons",
        "the end",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_a_long_fact_continues_below_itself():
    text = terminal.text(Page("T", facts={"prompt": "word " * 30}), 40)
    lines = [line for line in text.splitlines() if "word" in line]
    assert len(lines) > 2
    assert all(line.index("word") == 8 for line in lines)


def test_a_folded_section_names_what_it_holds():
    page = Page("T", sections=(Section("More", "Why.", (samples.bars(), samples.table(), samples.bars()), folded=True),))
    text = terminal.text(page)
    assert "folded here: 2 bars, 1 table; the page in HTML opens it" in text
    assert "2.41" not in text
