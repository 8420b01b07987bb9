"""A report in a terminal: sections one below another, each with its reading and its pictures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text

from patchclamp.picture import words
from patchclamp.picture.console.room import Room, fit, paragraph, widest

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchclamp.picture.picture import Page, Picture, Section


def page(picture: Page, room: Room, draw: Callable[[Picture, Room], list[Text]]) -> list[Text]:
    """Title, facts, sections. `draw` draws the pictures in them."""
    lines = [*paragraph(picture.title, room.width, "bold"), *paragraph(picture.subtitle, room.width, "italic")]
    if picture.facts:
        side = widest(list(picture.facts), 16)
        lines.append(Text())
        for key, value in picture.facts.items():
            lines += _fact(words.prose(key), value, side, room)
    for section in picture.sections:
        lines += [Text(), *_section(section, room, draw)]
    if picture.footer:
        lines += [Text(), *paragraph(picture.footer, room.width, "dim")]
    return lines


def _fact(key: str, value: str, side: int, room: Room) -> list[Text]:
    """A value longer than a line goes on below itself."""
    parts = paragraph(value, max(room.width - side - 2, 10)) or [Text()]
    heads = [fit(Text(key, style="dim"), side), *(Text(" " * side) for _ in parts[1:])]
    return [Text.assemble(head, "  ", part) for head, part in zip(heads, parts)]


def _section(section: Section, room: Room, draw: Callable[[Picture, Room], list[Text]]) -> list[Text]:
    title = words.prose(section.title)
    head = Text.assemble((f"── {title} ", "bold"))
    head.truncate(room.width, overflow="ellipsis")
    head.append("─" * (min(room.width, 92) - head.cell_len), "dim")
    lines = [head]
    for part in section.reading.split("\n\n"):
        lines += paragraph(part.strip(), room.width)
    if section.folded and section.pictures:
        kinds = Counter(type(picture).__name__.lower() for picture in section.pictures)
        what = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines += paragraph(f"folded here: {what}; the page in HTML opens it", room.width, "dim")
    else:
        for picture in section.pictures:
            lines += [Text(), *draw(picture, room)]
    return [*lines, *paragraph(f"Left out: {section.left_out}" if section.left_out else "", room.width, "dim")]
