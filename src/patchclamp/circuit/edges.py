"""Edges: how much the answer depends on what one part of a model tells another.

An edge is a wire of the stream (`model/wires.py`): what a sender writes, as one receiver reads it. Its weight is the metric of
the clean run minus the metric of the clean run with this one wire carrying what it carries in the corrupt run; a positive
edge supports the answer. `estimate` says how the weights are found: one by one (`exact`), or all at once from gradients
(`eap.py`). Every cell of an edge's effect passes through everything downstream of its receiver.

What an edge's weight does not say: whether other edges would stand in for it. Circuits are judged in `faithful.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import Logits, PerPrompt
from patchclamp.core.edit import Edit, Here
from patchclamp.core.errors import UnknownSite, Unserved, did_you_mean
from patchclamp.core.graph import Edge, Graph, Node
from patchclamp.core.metric import Metric, called, read
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.comparable import comparable
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.measure import measure
from patchclamp.model.model import Model
from patchclamp.model.ride import Cell
from patchclamp.model.wires import Cut, Reader, Wires, Written

Weights = Float[Tensor, "receiver sender"]


@dataclass(frozen=True, eq=False)
class Question:
    """What every method of this room is given: a model, its wires, the two batches of prompts, and the metric."""

    model: Model
    wires: Wires
    clean: Inputs
    corrupt: Inputs
    since: int
    """The first token in which the two differ."""
    metric: Callable[[Logits], PerPrompt]
    ours: Written
    """What every sender writes in the clean run."""
    theirs: Written
    """What it writes in the corrupt run: what a cut wire carries."""
    logits: Logits
    """The clean run's."""
    corrupt_logits: Logits

    @classmethod
    def of(cls, model: Model, clean: Prompt, corrupt: Prompt, metric: Metric | Callable[[Logits], PerPrompt]) -> Question:
        wires = Wires.of(model)
        ours, theirs = model.inputs(clean), model.inputs(corrupt)
        since = comparable(ours, theirs)
        run, other = model.run(ours, wires.sites), model.run(theirs, wires.sites)
        if run.output is None:
            raise Unserved(f"{model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
        written = wires.written(run), wires.written(other)
        return cls(model, wires, ours, theirs, since, model.metric(metric, run), *written, run.logits, other.logits)

    def read(self, logits: Logits) -> PerPrompt:
        """The metric of each prompt, for keeping."""
        return read(self.metric, logits, self.clean.batch)

    @cached_property
    def ends(self) -> tuple[PerPrompt, PerPrompt]:
        """The metric of the clean and of the corrupt run."""
        return self.read(self.logits), self.read(self.corrupt_logits)

    def cut(self, cut: Cut) -> PerPrompt:
        """The metric with wires cut: each carries what it carried in the corrupt run."""
        return self.read(self.wires.run(self.clean, self.theirs, cut))


Estimator = Callable[[Question], Weights]
"""Gives the weight of every wire, averaged over prompts."""


def exact(q: Question) -> Weights:
    """Edge patching: every wire by itself. What its receiver then reads comes out of the model's own norm and attention."""
    found = torch.zeros(len(q.wires.receivers), len(q.wires.senders))
    base = q.ends[0].mean()
    readers = q.wires.heard(q.clean, q.theirs - q.ours)
    for reader, values in progress(readers, total=len(q.wires.readers), label="edges"):
        cells, seats = _cells(q, reader, values)
        for seat, each in zip(seats, measure(q.model, q.clean, cells, q.metric, "edges")):
            found[seat] = base - each.mean()
    return found


def edges(model: Model, clean: Prompt, corrupt: Prompt, metric: Metric | Callable[[Logits], PerPrompt],
          *, estimate: Estimator = exact) -> Graph:  # fmt: skip
    """Every edge of a model with its weight: how much the metric falls when this edge alone carries the corrupt run's value.

    Nodes are the embedding, heads, feed-forward layers and the logits; an edge says which input of a head it enters (`q`,
    `k`, `v`). Under grouped-query attention the keys and values of a group are nodes of their own. In the unit of the metric.

    Goldowsky-Dill et al. 2023, "path patching"; Conmy et al. 2023. `estimate=eap` for all of them at once.

    >>> from patchclamp.circuit.edges import edges
    >>> from patchclamp.circuit.eap import eap
    >>> graph = edges(model, clean, corrupt, pc.logit_diff(" Mary", " John"), estimate=eap)
    >>> len(graph.edges)
    1519
    """
    q = Question.of(model, clean, corrupt, metric)
    what, unit = called(metric)
    method = getattr(estimate, "__name__", type(estimate).__name__)
    facts = {"model": model.name, "method": method, "metric": what, "prompts": str(q.clean.batch)}
    return graph_of(q.wires, estimate(q), unit, f"Edges for the {what}", facts)


def graph_of(wires: Wires, weights: Weights, unit: str = "", title: str = "", facts: dict[str, str] | None = None) -> Graph:
    """Weights of wires as a graph, every joined pair an edge."""
    made = tuple(
        Edge(wires.senders[s], node, float(weights[r, s]), into)
        for r, receiver in enumerate(wires.receivers)
        for node, into in [end(wires, receiver)]
        for s in wires.joined[r].nonzero()[:, 0].tolist()
    )
    ends = dict.fromkeys([*wires.senders, *(e.receiver for e in made)])
    nodes = tuple(Node(site, label=label(site)) for site in sorted(ends, key=lambda site: _height(wires, site)))
    return Graph(nodes, made, unit, title, facts or {})


def end(wires: Wires, receiver: str) -> tuple[str, str]:
    """The node that a receiver belongs to, and which input of it that is.

    >>> from patchclamp.model.wires import Wires
    >>> end(Wires.of(model), "blocks.2.attn.k[kv_head=5]")
    ('blocks.2.attn.z[head=5]', 'k')
    """
    site = Site.parse(receiver)
    block = ".".join(map(str, site.parts[:2]))
    if receiver == "logits":
        return receiver, ""
    if site.parts[-1] == "in":
        return f"{block}.mlp.out", "mlp"
    write = next(b for b in wires.blocks if b.path == block).write("attn")
    assert write is not None
    if site.parts[-1] != "q" and write.kv_heads != write.heads:
        return receiver, str(site.parts[-1])
    return f"{block}.attn.z[head={dict(site.index).get('head', dict(site.index).get('kv_head'))}]", str(site.parts[-1])


def kept(wires: Wires, edges: Iterable[Edge]) -> Cut:
    """The cut (receiver, sender) that leaves only these edges whole."""
    seats = {end(wires, receiver): r for r, receiver in enumerate(wires.receivers)}
    senders = {site: s for s, site in enumerate(wires.senders)}
    cut = wires.joined.float()
    for edge in edges:
        r, s = seats.get((edge.receiver, edge.into)), senders.get(edge.sender)
        if r is None or s is None or not wires.joined[r, s]:
            unknown = edge.sender if s is None else edge.receiver
            raise UnknownSite(
                f"{wires.model.name} has no edge {name(edge)}; "
                f"was this graph made from another model?{did_you_mean(unknown, [*senders, *(n for n, _ in seats)])}"
            )
        cut[r, s] = 0
    return cut


def name(edge: Edge) -> str:
    """An edge as text.

    >>> name(Edge("blocks.0.in", "blocks.1.attn.z[head=2]", 0.5, "q"))
    'blocks.0.in -> blocks.1.attn.z[head=2] q'
    """
    return f"{edge.sender} -> {edge.receiver}{f' {edge.into}' if edge.into else ''}"


def label(site: str) -> str:
    """What people call a node.

    >>> label("blocks.9.attn.z[head=6]"), label("blocks.3.mlp.out"), label("blocks.0.in")
    ('9.6', 'MLP 3', 'embedding')
    """
    parsed = Site.parse(site)
    index = dict(parsed.index)
    if parsed.layer is None:
        return site
    if "mlp" in parsed.parts:
        return f"MLP {parsed.layer}"
    if "kv_head" in index:
        return f"{parsed.layer} {parsed.parts[-1]} {index['kv_head']}"
    return f"{parsed.layer}.{index['head']}" if "head" in index else "embedding"


def _height(wires: Wires, site: str) -> float:
    if site in wires.senders:
        return wires.senders.index(site)
    layer = Site.parse(site).layer
    return (
        1e9 if layer is None else wires.senders.index(next(s for s in wires.senders if s.startswith(f"blocks.{layer}."))) - 0.5
    )


def _cells(q: Question, reader: Reader, values: dict[str, Tensor]) -> tuple[list[Cell], list[tuple[int, int]]]:
    """One cell for every wire of a reader, and where in the table its weight goes."""
    block = q.wires.blocks[reader.block].path
    start = q.since if q.model.anatomy.main.causal else 0
    cells, seats = [], []
    for row, kind, head in zip(reader.rows, reader.kinds, reader.heads):
        path = f"{block}.attn.{kind}" if kind != "in" else f"{block}.mlp.in" if reader.write else f"{block}.out"
        index = {} if kind == "in" else {"head" if kind == "q" else "kv_head": head}
        for sender in range(reader.before):
            value = values[kind][sender] if kind == "in" else values[kind][sender][:, :, head]
            edit = Edit(Site.parse(path).at(**index), _put, "put", {"value": value})
            cells.append(Cell(((path, edit),), start))
            seats.append((row, sender))
    return cells, seats


def _put(here_value: Tensor, here: Here, value: Tensor) -> Tensor:
    """The tokens of `value` that are now being computed."""
    window = here.windows.get("pos")
    return value if window is None else value[:, window.start : window.start + here_value.shape[1]].to(here_value.dtype)
