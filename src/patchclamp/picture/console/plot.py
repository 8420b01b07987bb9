"""Lines and points in a terminal, on a canvas of characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from patchclamp.picture import words
from patchclamp.picture.console.canvas import SIGNS, Canvas, span
from patchclamp.picture.console.room import Room, fit, framed, nothing, paragraph, widest, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Lines, Scatter

_SPARKS = "▁▂▃▄▅▆▇█"


def lines(picture: Lines, room: Room) -> list[Text]:
    """Curves in Braille dots; several ones without colour as one sparkline each."""
    x = np.asarray(picture.x, dtype=float)
    ys = [np.asarray(series.y, dtype=float) for series in picture.series]
    if not ys or not np.isfinite(np.concatenate(ys)).any():
        return nothing(picture, room)
    drawn = _sparklines(picture, ys, room) if len(ys) > 1 and not room.coloured else _curves(picture, x, ys, room)
    return framed(picture.title, picture.note, drawn, room.width)


def _curves(picture: Lines, x: np.ndarray, ys: Sequence[np.ndarray], room: Room) -> list[Text]:
    canvas = Canvas(min(room.width, 84) - 10, 10, x, np.concatenate(ys))
    for at, y in enumerate(ys):
        canvas.curve(x, y, at)
    axis = " ".join(part for part in (picture.y_axis, f"({picture.unit})" if picture.unit else "") if part)
    keys = [("━", series.name) for series in picture.series]
    return [*_keys(keys, room), *paragraph(axis, room.width, "dim"), *canvas.lines(room, picture.x_axis)]


def _keys(keys: Sequence[tuple[str, str]], room: Room) -> list[Text]:
    """Which colour or sign is which; not needed for a single one."""
    if len(keys) < 2:
        return []
    parts = [Text.assemble((f"{sign} ", room.mark(str(at))), words.visible(name)) for at, (sign, name) in enumerate(keys)]
    drawn = [Text()]
    for part in parts:
        if drawn[-1].cell_len and drawn[-1].cell_len + part.cell_len + 2 > room.width:
            drawn.append(Text())
        drawn[-1].append("  " if drawn[-1].cell_len else "").append_text(part)
    return [fit(line, min(room.width, line.cell_len)) for line in drawn]


def _sparklines(picture: Lines, ys: Sequence[np.ndarray], room: Room) -> list[Text]:
    """One line a series, all with the same bounds, with its first and its last value."""
    side = widest([series.name for series in picture.series], room.width // 4)
    low, high = span(np.concatenate(ys))
    drawn = []
    for series, y in zip(picture.series, ys):
        tail = f"first {words.number(float(y[0]), 3)}, last {words.number(float(y[-1]), 3)}"
        width = max(8, min(room.width - side - len(tail) - 2, 48))
        some = y[np.linspace(0, len(y) - 1, width).round().astype(int)]
        share = np.clip((some / 2 - low / 2) / (high / 2 - low / 2), 0, 1)
        spark = "".join(_SPARKS[int(part * 7.99)] if np.isfinite(part) else " " for part in share)
        drawn.append(fit(Text.assemble(word(series.name, side), " ", spark, " ", tail), room.width))
    up = f"{picture.y_axis or 'y'} from {words.number(low, 3)} to {words.number(high, 3)} {picture.unit}".rstrip()
    across = f"{picture.x_axis or 'x'} from {words.number(float(picture.x[0]))} to {words.number(float(picture.x[-1]))}"
    return [*drawn, *paragraph(f"{up}; {across}", room.width, "dim")]


def scatter(picture: Scatter, room: Room) -> list[Text]:
    """Points as signs, one kind and colour a group; the outermost are named below."""
    x, y = np.asarray(picture.x, dtype=float), np.asarray(picture.y, dtype=float)
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not known.size:
        return nothing(picture, room)
    canvas = Canvas(min(room.width, 84) - 10, 14, x[known], y[known])
    member = [picture.groups[at] if at < len(picture.groups) else "" for at in range(len(x))]
    groups = list(dict.fromkeys(member))
    for at in known.tolist():
        canvas.sign(float(x[at]), float(y[at]), groups.index(member[at]))
    keys = [(SIGNS[at % len(SIGNS)], name) for at, name in enumerate(groups)]
    named = [at for at in _outermost(x, y, known, 6) if at < len(picture.labels)]
    points = ", ".join(
        f"{words.visible(picture.labels[at])} ({words.number(float(x[at]), 3)}, {words.number(float(y[at]), 3)})"
        for at in named
    )
    return framed(
        picture.title,
        picture.note,
        [
            *_keys(keys, room),
            *paragraph(picture.y_axis, room.width, "dim"),
            *canvas.lines(room, picture.x_axis),
            *paragraph(f"outermost: {points}" if points else "", room.width, "dim"),
        ],
        room.width,
    )


def _outermost(x: np.ndarray, y: np.ndarray, known: np.ndarray, most: int) -> list[int]:
    """The points farthest from the middle, in units of each axis' spread."""
    spread = [(part[known] - part[known].mean()) / (part[known].std() or 1.0) for part in (x, y)]
    return known[np.argsort(-np.hypot(*spread), kind="stable")[:most]].tolist()
