"""Graph: named nodes and weighted edges. A circuit, an attribution graph, the result of path patching.

Nodes are places (a site string is a node's identity), never offsets in a matrix; edges carry one number and may say which
of the receiver's inputs they enter (`q`, `k`, `v`, `mlp`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from patchclamp.core.agreement import rank_correlation
from patchclamp.core.errors import UnknownSite, did_you_mean
from patchclamp.core.site import Site
from patchclamp.picture import Network
from patchclamp.picture import Node as Drawn


@dataclass(frozen=True)
class Node:
    """A place, with a value of its own (an activation, an importance), a word for people and a few more below it.

    >>> Node("blocks.3.attn.z[head=6]", 0.8, "a name mover").layer
    3
    """

    site: str
    value: float = 0.0
    label: str = ""
    note: str = ""

    @property
    def layer(self) -> int | None:
        """The block the place lies in."""
        return Site.parse(self.site).layer


@dataclass(frozen=True)
class Edge:
    """How much one node gives to another, through which of its inputs.

    >>> Edge("embed.out", "blocks.0.attn", 0.5, into="q").into
    'q'
    """

    sender: str
    receiver: str
    weight: float
    into: str = ""


@dataclass(frozen=True)
class Comparison:
    """How far two graphs of one model are alike."""

    shared: tuple[Edge, ...]
    """Edges that both have, with the first one's weights."""
    only_here: tuple[Edge, ...]
    only_there: tuple[Edge, ...]
    spearman: float
    """Rank correlation of the weights of the shared edges; NaN where they are fewer than three."""

    @property
    def jaccard(self) -> float:
        """Shared edges, of those that either has; 1 for the same edges."""
        either = len(self.shared) + len(self.only_here) + len(self.only_there)
        return len(self.shared) / either if either else 1.0

    def __str__(self) -> str:
        return (
            f"{len(self.shared)} edges shared, {len(self.only_here)} only here, {len(self.only_there)} only there "
            f"(Jaccard {self.jaccard:.2f}); weights of the shared ones: rank correlation {self.spearman:.2f}"
        )


