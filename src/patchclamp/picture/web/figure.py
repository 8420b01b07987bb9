"""What figures have in common: a title above, a note below, a scale bar, the numbers behind the drawing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import words
from patchclamp.picture.web.markup import Html, label, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Scale


def figure(kind: str, title: str, note: str, *body: object) -> Html:
    """One picture, with its title above (read first) and its note below."""
    return tag(
        "figure",
        tag("figcaption", title) if title else None,
        *body,
        tag("p", note, class_="note") if note else None,
        class_=f"figure {kind}",
    )


def scroll(*body: object, about: str) -> Html:
    """A box that scrolls sideways by itself, so that the page never does. Keyboards can reach and scroll it."""
    return tag("div", *body, class_="scroll", tabindex=0, role="region", aria_label=about or "figure")


def nothing(kind: str, title: str, note: str) -> Html:
    """A picture without data says so instead of drawing an empty frame."""
    return figure(kind, title, note, tag("p", "nothing to draw: no values", class_="empty"))


def legend(scale: Scale, limits: tuple[float, float], unit: str, values: np.ndarray | None = None) -> Html:
    """The scale bar with its limits and unit. Where values lie beyond a limit, its number says so with ≤ or ≥."""
    low, high = limits
    below, above = ("", "") if values is None else ((values < low).any(), (values > high).any())
    ends = ("≤ " if below else "") + words.number(low, 3), ("≥ " if above else "") + words.number(high, 3)
    return tag(
        "p",
        tag("span", ends[0]),
        tag("i", class_=f"bar {scale}", role="img", aria_label=f"colour scale from {ends[0]} to {ends[1]} {unit}"),
        tag("span", ends[1]),
        tag("span", unit, class_="unit") if unit else None,
        class_="legend",
    )


def measured(value: object, unit: str) -> str:
    """A number with its unit, or the words for none."""
    if isinstance(value, float) and math.isnan(value):
        return "no value"
    return f"{words.number(value)} {unit}".rstrip()


def behind(columns: Sequence[str], rows: Sequence[Sequence[object]], about: str, most: int = 500) -> Html:
    """The numbers behind a drawing as a folded table, for screen readers and for copying."""
    shown = rows[:most]
    rest = f" (the first {most} of {len(rows)})" if len(rows) > most else ""
    return tag("details", tag("summary", f"{about}{rest}"), tag("div", grid(columns, shown), class_="scroll"), class_="behind")


def grid(columns: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 4) -> Html:
    """A table in the manner of printed papers: words left, numbers right with their points below each other."""
    kinds = ["n" if _numeric([row[at] for row in rows if at < len(row)]) else None for at in range(len(columns))]
    written = [_column([row[at] if at < len(row) else None for row in rows], digits) for at in range(len(columns))]
    head = tag("tr", *(tag("th", label(name), scope="col", class_=kind) for name, kind in zip(columns, kinds)))
    body = (tag("tr", *(tag("td", cells[at], class_=kind) for cells, kind in zip(written, kinds))) for at in range(len(rows)))
    return tag("table", tag("thead", head), tag("tbody", *body), class_="ruled")


def _numeric(values: Sequence[object]) -> bool:
    """A column of numbers, some of them perhaps missing."""
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, (int, float, np.number)) for value in present)


def _column(values: Sequence[object], digits: int) -> list[object]:
    written = words.column(list(values), digits)
    return [label(value) if isinstance(value, str) else text for value, text in zip(values, written)]
