"""How much room a terminal gives and what it can show; and the words, shades and lines every drawing there is made of.

A drawing is a list of lines (`rich.text.Text`) no wider than the room. Tokens never reach the terminal raw: a token may
be an escape sequence that clears the screen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text

from patchclamp.picture import colour, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Picture, Scale


@dataclass(frozen=True)
class Room:
    """The width in columns, whether backgrounds can be coloured, and which variant of the scales to use."""

    width: int
    coloured: bool
    theme: colour.Theme = "dark"

    def shade(self, scale: Scale, level: int) -> Style:
        """The style of a cell. The shades next to zero stay the terminal's own background, whatever that is."""
        middle = (colour.LEVELS - 1) // 2 if scale == "diverging" else 0
        if not self.coloured or level == colour.EMPTY or abs(level - middle) <= 1:
            return Style()
        background = colour.shades(scale, self.theme)[level]
        return Style(color=colour.ink(background), bgcolor=background)

    def mark(self, kind: str) -> Style:
        """The style of bars and lines: `positive`, `negative`, or the number of a group."""
        if not self.coloured:
            return Style()
        group = colour.GROUPS[self.theme]
        return Style(color=colour.EITHER[kind] if kind in colour.EITHER else group[int(kind) % len(group)])


def theme() -> colour.Theme:
    """Dark, unless the terminal says otherwise: most are, and the few that tell do it in COLORFGBG (`15;0`)."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background in ("7", "9", "10", "11", "12", "13", "14", "15") else "dark"


def word(text: str, width: int, align: str = "left", style: Style | str = "") -> Text:
    """A label in exactly `width` columns, cut with an ellipsis; marks of invisible characters are dim."""
    drawn = Text(style=style, no_wrap=True, end="")
    for piece in words.pieces(text):
        drawn.append(piece.text, "dim" if piece.mark and not style else "")
    return fit(drawn, width, align)


def fit(text: Text, width: int, align: str = "left") -> Text:
    """Exactly `width` columns; wide characters (emoji, Chinese) take two."""
    if text.cell_len > width:
        text.truncate(max(width, 0), overflow="ellipsis")
    gap = " " * (width - text.cell_len)
    return Text.assemble(gap, text) if align == "right" else Text.assemble(text, gap)


def plain(text: str, width: int, align: str = "left") -> str:
    """As `fit`, for text without styles."""
    cut = text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…" * (width > 0)
    gap = " " * (width - cell_len(cut))
    return gap + cut if align == "right" else cut + gap


def widest(texts: Sequence[str], most: int) -> int:
    """The columns needed by the widest label, but not more than `most`."""
    return min(max((cell_len(words.visible(text)) for text in texts), default=0), most)


def paragraph(text: str, width: int, style: str = "") -> list[Text]:
    """Running text broken into lines of a comfortable length."""
    if not text:
        return []
    from rich.console import Console

    lines = Text(words.prose(text), style=style).wrap(Console(width=width), min(width, 92))
    return [Text.assemble(line) for line in lines]


def framed(title: str, note: str, lines: Sequence[Text], width: int) -> list[Text]:
    """A drawing with its title above and its note below."""
    return [*paragraph(title, width, "bold"), *lines, *paragraph(note, width, "dim")]


def unseen(shown: int, total: int, what: str, width: int) -> list[Text]:
    """How much is not drawn, if anything."""
    return paragraph(f"{total - shown} of {total} {what}", width, "dim") if shown < total else []


def nothing(picture: Picture, room: Room) -> list[Text]:
    """A picture without data says so."""
    empty = Text("nothing to draw: no values", style="dim")
    return framed(getattr(picture, "title", ""), getattr(picture, "note", ""), [empty], room.width)


def legend(room: Room, scale: Scale, limits: tuple[float, float], unit: str, values: np.ndarray) -> Text:
    """The scale with its limits; in words where there is no colour."""
    low = ("≤ " if (values < limits[0]).any() else "") + words.number(limits[0], 3)
    high = ("≥ " if (values > limits[1]).any() else "") + words.number(limits[1], 3)
    unit = words.prose(unit)
    if not room.coloured:
        return fit(Text(f"from {low} to {high} {unit}".rstrip(), style="dim"), room.width)
    bar = Text()
    for level in np.linspace(0, colour.LEVELS - 1, 17).round().astype(int):
        bar.append(" ", Style(bgcolor=colour.shades(scale, room.theme)[level]))
    return fit(Text.assemble((f"{low} ", "dim"), bar, (f" {high} {unit}", "dim")), room.width)


def strongest(strength: np.ndarray, count: int) -> list[int]:
    """Which rows or columns to keep where not all fit: the strongest and the last one, in their own order."""
    strength = np.nan_to_num(np.asarray(strength, dtype=float), nan=-1.0)
    if count >= len(strength):
        return list(range(len(strength)))
    order = [len(strength) - 1, *np.argsort(-strength[:-1], kind="stable").tolist()]
    return sorted(order[: max(count, 1)])
