"""Pictures that are rows of words and numbers: tables and bars.

Both are real tables, so they can be read out, selected and copied. A bar is a box of a percentage of its cell: no
image, no script, sharp at every size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import words
from patchclamp.picture.web.figure import figure, grid, nothing
from patchclamp.picture.web.markup import Html, name, tag

if TYPE_CHECKING:
    from patchclamp.picture.picture import Bars, Table

MOST_BARS = 40
"""Bars drawn at first; the rest is folded below them."""


def table(picture: Table) -> Html:
    """Rows of words and numbers, ruled like a printed table."""
    if not picture.rows:
        return nothing("table", picture.title, picture.note)
    body = grid(picture.columns, picture.rows, picture.digits)
    return figure("table", picture.title, picture.note, tag("div", body, class_="scroll"))


def bars(picture: Bars) -> Html:
    """One bar a label either side of zero, its number beside it; a thin line for an interval."""
    values = np.asarray(picture.values, dtype=float)
    if not values.size:
        return nothing("bars", picture.title, picture.note)
    low, high = span(picture)
    written = words.beside(values)
    drawn = [_bar(picture, at, written[at], low, high) for at in range(len(values))]
    head = tag("tr", tag("th", picture.axis, scope="col"), tag("th"), tag("th", picture.unit, scope="col", class_="n"))
    first = tag("table", tag("thead", head), tag("tbody", *drawn[:MOST_BARS]), class_="bars")
    rest = drawn[MOST_BARS:]
    folded = tag(
        "details",
        tag("summary", f"{len(rest)} more"),
        tag("table", tag("tbody", *rest), class_="bars"),
    )
    return figure("bars", picture.title, picture.note, first, folded if rest else None)


def span(picture: Bars) -> tuple[float, float]:
    """The values at the two ends of the bars' cell. Zero is always within, for a bar starts there."""
    parts = [part for part in (picture.values, picture.low, picture.high) if part is not None]
    finite = np.concatenate([np.asarray(part, dtype=float).ravel() for part in parts])
    finite = np.clip(finite[np.isfinite(finite)], -1e300, 1e300)
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    return (low, high) if low < high else (0.0, 1.0)


def _bar(picture: Bars, at: int, written: str, low: float, high: float) -> Html:
    value = min(max(float(picture.values[at]), -1e300), 1e300)  # a bar of an infinite value is a long one
    start, end = sorted((_share(0.0, low, high), _share(value, low, high)))
    kind = "plain" if picture.scale == "sequential" else "negative" if value < 0 else "positive"
    parts = [tag("i", class_=f"bar {kind}", style=f"left:{start:g}%;width:{max(end - start, 0):.4g}%")]
    if picture.low is not None and picture.high is not None:
        ends = [_share(float(part[at]), low, high) for part in (picture.low, picture.high)]
        parts.append(tag("i", class_="interval", style=f"left:{ends[0]:g}%;width:{max(ends[1] - ends[0], 0):.4g}%"))
    zero = tag("i", class_="zero", style=f"left:{_share(0.0, low, high):g}%") if low < 0 else None
    text = picture.labels[at] if at < len(picture.labels) else str(at)
    return tag(
        "tr",
        tag("th", name(text), scope="row"),
        tag("td", tag("div", *parts, zero), class_="track"),
        tag("td", written, class_="n"),
    )


def _share(value: float, low: float, high: float) -> float:
    """Where a value stands between the ends, in percent; a missing one at zero."""
    value = 0.0 if np.isnan(value) else min(max(value, low), high)
    return round(100 * (value / 2 - low / 2) / (high / 2 - low / 2), 2)
