"""A pair of axes that keeps its letters readable at every width.

The plotting area is an SVG stretched to whatever room there is, with lines that keep their width; every word is HTML at
a percentage of it. So letters keep their size from a phone to a wall, which text inside a scaled SVG does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import words
from patchclamp.picture.web.markup import Html, join, label, tag

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Axes:
    """From data to thousandths of the plotting area, and the ticks around it."""

    x: tuple[float, float]
    y: tuple[float, float]

    @property
    def domain(self) -> list[float]:
        """The four bounds, for the script."""
        return [float(f"{bound:.7g}") for bound in (*self.x, *self.y)]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies: thousandths from the left and from the top."""
        return round(1000 * _share(x, self.x), 1), round(1000 - 1000 * _share(y, self.y), 1)

    def area(self, drawn: Html, names: tuple[str, str], about: str, inside: Html | None = None) -> Html:
        """The plot: `drawn` is SVG in thousandths, `inside` are further words, `names` those of the two axes."""
        down, across = ticks(*self.y), ticks(*self.x)
        rules = join(tag("path", class_="rule", d=f"M0 {self.at(0, value)[1]:g}H1000") for value, _ in down)
        svg = tag("svg", rules, drawn, viewBox="0 0 1000 1000", preserveAspectRatio="none", aria_hidden="true")
        left = (tag("span", text, class_="y", style=f"top:{self.at(0, value)[1] / 10:g}%") for value, text in down)
        below = (tag("span", text, class_="x", style=f"left:{self.at(value, 0)[0] / 10:g}%") for value, text in across)
        return tag(
            "div",
            tag("p", label(names[1]), class_="y-axis") if names[1] else None,
            tag("div", svg, *left, *below, inside, class_="area", tabindex=0, role="img", aria_label=about),
            tag("p", label(names[0]), class_="x-axis") if names[0] else None,
            class_="axes",
            style=f"--left:{max((len(text) for _, text in down), default=1)}",
        )


def _share(value: float, bounds: tuple[float, float]) -> float:
    # Halved first: a span from -1e308 to 1e308 would overflow.
    return float((value / 2 - bounds[0] / 2) / (bounds[1] / 2 - bounds[0] / 2))


def ticks(low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
    """Round values between two bounds, with their words.

    >>> [text for _, text in ticks(0.0, 0.93)]
    ['0', '0.2', '0.4', '0.6', '0.8']
    """
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Whole steps, rounded: adding steps up would arrive at 0.30000000000000004.
    values = [float(f"{at * step:.10g}") for at in range(first, last + 1)]
    return [(value, words.number(value, 6)) for value in values]


def span(values: np.ndarray, margin: float = 0.0) -> tuple[float, float]:
    """The range of the finite values with some air around it, opened where it has no width."""
    finite = np.asarray(values, dtype=float)
    finite = np.clip(finite[np.isfinite(finite)], -1e300, 1e300)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        half = abs(low) / 2 or 0.5
        low, high = low - half, low + half
    room = (high - low) * margin
    return low - room, high + room


def path(points: Iterable[tuple[float, float]]) -> str:
    """Straight pieces between points; a missing value interrupts the line."""
    parts, pen = [], "M"
    for x, y in points:
        known = math.isfinite(x) and math.isfinite(y)
        parts.append(f"{pen}{x:g} {y:g}" if known else "")
        pen = "L" if known else "M"
    return "".join(parts)
