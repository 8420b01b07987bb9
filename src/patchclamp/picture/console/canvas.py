"""A field of characters to draw curves and points on, with the bounds of its two axes.

Curves are Braille dots, eight to a character; points are whole signs, which also tell groups apart without colour.
"""

from __future__ import annotations

import numpy as np
from rich.text import Text

from patchclamp.picture import words
from patchclamp.picture.console.room import Room, fit, plain

SIGNS = "●○◆◇▲△"
"""One sign a group."""

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each of the eight dots of a Braille character, by row and column (Unicode block U+2800)."""


class Canvas:
    """`width` x `height` characters for the given points; what is drawn last lies on top."""

    def __init__(self, width: int, height: int, x: np.ndarray, y: np.ndarray) -> None:
        self.width, self.height = max(width, 4), height
        self.x, self.y = span(x), span(y)
        self.bits = np.zeros((height, self.width), dtype=int)
        self.signs = np.full((height, self.width), " ", dtype=object)
        self.group = np.zeros((height, self.width), dtype=int)

    def sign(self, x: float, y: float, group: int) -> None:
        """A point as a sign of its group."""
        across, down = self._dots(np.array([x]), np.array([y]))
        place = round(float(down[0])) // 4, round(float(across[0])) // 2
        self.signs[place] = SIGNS[group % len(SIGNS)]
        self.group[place] = group

    def curve(self, x: np.ndarray, y: np.ndarray, group: int) -> None:
        """A line through the points: enough dots between two of them that no gap is seen."""
        across, down = self._dots(x, y)
        known = np.isfinite(y)
        start = np.flatnonzero(known[:-1] & known[1:])
        count = np.maximum(np.abs(np.diff(across)), np.abs(np.diff(down)))[start].astype(int) + 1
        which = np.repeat(start, count)
        share = (np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)) / np.repeat(count, count)
        between = (part[which] * (1 - share) + part[which + 1] * share for part in (across, down))
        columns, rows = (np.concatenate([line, part[known]]) for line, part in zip(between, (across, down)))
        column, row = columns.round().astype(int), rows.round().astype(int)
        np.bitwise_or.at(self.bits, (row // 4, column // 2), np.array(_DOTS)[row % 4, column % 2])
        self.group[row // 4, column // 2] = group

    def lines(self, room: Room, x_axis: str) -> list[Text]:
        """The field with the bounds of both axes beside and below it."""
        drawn = []
        for row in range(self.height):
            bound = {0: self.y[1], self.height - 1: self.y[0]}.get(row)
            line = Text.assemble((plain("" if bound is None else words.number(bound, 3), 8, "right") + " ", "dim"))
            for bits, sign, group in zip(self.bits[row], self.signs[row], self.group[row]):
                line.append(chr(0x2800 + int(bits)) if bits else str(sign), room.mark(str(int(group))))
            drawn.append(line)
        left, right = (words.number(bound, 4) for bound in self.x)
        gap = max(self.width - len(left) - len(right), 0)
        below = Text(" " * 9 + left + plain(words.visible(x_axis).center(gap), gap) + right, style="dim")
        return [*drawn, fit(below, self.width + 9)]

    def _dots(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points as dots from the left and from the top; a missing value stays missing."""
        across, up = (
            (np.clip(values, low, high) / 2 - low / 2) / (high / 2 - low / 2)
            for values, (low, high) in ((x, self.x), (y, self.y))
        )
        return across * (2 * self.width - 1), (1 - up) * (4 * self.height - 1)


def span(values: np.ndarray) -> tuple[float, float]:
    """The range of the finite values, opened where it has no width."""
    finite = np.clip(values[np.isfinite(values)], -1e300, 1e300)
    low, high = float(finite.min()), float(finite.max())
    half = abs(low) / 2 or 0.5
    return (low, high) if low < high else (low - half, low + half)
