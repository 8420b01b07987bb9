"""Coloured cells: heatmaps as real tables, texts as coloured tokens.

A cell's class (`q0` to `q64` sequential, `d0` to `d64` diverging) is its shade; the style sheet holds the colours, so
one page serves light and dark. A cell's `title` says everything about it in lines: the place, the value, then one
detail a line with a tab between name and value. Without the script the browser shows it, with the script the tooltip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import colour, words
from patchclamp.picture.web import raster
from patchclamp.picture.web.figure import behind, figure, legend, measured, nothing, scroll
from patchclamp.picture.web.markup import Html, join, label, name, shown, tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patchclamp.picture.picture import Heatmap, Scale, Tokens

MOST_CELLS = 4000
"""Above this many cells a table makes the browser slow, and the matrix becomes an image."""


def heatmap(picture: Heatmap) -> Html:
    """A matrix of coloured cells with its axes, a scale bar, and details under the pointer."""
    values = np.asarray(picture.values, dtype=float)
    if not values.size:
        return nothing("heatmap", picture.title, picture.note)
    drawing = raster.heatmap(picture) if values.size > MOST_CELLS else scroll(_table(picture), about=picture.title)
    limits = colour.limits(values, picture.scale, picture.limits)
    return figure("heatmap", picture.title, picture.note, drawing, legend(picture.scale, limits, picture.unit, values))


def _table(picture: Heatmap) -> Html:
    """Cells hold words where there are some, else numbers; where there is no room for numbers, only colour is seen."""
    values = np.asarray(picture.values, dtype=float)
    rows, columns = values.shape
    kind = "words" if picture.text is not None else "numbers" if columns <= 16 else "bare"
    upright = _upright(picture.columns, {"words": 8, "numbers": 5, "bare": 2}[kind])
    shades = classes(values, picture.scale, picture.limits)
    written = picture.text or np.array(words.cells(values), dtype=object).reshape(values.shape)
    body = (
        tag(
            "tr",
            tag("th", name(_at(picture.rows, row)), scope="row"),
            *(
                tag("td", label(written[row][at]), class_=shades[row, at], title=_title(picture, row, at))
                for at in range(columns)
            ),
        )
        for row in range(rows)
    )
    return tag("table", _head(picture, columns, upright), tag("tbody", *body), class_=f"cells {kind}")


def _head(picture: Heatmap, columns: int, upright: bool) -> Html:
    """The column labels: lying where they fit over their cells, upright where not."""
    labels = (tag("th", name(_at(picture.columns, at)), scope="col") for at in range(columns))
    axes = axis_names(picture.row_axis, picture.column_axis)
    return tag("thead", tag("tr", tag("td", axes, class_="axes"), *labels), class_="upright" if upright else None)


def axis_names(down: str, across: str) -> Html | None:
    """What the rows and the columns are, in the corner between their labels."""
    parts = [tag("span", f"{across} →") if across else None, tag("span", f"{down} ↓") if down else None]
    return join(parts) if down or across else None


def _upright(labels: Sequence[str], room: int) -> bool:
    return any(len(words.visible(text)) > room for text in labels)


def _at(labels: Sequence[str], at: int) -> str:
    """A label, or the index where the picture has fewer labels than cells."""
    return labels[at] if at < len(labels) else str(at)


def _title(picture: Heatmap, row: int, at: int) -> str:
    """Everything known about a cell, one thing a line."""
    place = f"{_axis(picture.row_axis, _at(picture.rows, row))} · {_axis(picture.column_axis, _at(picture.columns, at))}"
    lines = [place, measured(float(picture.values[row, at]), picture.unit)]
    if picture.text is not None:
        lines.insert(1, words.visible(picture.text[row][at]))
    lines += [f"{key}\t{words.number(values[row][at])}" for key, values in picture.details.items()]
    return "\n".join(lines)


def _axis(axis: str, text: str) -> str:
    """The axis' name before a label that does not say it itself."""
    written = words.visible(text)
    return written if not axis or axis in written else f"{axis} {written}"


def classes(values: np.ndarray, scale: Scale, limits: tuple[float, float] | None) -> np.ndarray:
    """The style class of each value's shade."""
    letter = "q" if scale == "sequential" else "d"
    names = np.array([f"{letter}{level}" for level in range(colour.LEVELS)] + ["none"], dtype=object)
    return names[colour.levels(values, scale, limits)]  # EMPTY is -1, the last name


def tokens(picture: Tokens) -> Html:
    """A text in reading order, each token on its colour. Line breaks stay line breaks, shown by their mark."""
    if not picture.tokens:
        return nothing("tokens", picture.title, picture.note)
    if picture.values is None:
        spans = [_token(text, None, None) for text in picture.tokens]
        return figure("tokens", picture.title, picture.note, tag("p", *spans, class_="text", dir="auto"))
    values = np.asarray(picture.values, dtype=float)
    shades = classes(values, picture.scale, picture.limits)
    lines = [_token_lines(picture, at) for at in range(len(picture.tokens))]
    spans = [_token(text, shades[at], "\n".join(lines[at])) for at, text in enumerate(picture.tokens)]
    limits = colour.limits(values, picture.scale, picture.limits)
    details: Mapping[str, tuple] = picture.details
    rows = [
        (at, text, float(values[at]), *(column[at] for column in details.values())) for at, text in enumerate(picture.tokens)
    ]
    return figure(
        "tokens",
        picture.title,
        picture.note,
        tag("p", *spans, class_="text", dir="auto"),
        legend(picture.scale, limits, picture.unit, values),
        behind(("position", "token", picture.unit or "value", *details), rows, "Numbers"),
    )


def _token(text: str, shade: str | None, title: str | None) -> Html:
    return join([tag("span", shown(text), class_=shade, title=title), tag("br") if "\n" in text else None])


def _token_lines(picture: Tokens, at: int) -> list[str]:
    value = float("nan") if picture.values is None else float(picture.values[at])
    place = f"position {at} · {words.visible(picture.tokens[at]) or '∅'}"
    details = [f"{key}\t{words.number(column[at])}" for key, column in picture.details.items()]
    return [place, measured(value, picture.unit), *details]
