"""Matrices too large for one element a cell, and images: PNGs written here, with a palette for light and for dark.

The picture is there without any script. Its numbers travel beside it as compact JSON, for the value under the pointer.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import colour, words
from patchclamp.picture.web.figure import behind, figure, nothing, scroll
from patchclamp.picture.web.markup import Html, data, name, rounded, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Heatmap, Image, Scale


def heatmap(picture: Heatmap) -> Html:
    """A large heatmap as an image with labels as far as there is room, and its strongest cells as a table."""
    values = np.asarray(picture.values, dtype=float)
    levels = colour.levels(values, picture.scale, picture.limits)
    numbers = {
        "rows": [words.visible(text) for text in picture.rows],
        "columns": [words.visible(text) for text in picture.columns],
        "axes": [picture.row_axis, picture.column_axis],
        "unit": picture.unit,
        "values": rounded(values),
        "details": {key: _written(np.asarray(detail)) for key, detail in picture.details.items()},
    }
    drawing = chart(levels, picture.scale, picture.rows, picture.columns, picture.title or "heatmap")
    return tag("div", scroll(drawing, about=picture.title), data(numbers), _strongest(picture, values), class_="field")


def _written(detail: np.ndarray) -> list:
    return rounded(detail) if detail.dtype.kind in "fiu" else [[words.number(value) for value in row] for row in detail]


def _strongest(picture: Heatmap, values: np.ndarray, most: int = 20) -> Html:
    order = np.argsort(-np.abs(np.nan_to_num(values)), axis=None)[:most]
    places = [np.unravel_index(at, values.shape) for at in order]
    rows = [(picture.rows[row], picture.columns[at], float(values[row, at])) for row, at in places]
    columns = (picture.row_axis or "row", picture.column_axis or "column", picture.unit or "value")
    return behind(columns, rows, f"The {len(rows)} largest of {values.size} cells")


def chart(levels: np.ndarray, scale: Scale, rows: Sequence[str], columns: Sequence[str], about: str) -> Html:
    """An image of shades with row labels on its left and upright column labels above it."""
    side = cell_size(*levels.shape)
    return tag(
        "div",
        tag("div", *_labels(columns, side), class_="top"),
        tag("div", *_labels(rows, side), class_="side"),
        tag("div", shaded(levels, scale), class_="raster", tabindex=0, role="img", aria_label=about),
        class_="chart",
        style=f"--rows:{levels.shape[0]};--columns:{levels.shape[1]};--most:{side:g}px",
    )


def cell_size(rows: int, columns: int) -> float:
    """The side of a cell in pixels: room for a label while there are few, smaller where the whole fits no screen."""
    most = max(rows, columns / 1.5, 1)
    return float(np.clip(640 // most, 14 if most <= 64 else 2, 22))


def _labels(labels: Sequence[str], side: float) -> list[Html]:
    """Labels with room for one line each; where cells are smaller than a line, every second, fifth, tenth …"""
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if step * side >= 14), 200)
    spans = ((at, min(step, len(labels) - at)) for at in range(0, len(labels), step))
    return [name(labels[at], style=f"--span:{span}") for at, span in spans if span * side >= 10]


def shaded(levels: np.ndarray, scale: Scale) -> Html:
    """One image for light and one for dark; the style sheet shows the one that fits."""
    images = (
        tag("img", src=_url(_indexed(levels, colour.shades(scale, theme))), class_=when, alt="")
        for theme, when in (("light", "day"), ("dark", "night"))
    )
    return tag("span", *images, class_="shaded")


def image(picture: Image) -> Html:
    """Pixels, enlarged without smoothing while they are few."""
    pixels = np.nan_to_num(np.asarray(picture.pixels, dtype=float))
    if not pixels.size:
        return nothing("image", picture.title, picture.note)
    colours = np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]
    height, width = colours.shape[:2]
    drawn = (np.clip(colours, 0, 1) * 255).round().astype(np.uint8)
    scale = max(1, 256 // max(height, width))
    shown = tag(
        "img",
        src=_url(_png(drawn.reshape(height, -1), width, kind=2)),
        alt=picture.title or f"image of {width} × {height} pixels",
        width=width * scale,
        height=height * scale,
        class_="pixels" if scale > 2 else None,
    )
    return figure("image", picture.title, picture.note, shown)


def _indexed(levels: np.ndarray, palette: Sequence[str]) -> bytes:
    """A PNG whose pixels are shades; the index after the last shade is transparent, for cells without a value."""
    plte = b"".join(bytes.fromhex(shade[1:]) for shade in palette) + b"\0\0\0"
    clear = _chunk(b"tRNS", b"\xff" * len(palette) + b"\0")
    indices = np.where(levels < 0, len(palette), levels).astype(np.uint8)
    return _png(indices, levels.shape[1], kind=3, palette=_chunk(b"PLTE", plte) + clear)


def _png(lines: np.ndarray, width: int, kind: int, palette: bytes = b"") -> bytes:
    """Bytes of pixel lines as a PNG (ISO/IEC 15948): 8 bits a channel, no line filter. `kind` 2 is RGB, 3 a palette."""
    header = struct.pack(">IIBBBBB", width, len(lines), 8, kind, 0, 0, 0)
    unfiltered = np.insert(lines, 0, 0, axis=1).tobytes()
    body = _chunk(b"IHDR", header) + palette + _chunk(b"IDAT", zlib.compress(unfiltered, 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
