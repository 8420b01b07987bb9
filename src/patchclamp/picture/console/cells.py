"""Coloured cells in a terminal: heatmaps, texts, and images in half blocks.

A heatmap takes the best form that fits: numbers or words in the cells, shortened ones, colour alone. Where not even
that fits, it keeps the strongest columns and the last one and says how many are missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from patchclamp.picture import colour, words
from patchclamp.picture.console.room import Room, fit, framed, legend, nothing, strongest, unseen, widest, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Heatmap, Image, Tokens

MOST_ROWS = 64
"""More rows than this scroll out of sight; the strongest are kept."""


@dataclass(frozen=True)
class _Form:
    """What stands in the cells, and the cells' width; an empty `text` is colour alone."""

    text: np.ndarray | None
    width: int


def heatmap(picture: Heatmap, room: Room) -> list[Text]:
    """A matrix of coloured cells with labels, a legend, and a word on what is not shown."""
    values = np.asarray(picture.values, dtype=float)
    if not values.size:
        return nothing(picture, room)
    side = widest(picture.rows, min(14, room.width // 4)) + 1
    form = _form(picture, room, side)
    strength = np.abs(np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=np.inf))
    columns = strongest(strength.max(axis=0), (room.width - side) // form.width)
    rows = strongest(strength.max(axis=1), MOST_ROWS)
    lines = [*_head(picture, columns, side, form.width, room.width)]
    for row in rows:
        lines += _row(picture, row, columns, side, form, room)
    limits = colour.limits(values, picture.scale, picture.limits)
    lines.append(legend(room, picture.scale, limits, picture.unit, values))
    lines += unseen(len(columns), values.shape[1], "columns not shown (the weakest)", room.width)
    lines += unseen(len(rows), values.shape[0], "rows not shown (the weakest)", room.width)
    return framed(picture.title, picture.note, lines, room.width)


def _form(picture: Heatmap, room: Room, side: int) -> _Form:
    """The first form that fits, as wide as its column labels ask for and the room allows; else the narrowest."""
    count = np.asarray(picture.values).shape[1]
    forms = _word_forms(picture, room) if picture.text is not None else _number_forms(picture, room)
    share = (room.width - side) // max(count, 1)
    if room.coloured and picture.text is None:
        forms.append(_Form(None, min(max(share, 2), 6)))
    form = next((form for form in forms if form.width <= share), forms[-1])
    labelled = widest(picture.columns, 9) + 1
    return form if form.text is None else replace(form, width=max(form.width, min(labelled, share)))


def _word_forms(picture: Heatmap, room: Room) -> list[_Form]:
    assert picture.text is not None
    text = np.array([[words.visible(cell) for cell in row] for row in picture.text], dtype=object)
    longest = min(max(cell_len(cell) for cell in text.ravel()), 10)
    widths = sorted({longest, min(longest, 8), min(longest, 6), min(longest, 5)}, reverse=True)
    least = 4 if room.coloured else max(4, max(map(len, _short(words.cells(np.asarray(picture.values, dtype=float))))))
    return [_Form(text, max(width, least) + 1) for width in widths]


def _number_forms(picture: Heatmap, room: Room) -> list[_Form]:
    values = np.asarray(picture.values, dtype=float)
    full = words.cells(values)
    forms = [np.array(cells, dtype=object).reshape(values.shape) for cells in (full, _short(full))]
    return [_Form(text, max(3, max(len(cell) for cell in text.ravel()) + 1)) for text in forms]


def _short(numbers: list[str]) -> list[str]:
    """Numbers below one without the nought before the point."""
    return [cell.replace("0.", ".", 1) if cell.lstrip("−")[:2] == "0." else cell for cell in numbers]


def _head(picture: Heatmap, columns: Sequence[int], side: int, width: int, room: int) -> list[Text]:
    """Column labels above their cells; letter below letter where a cell is too narrow for a word."""
    labels = [picture.columns[at] if at < len(picture.columns) else str(at) for at in columns]
    axes = " · ".join(f"{name} {arrow}" for name, arrow in ((picture.row_axis, "↓"), (picture.column_axis, "→")) if name)
    lines = [fit(Text(words.visible(axes), style="dim"), room)] if axes else []
    if width >= 4 or widest(labels, 9) < width:
        line = Text(" " * side)
        for label in labels:
            line.append_text(word(label, width - 1, "right")).append(" ")
        return [*lines, fit(line, room)]
    shown = [words.visible(label)[:6] for label in labels]
    tall = max((len(text) for text in shown), default=0)
    for level in range(tall):
        letters = (text.rjust(tall)[level] if cell_len(text) == len(text) else " " for text in shown)
        lines.append(fit(Text(" " * side + "".join(letter.rjust(width) for letter in letters), style="dim"), room))
    return lines


def _row(picture: Heatmap, row: int, columns: Sequence[int], side: int, form: _Form, room: Room) -> list[Text]:
    """One row; without colour a row of words gets a second line with its numbers."""
    values = np.asarray(picture.values, dtype=float)
    levels = colour.levels(values, picture.scale, picture.limits)[row]
    label = picture.rows[row] if row < len(picture.rows) else str(row)
    line = Text.assemble(word(label, side - 1, "right"), " ")
    for at in columns:
        style = room.shade(picture.scale, int(levels[at]))
        content = "" if form.text is None else form.text[row, at]
        line.append_text(Text.assemble(fit(Text(content), form.width - 1, "right"), " ", style=style))
    if picture.text is None or room.coloured:
        return [line]
    numbers = words.cells(values)[row * values.shape[1] : (row + 1) * values.shape[1]]
    second = Text(" " * side)
    for at, short in zip(columns, _short([numbers[at] for at in columns])):
        number = numbers[at] if len(numbers[at]) < form.width else short
        second.append_text(fit(Text(number, style="dim"), form.width - 1, "right")).append(" ")
    return [line, second]


def tokens(picture: Tokens, room: Room) -> list[Text]:
    """A text in reading order on its colours; without colour each token is followed by its number."""
    if not picture.tokens:
        return nothing(picture, room)
    values = None if picture.values is None else np.asarray(picture.values, dtype=float)
    levels = None if values is None else colour.levels(values, picture.scale, picture.limits)
    numbers = None if values is None else words.cells(values)
    lines = [Text()]
    for at, token in enumerate(picture.tokens):
        style = Style() if levels is None else room.shade(picture.scale, int(levels[at]))
        shown = words.visible(token) or "∅"
        if numbers is not None and not room.coloured:
            shown += f"[{numbers[at]}] "
        piece = Text(shown, style=style)
        piece.truncate(room.width, overflow="ellipsis")
        if lines[-1].cell_len + piece.cell_len > room.width:
            lines.append(Text())
        lines[-1].append_text(piece)
        if "\n" in token:
            lines.append(Text())
    if values is not None:
        limits = colour.limits(values, picture.scale, picture.limits)
        lines.append(legend(room, picture.scale, limits, picture.unit, values))
    return framed(picture.title, picture.note, lines, room.width)


def image(picture: Image, room: Room) -> list[Text]:
    """Two pixels a character, upper and lower half; without colour, shades of grey from five characters."""
    pixels = np.clip(np.nan_to_num(np.asarray(picture.pixels, dtype=float)), 0, 1)
    if not pixels.size:
        return nothing(picture, room)
    pixels = np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]
    width = min(room.width, 64, max(pixels.shape[1], 16))
    height = max(2, 2 * round(width * pixels.shape[0] / pixels.shape[1] / 2))
    down = np.linspace(0, pixels.shape[0] - 1, height).round().astype(int)
    across = np.linspace(0, pixels.shape[1] - 1, width).round().astype(int)
    small = (pixels[down][:, across] * 255).round().astype(int)
    lines = []
    for upper, lower in zip(small[::2], small[1::2]):
        line = Text()
        for above, below in zip(upper, lower):
            if room.coloured:
                line.append(
                    "▀", Style(color="#{:02x}{:02x}{:02x}".format(*above), bgcolor="#{:02x}{:02x}{:02x}".format(*below))
                )
            else:
                line.append(" ░▒▓█"[round(float(above.mean() + below.mean()) / 510 * 4)])
        lines.append(line)
    return framed(picture.title, picture.note, lines, room.width)
