"""Attention patterns in a terminal: small maps side by side, and where the last token looks.

Without colour a map says nothing, so each query is written with the keys it looks at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from patchclamp.picture import colour, words
from patchclamp.picture.console.room import Room, fit, framed, legend, nothing, unseen, widest, word

if TYPE_CHECKING:
    from patchclamp.picture.picture import Attention, Pattern

MOST_QUERIES = 40
"""Rows of a map."""

MOST_LISTED = 16
"""Queries written out with their keys, one a line."""

LIMITS = (0.0, 1.0)


def attention(picture: Attention, room: Room) -> list[Text]:
    """All patterns, as many side by side as fit."""
    if not picture.patterns or not picture.queries or not picture.keys:
        return nothing(picture, room)
    side = widest(picture.queries, min(10, room.width // 4)) + 1
    cell = 2 if side + 2 * len(picture.keys) <= room.width else 1
    block = side + cell * len(picture.keys)
    lines: list[Text] = []
    if not room.coloured or block > room.width:
        for pattern in picture.patterns:
            lines += _list(picture, pattern, room.width)
        lines += _unseen(picture, MOST_LISTED, room.width)
        return framed(picture.title, picture.note, lines, room.width)
    beside = max(1, (room.width + 3) // (block + 3))
    for start in range(0, len(picture.patterns), beside):
        maps = [_map(picture, pattern, side, cell, room) for pattern in picture.patterns[start : start + beside]]
        for parts in zip(*maps):
            lines.append(Text("   ").join(parts))
        lines.append(Text())
    lines.append(legend(room, "sequential", LIMITS, "attention weight; rows are queries, columns keys", np.zeros(1)))
    lines += _unseen(picture, MOST_QUERIES, room.width)
    return framed(picture.title, picture.note, lines, room.width)


def _map(picture: Attention, pattern: Pattern, side: int, cell: int, room: Room) -> list[Text]:
    """A name, a note, one line a query, and the strongest keys of the last one; every map has equally many lines."""
    levels = colour.levels(pattern.weights, "sequential", LIMITS)
    width = side + cell * len(picture.keys)
    name, note = Text(words.prose(pattern.name), style="bold"), Text(words.prose(pattern.note), style="dim")
    lines = [fit(name, width), fit(note, width)]
    for query in _last(picture, MOST_QUERIES):
        line = Text.assemble(word(picture.queries[query], side - 1, "right"), " ")
        for level in levels[query].tolist():
            line.append(" " * cell, room.shade("sequential", level))
        lines.append(line)
    return [*lines, _looks_at(picture, pattern, len(picture.queries) - 1, width)]


def _list(picture: Attention, pattern: Pattern, width: int) -> list[Text]:
    head = Text.assemble((words.prose(pattern.name), "bold"), ("  " + words.prose(pattern.note), "dim"))
    lines = [_looks_at(picture, pattern, query, width) for query in _last(picture, MOST_LISTED)]
    return [fit(head, width), *lines, Text()]


def _looks_at(picture: Attention, pattern: Pattern, query: int, width: int) -> Text:
    """A query and the up to three keys with the most weight, as many as fit."""
    weights = np.nan_to_num(np.asarray(pattern.weights, dtype=float)[query])
    line = f"{words.visible(picture.queries[query])} →"
    for key in np.argsort(-weights, kind="stable")[:3].tolist():
        piece = f" {words.visible(picture.keys[key])} {words.number(float(weights[key]), 2)}"
        if weights[key] < 0.01 or cell_len(line + piece) > width:
            break
        line += piece
    return fit(Text(line), width)


def _last(picture: Attention, most: int) -> range:
    """The last queries: there the answer is made."""
    return range(max(0, len(picture.queries) - most), len(picture.queries))


def _unseen(picture: Attention, most: int, width: int) -> list[Text]:
    return unseen(len(_last(picture, most)), len(picture.queries), "queries not shown (the first)", width)
