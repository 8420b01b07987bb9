"""Pictures as HTML: one self-contained page, or a piece for a notebook or a larger page.

Nothing is fetched: style, script, images and numbers are inside, so a page opens offline years from now. Everything
can be read without the script, which adds only what needs a pointer. Tokens are escaped where markup is built
(`web/markup.py`). The outermost element is the custom element `<patchclamp-picture>`: once the script has run in a
document, every further piece put into it comes alive by itself.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from patchclamp.picture import colour
from patchclamp.picture.picture import (
    Attention,
    Bars,
    Heatmap,
    Image,
    Lines,
    Network,
    Page,
    Scatter,
    Section,
    Table,
    Tokens,
)
from patchclamp.picture.web import attention, cells, network, plot, raster, rows
from patchclamp.picture.web.markup import Html, join, tag

if TYPE_CHECKING:
    from collections.abc import Container

    from patchclamp.picture.picture import Picture


def page(picture: Picture) -> str:
    """A whole document."""
    drawn = body(picture)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", getattr(picture, "title", "") or type(picture).__name__),
        tag("link", rel="icon", href="data:,"),  # otherwise browsers ask the server for one
        tag("style", Html(style(_shades_in(drawn)))),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', drawn, _script(), class_='patchclamp-page'), lang='en')}\n"


def fragment(picture: Picture) -> str:
    """A piece to put into a notebook or a page of others: its style applies to itself only."""
    drawn = body(picture)
    return join([tag("style", Html(style(_shades_in(drawn)))), drawn, _script()])


def body(picture: Picture) -> Html:
    """The drawing alone, for a page that already has `style()` and `script()`."""
    return tag("patchclamp-picture", draw(picture), class_="patchclamp")


def style(shades: Container[str] | None = None) -> str:
    """The style sheet with the colour scales; with only the named shades where they are given."""
    return _read("style.css") + _palette(shades)


def script() -> str:
    """What brings a page to life. Running it twice does nothing more."""
    return _read("picture.js")


def draw(picture: Picture) -> Html:
    """The markup of one picture."""
    drawing = _DRAWINGS.get(type(picture))
    if drawing is None:
        known = ", ".join(sorted(kind.__name__ for kind in _DRAWINGS))
        raise TypeError(f"no drawing for {type(picture).__name__}; a page can show {known}")
    return drawing(picture)


def _page(picture: Page) -> Html:
    facts = (join([tag("dt", key), tag("dd", value)]) for key, value in picture.facts.items())
    header = tag(
        "header",
        tag("h1", picture.title),
        tag("p", picture.subtitle, class_="subtitle") if picture.subtitle else None,
        tag("dl", *facts) if picture.facts else None,
    )
    footer = tag("footer", picture.footer) if picture.footer else None
    return tag("article", header, *(_section(section) for section in picture.sections), footer, class_="report")


def _section(section: Section) -> Html:
    """A part that folds: the browser's own `details`, so it needs no script."""
    left_out = tag("p", tag("b", "Left out: "), section.left_out, class_="left-out") if section.left_out else None
    return tag(
        "details",
        tag("summary", tag("h2", section.title)),
        *(tag("p", part, class_="reading") for part in section.reading.split("\n\n") if part.strip()),
        tag("div", *map(draw, section.pictures), class_="pictures") if section.pictures else None,
        left_out,
        class_="section",
        open=not section.folded,
    )


_DRAWINGS = {
    Attention: attention.attention,
    Bars: rows.bars,
    Heatmap: cells.heatmap,
    Image: raster.image,
    Lines: plot.lines,
    Network: network.network,
    Page: _page,
    Scatter: plot.scatter,
    Table: rows.table,
    Tokens: cells.tokens,
}


def _palette(shades: Container[str] | None = None) -> str:
    """Colour scales as style rules, each colour in its light and its dark variant."""
    rules = []
    for scale, letter in (("sequential", "q"), ("diverging", "d")):
        pairs = list(zip(colour.shades(scale, "light"), colour.shades(scale, "dark")))
        stops = ",".join(f"light-dark({light},{dark})" for light, dark in pairs[::4])
        rules.append(f".patchclamp.patchclamp .bar.{scale}{{background:linear-gradient(to right,{stops})}}")
        for level, (light, dark) in enumerate(pairs):
            if shades is None or f"{letter}{level}" in shades:
                text = f"light-dark({colour.ink(light)},{colour.ink(dark)})"
                rules.append(f".patchclamp.patchclamp .{letter}{level}{{background:light-dark({light},{dark});color:{text}}}")
    groups = zip(colour.GROUPS["light"], colour.GROUPS["dark"])
    rules += [f".patchclamp.patchclamp .g{at}{{--group:light-dark({light},{dark})}}" for at, (light, dark) in enumerate(groups)]
    return "\n".join(rules) + "\n"


def _shades_in(drawn: str) -> set[str]:
    """The shades a drawing uses; words that look like one only keep a rule too many."""
    return set(re.findall(r"\b[qd]\d\d?\b", drawn))


def _script() -> Html:
    return tag("script", Html(script()))


@cache
def _read(name: str) -> str:
    """A file beside this one without its indentation and whole-line comments: each picture in a notebook carries it."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/|^\s*//.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\n\s*", "\n", text).strip() + "\n"