@dataclass(frozen=True)
class Graph:
    """Nodes and edges.

    >>> graph = Graph((Node("embed.out"), Node("logits")), (Edge("embed.out", "logits", 0.5),))
    >>> graph.incoming("logits")[0].weight
    0.5
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()
    unit: str = ""
    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the graph was made from: model, prompt, method."""

    def __post_init__(self) -> None:
        known = {n.site for n in self.nodes}
        for edge in self.edges:
            for end in (edge.sender, edge.receiver):
                if end not in known:
                    raise UnknownSite(
                        f'an edge names the node "{end}", which the graph does not have.{did_you_mean(end, known)}'
                    )

    def __getitem__(self, site: str) -> Node:
        if site not in self._index:
            raise UnknownSite(f'the graph has no node "{site}".{did_you_mean(site, self._index)}')
        return self._index[site]

    def __contains__(self, site: object) -> bool:
        return site in self._index

    @cached_property
    def _index(self) -> dict[str, Node]:
        return {n.site: n for n in self.nodes}

    def incoming(self, site: str) -> list[Edge]:
        """The edges into a node, strongest first."""
        return sorted((e for e in self.edges if e.receiver == self[site].site), key=lambda e: -abs(e.weight))

    def outgoing(self, site: str) -> list[Edge]:
        """The edges out of a node, strongest first."""
        return sorted((e for e in self.edges if e.sender == self[site].site), key=lambda e: -abs(e.weight))

    def top(self, n: int = 10) -> list[Node]:
        """The nodes with the largest values, in size."""
        return sorted(self.nodes, key=lambda node: -abs(node.value))[:n]

    def strongest(self, n: int | None = None, *, signed: bool = False) -> list[Edge]:
        """The first `n` edges by magnitude, or, `signed`, by weight: those that support the answer first.

        >>> ends = (Node("embed.out"), Node("logits"))
        >>> graph = Graph(ends, (Edge("embed.out", "logits", -0.5, "q"), Edge("embed.out", "logits", 0.2, "k")))
        >>> graph.strongest(1)[0].weight, graph.strongest(1, signed=True)[0].weight
        (-0.5, 0.2)
        """
        return sorted(self.edges, key=lambda e: -e.weight if signed else -abs(e.weight))[:n]

    def prune(self, share: float, *, signed: bool = False) -> Graph:
        """The strongest edges that together hold this share of all weight, and the nodes they join.

        Edges are ranked by magnitude; `signed` takes those of positive weight only, of whose sum the share is meant.
        """
        ranked = [e for e in self.strongest(signed=signed) if not signed or e.weight > 0]
        goal, held, kept = share * sum(abs(e.weight) for e in ranked), 0.0, []
        for edge in ranked:
            if held >= goal and kept:
                break
            kept.append(edge)
            held += abs(edge.weight)
        return self.only(kept)

    def only(self, edges: Iterable[Edge]) -> Graph:
        """The graph of some of its edges and the nodes they join."""
        chosen = tuple(edges)
        ends = {e.sender for e in chosen} | {e.receiver for e in chosen}
        return replace(self, nodes=tuple(n for n in self.nodes if n.site in ends), edges=chosen)

    def compare(self, other: Graph) -> Comparison:
        """Which edges two graphs share, and how alike their weights rank them.

        >>> ends = (Node("embed.out"), Node("logits"))
        >>> one = Graph(ends, (Edge("embed.out", "logits", 0.5, "q"), Edge("embed.out", "logits", 0.2, "k")))
        >>> one.compare(one.only(one.edges[:1])).jaccard
        0.5
        """
        mine, theirs = (g.facts.get("model", "") for g in (self, other))
        if mine and theirs and mine != theirs:
            raise UnknownSite(f"this graph is of {mine} and the other one of {theirs}; edges are compared within one model.")
        a, b = ({(e.sender, e.receiver, e.into): e for e in g.edges} for g in (self, other))
        both = [key for key in a if key in b]
        if a and b and not both and not {n.site for n in self.nodes} & {n.site for n in other.nodes}:
            raise UnknownSite("the two graphs have no node in common; are they of one model, and both by token or both pooled?")
        weights = torch.tensor([[graph[k].weight for k in both] for graph in (a, b)], dtype=torch.float64)
        ranks = rank_correlation(*weights) if len(both) > 2 else float("nan")
        return Comparison(tuple(a[k] for k in both), tuple(e for k, e in a.items() if k not in b),
                          tuple(e for k, e in b.items() if k not in a), ranks)  # fmt: skip

    def picture(self) -> Network:
        """Layers from the bottom up: feed-forward layers and the embedding in a column, heads beside; or, where nodes are of
        single tokens, a column a token."""
        drawn = tuple(Drawn(n.site, n.label or n.site, _height(n), _column(n), n.value, n.note) for n in self.nodes)
        edges = tuple((e.sender, e.receiver, e.weight) for e in self.edges)
        into = tuple(e.into if e.into in ("q", "k", "v") else "" for e in self.edges)
        return Network(drawn, edges, self.unit, self.title, into=into if any(into) else ())

    def show(self) -> None:
        """Draw in the terminal or notebook."""
        self.picture().show()

    def html(self) -> str:
        """One self-contained HTML page."""
        return self.picture().html()

    def __rich__(self):
        return self.picture().__rich__()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()

    def save(self, folder: str | Path) -> Path:
        """Write to a folder as a readable card."""
        from patchclamp.core import store

        return store.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Graph:
        """Read what `save` wrote."""
        from patchclamp.core import store

        return store.load(folder, cls)


def _height(node: Node) -> float:
    """Within a block: what comes in, queries, keys and values, heads, the feed-forward layer, what goes out."""
    site = Site.parse(node.site)
    if site.layer is None:
        return -1.0 if site.parts[0] == "embed" else 1e3
    part = next((p for p in ("mlp", "attn", "in", "out") if p in site.parts), "mid")
    if part == "attn" and site.parts[-1] in ("q", "k", "v"):
        return site.layer - 0.25
    return site.layer + {"in": -0.5, "attn": 0.0, "mid": 0.25, "mlp": 0.5, "out": 0.75}[part]


def _column(node: Node) -> float:
    site = Site.parse(node.site)
    pos = dict(site.index).get("pos")
    if isinstance(pos, int):
        return float(pos)
    return 1.0 if "attn" in site.parts or site.layer is None else 0.0
