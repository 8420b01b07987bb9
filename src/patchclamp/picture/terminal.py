"""Pictures in a terminal: any width, dark or light, with colour or without.

Without colour (NO_COLOR, a dumb terminal, a pipe) the numbers are written out instead. Nothing is wider than the
terminal; what does not fit is left out by strength, and the drawing says how much that is.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

from patchclamp.picture.picture import (
    Attention,
    Bars,
    Heatmap,
    Image,
    Lines,
    Network,
    Page,
    Picture,
    Scatter,
    Table,
    Tokens,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

    from patchclamp.picture.console.room import Room

_ASCII = str.maketrans({"−": "-", "…": "~", "·": ".", "×": "x", "█": "#", "–": "-", "→": ">", "←": "<", "↵": "\\", "␣": "_"})


def show(picture: Picture, file: IO[str] | None = None) -> None:
    """Draw on standard output, or into a file."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "") in ("dumb", "unknown")
    console = Console(file=file, color_system=None if plain else "auto", highlight=False)
    if console.options.ascii_only:
        # A pipe in an old encoding: better a plain sign than an error.
        encoding = console.encoding
        written = text(picture, console.width).translate(_ASCII).encode(encoding, "replace").decode(encoding)
        console.file.write(written)
    else:
        console.print(renderable(picture))


def text(picture: Picture, width: int = 80) -> str:
    """The drawing without colour as one string."""
    import io

    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width, color_system=None, force_jupyter=False, highlight=False).print(renderable(picture))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def renderable(picture: Picture) -> RenderableType:
    """Something rich can print, lay out in its tables and columns, and measure."""
    return _Drawing(picture)


class _Drawing:
    """Asks for the room at the moment of drawing, when it is known."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from patchclamp.picture.console.room import Room, theme

        coloured = console.color_system in ("256", "truecolor") and not console.no_color
        for line in draw(self.picture, Room(options.max_width, coloured, theme())):
            line.no_wrap, line.overflow, line.end = True, "crop", "\n"
            yield line


def draw(picture: Picture, room: Room) -> list[Text]:
    """The lines of one picture, none wider than the room."""
    from patchclamp.picture.console import attention, cells, network, page, plot, rows

    if isinstance(picture, Page):
        return page.page(picture, room, draw)
    drawings = {
        Attention: attention.attention,
        Bars: rows.bars,
        Heatmap: cells.heatmap,
        Image: cells.image,
        Lines: plot.lines,
        Network: network.network,
        Scatter: plot.scatter,
        Table: rows.table,
        Tokens: cells.tokens,
    }
    drawing = drawings.get(type(picture))
    if drawing is None:
        known = ", ".join(sorted(kind.__name__ for kind in (*drawings, Page)))
        raise TypeError(f"no drawing for {type(picture).__name__}; a terminal can show {known}")
    return drawing(picture, room)
