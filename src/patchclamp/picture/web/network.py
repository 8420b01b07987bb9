"""Networks: nodes in layers from the bottom up, edges between them as wide as their weight.

An edge into a head's queries is dotted, into its keys dashed. Nodes are HTML above a stretched SVG of edges, so their words
keep their size; each gets a slot of its own, so none lie on each other however many share a layer and a column.
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


def network(picture: Network) -> Html:
    """Nodes and their strongest edges; the edges also as a table."""
    if not picture.nodes:
        return nothing("network", picture.title, picture.note)
    places, across, up = layout(picture.nodes)
    into = picture.into or ("",) * len(picture.edges)
    known = [(*e, i) for e, i in zip(picture.edges, into) if e[0] in places and e[1] in places and np.isfinite(e[2])]
    strongest = sorted(known, key=lambda edge: -abs(edge[2]))
    kept = strongest[:MOST_EDGES]
    values = np.array([node.value for node in picture.nodes], dtype=float)
    shades = classes(values, "diverging", None) if values.any() else [None] * len(values)
    index = {node.id: at for at, node in enumerate(picture.nodes)}
    drawn = tag(
        "div",
        _edges(kept, places, index, 100 / across),
        *(_node(node, places[node.id], shade, at, picture.unit) for at, (node, shade) in enumerate(zip(picture.nodes, shades))),
        class_="web",
        style=f"--across:{across};--up:{up}",
    )
    names = {node.id: node.label for node in picture.nodes}
    columns = ("from", "to", *(("into",) if picture.into else ()), picture.unit or "weight")
    rows = [(names[a], names[b], *((i,) if picture.into else ()), float(weight)) for a, b, weight, i in strongest]
    left_out = len(picture.edges) - len(kept)
    return figure(
        "network",
        picture.title,
        picture.note,
        scroll(drawn, about=picture.title),
        tag("p", *_key(kept), class_="note strokes") if kept else None,
        tag("p", f"{left_out} weaker edges are not drawn.", class_="note") if left_out else None,
        legend("diverging", colour.limits(values, "diverging"), picture.unit) if values.any() else None,
        behind(columns, rows, "Edges, strongest first") if rows else None,
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


def _key(edges: Sequence[tuple[str, str, float, str]]) -> list[Html]:
    """What colours and dashes mean, of those that are drawn."""
    kinds = {
        "positive": "adds",
        "negative": "takes away",
        "q": "into queries",
        "k": "into keys",
        "v": "into values or the whole input",
    }
    seen = {"negative" if weight < 0 else "positive" for *_, weight, _ in edges} | {into for *_, into in edges}
    line = lambda kind: tag("svg", tag("path", d="M0 5H100", class_=kind), viewBox="0 0 100 10",  # noqa: E731
                            preserveAspectRatio="none", aria_hidden="true")  # fmt: skip
    return [tag("span", line(kind), f" {said}") for kind, said in kinds.items() if kind in seen]


def _edges(edges: Sequence[tuple[str, str, float, str]], places: dict[str, tuple[float, float]], index: dict[str, int],
           slot: float) -> Html:  # fmt: skip
    """Curves that leave upwards and arrive from below; blue adds, orange takes away. The weakest lie lowest."""
    top = max((abs(weight) for *_, weight, _ in edges), default=1.0) or 1.0
    paths, spots = [], list(places.values())
    for start, end, weight, into in reversed(edges):
        (x, y), (u, v) = places[start], places[end]
        share, bend = abs(weight) / top, (y + v) / 2 if y != v else y - 8
        # Where nodes stand between the two, straight above, the edge goes around them.
        around = x == u and any(a == x and min(y, v) < b < max(y, v) for a, b in spots)
        side = x - 0.68 * slot
        low, high = (side, side) if around else (x, u)
        paths.append(
            tag(
                "path",
                d=f"M{x:g} {y:g}C{low:g} {bend:g} {high:g} {bend:g} {u:g} {v:g}",
                class_=f"{'negative' if weight < 0 else 'positive'} {into}".strip(),
                style=f"--share:{share:.3g}",
                data_ends=f"{index[start]} {index[end]}",
                data_weight=words.number(weight, 3),
                data_into=into or None,
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
        data_note=words.visible(node.note) or None,
    )
