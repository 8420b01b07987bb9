"""Tables and bars in a terminal: one line a row, numbers at the right with their points below each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from patchclamp.picture import words
from patchclamp.picture.console.room import (
    Room,
    fit,
    framed,
    nothing,
    paragraph,
    plain,
    strongest,
    unseen,
    widest,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Bars, Table

MOST_ROWS = 60
MOST_BARS = 48
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SPACES = {0x2007: " ", 0x2008: " "}


def table(picture: Table, room: Room) -> list[Text]:
    """Rows under a ruled head; columns and rows that do not fit are counted below."""
    if not picture.rows:
        return nothing(picture, room)
    rows = picture.rows[:MOST_ROWS]
    columns = [[row[at] if at < len(row) else None for row in rows] for at in range(len(picture.columns))]
    written = [_written(column, picture.digits) for column in columns]
    numeric = [any(isinstance(value, (int, float)) for value in column) for column in columns]
    widths = [
        min(max(cell_len(words.visible(name)), *(text.cell_len for text in cells)), 40, room.width)
        for name, cells in zip(picture.columns, written)
    ]
    fitting = next((at for at in range(len(widths)) if sum(widths[: at + 1]) + 2 * at > room.width), len(widths))
    sides = ["right" if flag else "left" for flag in numeric]
    lines = [_joined([word(name, w, side) for name, w, side in zip(picture.columns[:fitting], widths, sides)])]
    lines.append(_joined([Text("─" * width) for width in widths[:fitting]]))
    for at in range(len(rows)):
        lines.append(_joined([fit(cells[at], w, side) for cells, w, side in zip(written[:fitting], widths, sides)]))
    missing = ", ".join(words.visible(name) for name in picture.columns[fitting:])
    lines += paragraph(f"columns not shown: {missing}" if missing else "", room.width, "dim")
    lines += unseen(len(rows), len(picture.rows), "rows not shown", room.width)
    return framed(picture.title, picture.note, lines, room.width)


def _written(column: Sequence[object], digits: int) -> list[Text]:
    numbers = words.column(list(column), digits)
    return [
        word(value, cell_len(words.visible(value))) if isinstance(value, str) else Text(number.translate(_SPACES))
        for value, number in zip(column, numbers)
    ]


def _joined(cells: Sequence[Text]) -> Text:
    return Text("  ").join(cells)


def bars(picture: Bars, room: Room) -> list[Text]:
    """One bar a line either side of zero, its number at the right edge, its interval behind it."""
    values = np.asarray(picture.values, dtype=float)
    if not values.size:
        return nothing(picture, room)
    kept = strongest(np.abs(values), MOST_BARS)
    labels = [picture.labels[at] if at < len(picture.labels) else str(at) for at in kept]
    numbers = [text.translate(_SPACES) for text in words.beside(values[kept])]
    intervals = [_interval(picture, at) for at in kept]
    side, tail = widest(labels, min(24, room.width // 3)), max(map(len, numbers))
    rest = max(map(len, intervals))
    left, right, scale = _track(values[kept], min(max(room.width - side - tail - rest - 2, 4), 72))
    lines = [_unit(picture.unit, side + left + right + tail + 2)] if picture.unit else []
    for label, number, interval, value in zip(labels, numbers, intervals, np.nan_to_num(values[kept]).tolist()):
        bar = Text(_bar(value / scale, left, right), style=room.mark("negative" if value < 0 else "positive"))
        line = Text.assemble(word(label, side, "right"), " ", bar, " ", plain(number, tail, "right"), interval)
        lines.append(fit(line, min(room.width, line.cell_len)))
    lines += unseen(len(kept), len(values), "bars not shown (the smallest)", room.width)
    return framed(picture.title, picture.note, lines, room.width)


def _track(values: np.ndarray, width: int) -> tuple[int, int, float]:
    """How many characters lie left and right of zero, and how much one of them is worth."""
    finite = np.clip(np.nan_to_num(values), -1e300, 1e300)
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    left = round(width * (low / 2) / (low / 2 - high / 2)) if low < high else 0
    worth = [-low / left if left else 0.0, high / (width - left) if width > left else 0.0]
    return left, width - left, max(worth) or 1.0


def _unit(unit: str, width: int) -> Text:
    return Text(plain(words.prose(unit), width, "right"), style="dim")


def _interval(picture: Bars, at: int) -> str:
    if picture.low is None or picture.high is None:
        return ""
    return f"  {words.number(float(picture.low[at]), 3)} to {words.number(float(picture.high[at]), 3)}"


def _bar(length: float, left: int, right: int) -> str:
    """A bar of `length` characters from zero, which stands after `left` characters."""
    if length >= 0:
        whole, rest = divmod(round(min(length, right) * 8), 8)
        return " " * left + ("█" * whole + _EIGHTHS[rest] * (rest > 0) or ("▏" if left else "")).ljust(right)
    # To the left there are only halves among the block characters.
    whole, rest = divmod(round(min(-length, left) * 2), 2)
    return ("▐" * rest + "█" * whole or "▕").rjust(left) + " " * right
