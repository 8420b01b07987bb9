"""Networks: nodes in layers from the bottom up, edges between them as wide as their weight.

Nodes are HTML above a stretched SVG of edges, so their words keep their size; each gets a slot of its own, so none lie
on each other however many share a layer and a column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import colour, words
from patchclamp.picture.web.cells import classes
from patchclamp.picture.web.figure import behind, figure, legend, measured, nothing, scroll
from patchclamp.picture.web.markup import Html, shown, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Network, Node

MOST_EDGES = 400
"""Edges drawn, strongest first; more are a grey area."""
BOW = 8
"""How far, in percent of the width, an edge swings out around the nodes that stand straight between its ends."""


def network(picture: Network) -> Html:
    """Nodes and their strongest edges; the edges also as a table."""
    if not picture.nodes:
        return nothing("network", picture.title, picture.note)
    places, across, up = layout(picture.nodes)
    known = [edge for edge in picture.edges if edge[0] in places and edge[1] in places and np.isfinite(edge[2])]
    strongest = sorted(known, key=lambda edge: -abs(edge[2]))
    kept = strongest[:MOST_EDGES]
    values = np.array([node.value for node in picture.nodes], dtype=float)
    shades = classes(values, "diverging", None) if values.any() else [None] * len(values)
    index = {node.id: at for at, node in enumerate(picture.nodes)}
    drawn = tag(
        "div",
        _edges(kept, places, index, min(40 / across, BOW), 100 / up),
        *(_node(node, places[node.id], shade, at, picture.unit) for at, (node, shade) in enumerate(zip(picture.nodes, shades))),
        class_="web",
        style=f"--across:{across};--up:{up}",
    )
    names = {node.id: node.label for node in picture.nodes}
    rows = [(names[start], names[end], float(weight)) for start, end, weight in strongest]
    left_out = len(picture.edges) - len(kept)
    return figure(
        "network",
        picture.title,
        picture.note,
        scroll(drawn, about=picture.title),
        tag("p", f"{left_out} weaker edges are not drawn.", class_="note") if left_out else None,
        legend("diverging", colour.limits(values, "diverging"), picture.unit) if values.any() else None,
        behind(("from", "to", picture.unit or "weight"), rows, "Edges, strongest first") if rows else None,
    )


def layout(nodes: Sequence[Node]) -> tuple[dict[str, tuple[float, float]], int, int]:
    """Where each node stands in percent from the left and the top, and how many slots the drawing has each way.

    A column is as wide as the most nodes that share it in one layer; they stand side by side in its middle.
    """
    layers = sorted({node.layer for node in nodes})
    columns = sorted({node.column for node in nodes})
    crowd: dict[tuple[float, float], list[str]] = {}
    for node in nodes:
        crowd.setdefault((node.layer, node.column), []).append(node.id)
    width = {column: max(len(crowd.get((layer, column), ())) for layer in layers) for column in columns}
    start = dict(zip(columns, np.cumsum([0, *(width[column] for column in columns)]).tolist()))
    across, up = sum(width.values()), len(layers)
    places = {}
    for (layer, column), ids in crowd.items():
        for at, id in enumerate(ids):
            slot = start[column] + (width[column] - len(ids)) / 2 + at + 0.5
            places[id] = (round(100 * slot / across, 2), round(100 * (up - layers.index(layer) - 0.5) / up, 2))
    return places, across, up


def _edges(edges: Sequence[tuple[str, str, float]], places: dict[str, tuple[float, float]], index: dict[str, int],
           bow: float, rise: float) -> Html:  # fmt: skip
    """Curves that leave upwards and arrive from below; blue adds, orange takes away. The weakest lie lowest.

    `rise` is how far one layer lies above another.
    """
    top = max((abs(weight) for *_, weight in edges), default=1.0) or 1.0
    paths = []
    for start, end, weight in reversed(edges):
        (x, y), (u, v) = places[start], places[end]
        bend = (y + v) / 2 if y != v else y - 8
        share = abs(weight) / top
        around = bow if x == u and abs(y - v) > 1.5 * rise else 0
        paths.append(
            tag(
                "path",
                d=f"M{x:g} {y:g}C{x + around:g} {bend:g} {u + around:g} {bend:g} {u:g} {v:g}",
                class_="negative" if weight < 0 else "positive",
                style=f"--share:{share:.3g}",
                data_ends=f"{index[start]} {index[end]}",
                data_weight=words.number(weight, 3),
            )
        )
    return tag("svg", *paths, viewBox="0 0 100 100", preserveAspectRatio="none", aria_hidden="true")


def _node(node: Node, place: tuple[float, float], shade: str | None, at: int, unit: str) -> Html:
    lines = [words.visible(node.label), measured(float(node.value), unit) if node.value else None, node.note or None]
    return tag(
        "span",
        shown(node.label),
        class_=f"node {shade or ''}".strip(),
        style=f"left:{place[0]:g}%;top:{place[1]:g}%",
        title="\n".join(line for line in lines if line),
        data_at=at,
    )
