"""Networks in a terminal: nodes from the top layer down, each with the edges that come into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from patchclamp.picture import words
from patchclamp.picture.console.room import Room, fit, framed, nothing, paragraph, strongest, unseen, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.picture.picture import Network, Node

MOST_NODES = 40
MOST_EDGES = 5


def network(picture: Network, room: Room) -> list[Text]:
    """Nodes that something comes into, from the top layer down, each with its strongest edges."""
    if not picture.nodes:
        return nothing(picture, room)
    names = {node.id: node for node in picture.nodes}
    incoming: dict[str, list[tuple[float, Node, str]]] = {}
    for (start, end, weight), into in zip(picture.edges, picture.into or ("",) * len(picture.edges)):
        if start in names and end in names:
            incoming.setdefault(end, []).append((float(weight), names[start], into))
    for edges in incoming.values():
        edges.sort(key=lambda edge: -abs(edge[0]))
    # Without any edges the nodes themselves are all there is to say.
    order = sorted((names[id] for id in incoming or names), key=lambda node: (-node.layer, node.column))
    loudness = np.array([abs(incoming[node.id][0][0]) if node.id in incoming else 0.0 for node in order])
    kept = strongest(loudness, MOST_NODES)
    lines = [_node(order[at], incoming.get(order[at].id, ()), room) for at in kept]
    lines += paragraph(f"each node with what comes into it ({picture.unit or 'weight'})", room.width, "dim")
    lines += unseen(len(kept), len(order), "nodes not shown (the weakest)", room.width)
    return framed(picture.title, picture.note, lines, room.width)


def _node(node: Node, edges: Sequence[tuple[float, Node, str]], room: Room) -> Text:
    line = Text.assemble(word(node.label, min(16, room.width // 3), "right", "bold"), " ")
    if node.note:
        line.append(f"{words.visible(node.note)} ", "dim")
    for weight, start, into in edges[:MOST_EDGES]:
        sign = "" if weight < 0 else "+"
        piece = f" ← {words.visible(start.label)}{f' {words.visible(into)}' if into else ''} {sign}{words.number(weight, 2)}"
        line.append(piece, room.mark("negative" if weight < 0 else "positive"))
    if len(edges) > MOST_EDGES:
        line.append(f"  and {len(edges) - MOST_EDGES} more", "dim")
    return fit(line, room.width)
