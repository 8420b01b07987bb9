"""Lines and scattered points on a pair of axes, with the values under the pointer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import words
from patchclamp.picture.colour import GROUPS
from patchclamp.picture.web.axes import Axes, path, span
from patchclamp.picture.web.figure import behind, figure, nothing
from patchclamp.picture.web.markup import Html, data, join, label, name, rounded, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Lines, Scatter, Series

MOST_POINTS = 800
"""Points drawn of one line; more would fall on the same pixels."""

_COUNT = len(GROUPS["light"])
_DASHES = (None, "7 4", "2 3", "10 3 2 3", "14 5", "1 5")
"""A second sign beside the colour, for print and for eyes that see none."""


def lines(picture: Lines) -> Html:
    """Several series over one axis, with bands; the values under the pointer for all of them."""
    series = [_thinned(one) for one in picture.series]
    x = _some(picture.x)
    parts = [part for one in series for part in (one.y, one.low, one.high) if part is not None]
    y = np.concatenate([np.asarray(part, dtype=float) for part in parts]) if parts else np.array([])
    if not np.isfinite(y).any():
        return nothing("plot", picture.title, picture.note)
    axes = Axes(span(x), span(y, margin=0.06))
    names = [one.name for one in series]
    numbers = {
        "x": rounded(x, 6),
        "series": [{"name": words.visible(one.name), "y": rounded(one.y)} for one in series],
        "axes": [picture.x_axis, picture.y_axis],
        "unit": picture.unit,
        "domain": axes.domain,
    }
    rows = [(value, *(float(one.y[at]) for one in series)) for at, value in enumerate(x.tolist())]
    return figure(
        "plot",
        picture.title,
        picture.note,
        _keys(names, dashed=True) if len(names) > 1 else None,
        axes.area(
            join(_line(one, x, axes, at) for at, one in enumerate(series)),
            (picture.x_axis, _with_unit(picture.y_axis, picture.unit)),
            picture.title or ", ".join(names),
        ),
        data(numbers),
        behind((picture.x_axis or "x", *names), rows, "Numbers"),
    )


def scatter(picture: Scatter) -> Html:
    """Points, coloured by group; labels stand beside them where they do not run into each other."""
    x, y = np.asarray(picture.x, dtype=float), np.asarray(picture.y, dtype=float)
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y)).tolist()
    if not known:
        return nothing("plot", picture.title, picture.note)
    axes = Axes(span(x, margin=0.05), span(y, margin=0.07))
    places = [axes.at(float(x[at]), float(y[at])) for at in known]
    texts = [picture.labels[at] if at < len(picture.labels) else "" for at in known]
    member = [picture.groups[at] if at < len(picture.groups) else "" for at in known]
    groups = list(dict.fromkeys(member))
    drawn = join(_dots([place for place, group in zip(places, member) if group == one], at) for at, one in enumerate(groups))
    rows = [(*row, *_exact(float(x[at]), float(y[at]))) for row, at in zip(zip(texts, member), known)]
    points = [{"label": words.visible(text), "group": words.visible(group), "x": a, "y": b} for text, group, a, b in rows]
    names = (picture.x_axis, picture.y_axis)
    return figure(
        "plot",
        picture.title,
        picture.note,
        _keys(groups, dashed=False) if len(groups) > 1 else None,
        axes.area(drawn, names, picture.title or "scattered points", _labels(texts, places)),
        data({"points": points, "axes": names, "unit": "", "domain": axes.domain}),
        behind(("label", "group", names[0] or "x", names[1] or "y"), rows, "Numbers"),
    )


def _some(values: np.ndarray) -> np.ndarray:
    """Evenly chosen values, the first and the last included."""
    count = len(values)
    return np.asarray(values, dtype=float)[np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).astype(int))]


def _thinned(series: Series) -> Series:
    low, high = (None if part is None else _some(part) for part in (series.low, series.high))
    return type(series)(series.name, _some(series.y), low, high)


def _exact(*values: float) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


def _line(series: Series, x: np.ndarray, axes: Axes, at: int) -> Html:
    line = tag(
        "path",
        d=path(axes.at(*point) for point in zip(x, series.y)),
        class_=f"line g{at % _COUNT}",
        stroke_dasharray=_dash(at),
    )
    alone = _dots([axes.at(float(x[one]), float(series.y[one])) for one in _isolated(series.y)], at)
    if series.low is None or series.high is None:
        return join([line, alone])
    known = np.isfinite(series.low) & np.isfinite(series.high)
    upper = [axes.at(*point) for point in zip(x[known], series.high[known])]
    lower = [axes.at(*point) for point in zip(x[known], series.low[known])]
    band = tag("path", d=path(upper + lower[::-1]) + "z", class_=f"band g{at % _COUNT}") if upper else None
    return join([band, line, alone])


def _isolated(y: np.ndarray) -> list[int]:
    """Points without a neighbour, which no line would show."""
    known = np.pad(np.isfinite(y), 1)
    return np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:]).tolist()


def _dash(at: int) -> str | None:
    """After all colours are used once, the same colour comes with another dash."""
    return _DASHES[(at + at // _COUNT) % len(_DASHES)]


def _dots(points: Sequence[tuple[float, float]], group: int) -> Html:
    """Points as lines of no length with round ends: they stay round however the area is stretched."""
    if not points:
        return Html("")
    return tag("path", d="".join(f"M{x:g} {y:g}h0" for x, y in points), class_=f"dots g{group % _COUNT}")


def _keys(names: Sequence[str], dashed: bool) -> Html:
    """Which colour is which, in the order of drawing."""
    keys = (tag("span", _sample(at, dashed), name(text), class_="key") for at, text in enumerate(names))
    return tag("p", *keys, class_="keys")


def _sample(at: int, dashed: bool) -> Html:
    line = tag("path", d="M1 5H27", class_=f"line g{at % _COUNT}", stroke_dasharray=_dash(at))
    shape = line if dashed else _dots([(24, 5)], at)
    return tag("svg", shape, viewBox="0 0 28 10", aria_hidden="true")


def _labels(texts: Sequence[str], places: Sequence[tuple[float, float]]) -> Html:
    """Labels with room beside their point, right or else left, in an area of usual size (about 500 x 270 pixels).

    A label gives way to points and to labels before it; whoever has no room is named in the tooltip.
    """
    drawn, taken = [], [(x - 8, x + 8, y) for x, y in places]
    for text, (x, y) in list(zip(texts, places))[:200]:
        width = 15 * len(words.visible(text)) + 6
        for side, start in (("", x + 12), (" left", x - 12 - width)):
            free = all(end < start or start + width < begin or abs(y - at) > 50 for begin, end, at in taken)
            if text and free and start >= 0 and start + width <= 1000:
                taken.append((start, start + width, y))
                place = f"left:{x / 10:g}%;top:{y / 10:g}%"
                drawn.append(tag("span", label(text), class_=f"point{side}", style=place))
                break
    return join(drawn)


def _with_unit(axis: str, unit: str) -> str:
    return f"{axis} ({unit})" if axis and unit and unit not in axis else axis or unit
