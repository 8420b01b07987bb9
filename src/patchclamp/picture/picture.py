"""Pictures as plain frozen data: they say what to draw, never how.

A noun (a Grid, a Run, a Graph) describes itself as one of these; `terminal.py`, `html.py` and `notebook.py` draw them.
Numbers are numpy arrays, words are strings. This floor knows no models and no torch, so anything above can show itself
without importing upwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

Scale = Literal["sequential", "diverging"]
"""`sequential` for quantities that start at zero (probability, divergence), `diverging` for signed effects."""


class Picture:
    """What every picture can do. The data is in the subclasses; the drawing is in the renderers."""

    def show(self) -> None:
        """Draw in the terminal, or inline where a notebook is running."""
        from patchclamp.picture import notebook, terminal

        if notebook.running():
            notebook.display(self)
        else:
            terminal.show(self)

    def html(self) -> str:
        """One self-contained HTML page: no external request, readable offline years from now."""
        from patchclamp.picture import html

        return html.page(self)

    def save(self, path: str | Path) -> Path:
        """Write `html()` to a file and return its path."""
        path = Path(path)
        path.write_text(self.html(), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        from patchclamp.picture import html

        return html.fragment(self)

    def __rich__(self):
        from patchclamp.picture import terminal

        return terminal.renderable(self)


@dataclass(frozen=True, eq=False)
class Heatmap(Picture):
    """A matrix of coloured cells, e.g. layer x position."""

    values: np.ndarray
    """(rows, columns); NaN draws an empty cell."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_axis: str = ""
    column_axis: str = ""
    scale: Scale = "sequential"
    limits: tuple[float, float] | None = None
    """Values drawn with the ends of the scale; taken from the data when None (symmetric when diverging)."""
    unit: str = ""
    text: tuple[tuple[str, ...], ...] | None = None
    """Words written in the cells, e.g. the top token."""
    details: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further numbers (rows, columns) or words shown for the cell under the pointer."""
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Bars(Picture):
    """One bar a label, signed values either side of zero."""

    values: np.ndarray
    labels: tuple[str, ...]
    unit: str = ""
    axis: str = ""
    scale: Scale = "diverging"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a `Lines` picture, with an optional band."""

    name: str
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Lines(Picture):
    """Several series over one horizontal axis."""

    x: np.ndarray
    series: tuple[Series, ...]
    x_axis: str = ""
    y_axis: str = ""
    unit: str = ""
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Tokens(Picture):
    """A text whose tokens carry one number each."""

    tokens: tuple[str, ...]
    values: np.ndarray | None = None
    unit: str = ""
    scale: Scale = "sequential"
    limits: tuple[float, float] | None = None
    details: Mapping[str, tuple] = field(default_factory=dict)
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Pattern:
    """One head's attention: `weights[query, key]`, and a word on why it is shown."""

    name: str
    weights: np.ndarray
    note: str = ""


@dataclass(frozen=True, eq=False)
class Attention(Picture):
    """Attention patterns as small multiples; one of them large, with its token-to-token lines."""

    queries: tuple[str, ...]
    keys: tuple[str, ...]
    patterns: tuple[Pattern, ...]
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Scatter(Picture):
    """Labelled points, optionally in groups."""

    x: np.ndarray
    y: np.ndarray
    labels: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    x_axis: str = ""
    y_axis: str = ""
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a `Network`; `layer` orders nodes upwards, `column` sideways."""

    id: str
    label: str
    layer: float = 0.0
    column: float = 0.0
    value: float = 0.0
    note: str = ""


@dataclass(frozen=True, eq=False)
class Network(Picture):
    """Nodes and weighted edges, drawn in layers from the bottom up."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str, float], ...]
    unit: str = ""
    title: str = ""
    note: str = ""
    into: tuple[str, ...] = ()
    """For each edge which input of its receiver it enters (`q`, `k`, `v`, or nothing); empty where edges have none."""


@dataclass(frozen=True, eq=False)
class Image(Picture):
    """Pixels (height, width) or (height, width, 3), floats in 0..1."""

    pixels: np.ndarray
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Table(Picture):
    """Rows of words and numbers. Numbers align right and are written with `digits` significant digits."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    digits: int = 4
    title: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page: a heading, its reading in plain words, pictures, and what was left out and why."""

    title: str
    reading: str = ""
    pictures: tuple[Picture, ...] = ()
    left_out: str = ""
    folded: bool = False
    """Drawn closed at first (long tables, further maps)."""


@dataclass(frozen=True, eq=False)
class Page(Picture):
    """A report: a title, a few facts, sections one below another."""

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Short pairs under the title: model, prompt, answer, time."""
    sections: tuple[Section, ...] = ()
    footer: str = ""
