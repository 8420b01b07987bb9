"""Edges: how much the answer depends on what one part of a model tells another.

An edge is a wire of the stream (`model/wires.py`): what a sender writes, as one receiver reads it. Its weight is the metric of
the clean run minus the metric of the clean run with this one wire carrying what it carries in the corrupt run; a positive
edge supports the answer. `estimate` says how the weights are found: one by one (`exact`), or all at once from gradients
(`eap.py`). Every cell of an edge's effect passes through everything downstream of its receiver.

With `positions`, a wire is told apart token by token: what a sender writes at one token, as a receiver reads it there. A
head's keys and values at a token are then nodes of their own, since its queries at every later token hear them.

What an edge's weight does not say: whether other edges would stand in for it. Circuits are judged in `faithful.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
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

_POS = re.compile(r"(?:\[|, )pos=(-?\d+)\]$")
Weights = Float[Tensor, "receiver sender *pos"]
"""What each wire matters; with `positions`, at each token."""


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
    positions: bool = False
    """Whether edges are told apart token by token."""

    @classmethod
    def of(cls, model: Model, clean: Prompt, corrupt: Prompt, metric: Metric | Callable[[Logits], PerPrompt],
           positions: bool = False) -> Question:  # fmt: skip
        wires = Wires.of(model)
        ours, theirs = model.inputs(clean), model.inputs(corrupt)
        since = comparable(ours, theirs)
        run, other = model.run(ours, wires.sites), model.run(theirs, wires.sites)
        if run.output is None:
            raise Unserved(f"{model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
        written = wires.written(run), wires.written(other)
        return cls(model, wires, ours, theirs, since, model.metric(metric, run), *written, run.logits, other.logits,
                   positions)  # fmt: skip

    @property
    def length(self) -> int:
        """How many tokens a prompt has."""
        return self.clean.tokens.shape[1]

    @property
    def start(self) -> int:
        """The first token at which a cut can change anything."""
        return self.since if self.model.anatomy.main.causal else 0

    def table(self) -> Weights:
        """A weight of zero for every edge."""
        return torch.zeros(*self.wires.joined.shape, *((self.length,) if self.positions else ()))

    def all(self, positions: bool | None = None) -> Bool[Tensor, "receiver sender *pos"]:
        """Every edge that can matter: with positions, those at tokens from the first differing one on."""
        if not (self.positions if positions is None else positions):
            return self.wires.joined
        return self.wires.joined[..., None] & (torch.arange(self.length) >= self.start)

    def kept(self, edges: Iterable[Edge]) -> Cut:
        """The cut that leaves only these edges whole."""
        return kept(self.wires, edges, self.length)

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
    found = q.table()
    base = q.ends[0].mean()
    readers = q.wires.heard(q.clean, q.theirs - q.ours)
    for reader, values in progress(readers, total=len(q.wires.readers), label="edges"):
        cells, seats = _cells(q, reader, values)
        for seat, each in zip(seats, measure(q.model, q.clean, cells, q.metric, "edges")):
            found[seat] = base - each.mean()
    return found


def edges(model: Model, clean: Prompt, corrupt: Prompt, metric: Metric | Callable[[Logits], PerPrompt],
          *, estimate: Estimator = exact, positions: bool = False) -> Graph:  # fmt: skip
    """Every edge of a model with its weight: how much the metric falls when this edge alone carries the corrupt run's value.

    Nodes are the embedding, heads, feed-forward layers and the logits; an edge says which input of a head it enters (`q`,
    `k`, `v`). Under grouped-query attention the keys and values of a group are nodes of their own. In the unit of the metric.
    With `positions` every token has edges of its own (`blocks.3.attn.z[head=2, pos=5]`).

    Goldowsky-Dill et al. 2023, "path patching"; Conmy et al. 2023. `estimate=eap` for all of them at once.

    >>> from patchclamp.circuit.edges import edges
    >>> from patchclamp.circuit.eap import eap
    >>> graph = edges(model, clean, corrupt, pc.logit_diff(" Mary", " John"), estimate=eap)
    >>> len(graph.edges)
    1519
    """
    q = Question.of(model, clean, corrupt, metric, positions)
    what, unit = called(metric)
    method = getattr(estimate, "__name__", type(estimate).__name__)
    facts = {"model": model.name, "method": method, "metric": what, "prompts": str(q.clean.batch)}
    return graph_of(q.wires, estimate(q), unit, f"Edges for the {what}", facts)


def graph_of(wires: Wires, weights: Weights, unit: str = "", title: str = "", facts: dict[str, str] | None = None) -> Graph:
    """Weights of wires as a graph, every joined pair an edge, or one at every token where weights have that axis."""
    made = []
    at: list[int | None] = [None] if weights.ndim == 2 else list(range(weights.shape[2]))
    senders = {pos: [_at(s, pos) for s in wires.senders] for pos in at}
    for r, receiver in enumerate(wires.receivers):
        heard = wires.joined[r].nonzero()[:, 0].tolist()
        for pos in at:
            node, into = end(wires, receiver, pos)
            row = (weights[r] if pos is None else weights[r, :, pos]).tolist()
            made += [Edge(senders[pos][s], node, row[s], into) for s in heard]
    ends = dict.fromkeys([*(site for some in senders.values() for site in some), *(e.receiver for e in made)])
    nodes = tuple(Node(site, label=label(site)) for site in sorted(ends, key=lambda site: _height(wires, site)))
    return Graph(nodes, tuple(made), unit, title, facts or {})


def end(wires: Wires, receiver: str, pos: int | None = None) -> tuple[str, str]:
    """The node that a receiver belongs to, and which input of it that is; at one token, if there is a `pos`.

    >>> from patchclamp.model.wires import Wires
    >>> end(Wires.of(model), "blocks.2.attn.k[kv_head=5]")
    ('blocks.2.attn.z[head=5]', 'k')
    >>> end(Wires.of(model), "blocks.2.attn.k[kv_head=5]", pos=3)
    ('blocks.2.attn.k[kv_head=5, pos=3]', 'k')
    """
    site = Site.parse(receiver)
    block = ".".join(map(str, site.parts[:2]))
    if receiver == "logits":
        return _at(receiver, pos), ""
    if site.parts[-1] == "in":
        return _at(f"{block}.mlp.out", pos), "mlp"
    write = next(b for b in wires.blocks if b.path == block).write("attn")
    assert write is not None
    kind, index = str(site.parts[-1]), dict(site.index)
    if kind != "q" and (write.kv_heads != write.heads or pos is not None):
        return _at(receiver, pos), kind
    return _at(f"{block}.attn.z[head={index.get('head', index.get('kv_head'))}]", pos), kind


def _at(site: str, pos: int | None) -> str:
    if pos is None:
        return site
    return f"{site[:-1]}, pos={pos}]" if site.endswith("]") else f"{site}[pos={pos}]"


def kept(wires: Wires, edges: Iterable[Edge], length: int = 0) -> Cut:
    """The cut (receiver, sender) that leaves only these edges whole; with a pos too, where the edges are of single tokens.

    `length` is how many tokens the prompts have, which edges of single tokens need.
    """
    edges = list(edges)
    at = [pos_of(e.sender) for e in edges]
    single = any(pos is not None for pos in at)
    seats = {end(wires, receiver): r for r, receiver in enumerate(wires.receivers)}
    if single:
        seats |= {end(wires, receiver, -1): r for r, receiver in enumerate(wires.receivers)}
    senders = {site: s for s, site in enumerate(wires.senders)}
    cut = wires.joined.float()
    if single:
        cut = cut[..., None].repeat(1, 1, length)
    for edge, pos in zip(edges, at):
        sender = edge.sender if pos is None else bare(edge.sender)
        key = (edge.receiver if pos is None else _at(bare(edge.receiver), -1), edge.into)
        r, s = seats.get(key), senders.get(sender)
        if r is None or s is None or not wires.joined[r, s] or (pos is None) == single or pos != pos_of(edge.receiver):
            unknown = sender if s is None else edge.receiver
            raise UnknownSite(
                f"{wires.model.name} has no edge {name(edge)}; "
                f"was this graph made from another model?{did_you_mean(unknown, [*senders, *(n for n, _ in seats)])}"
            )
        if pos is not None and pos >= length:
            raise UnknownSite(f"{name(edge)} is at token {pos}, and the prompts have {length}; was it found on longer ones?")
        cut[r, s, ...] = 0 if pos is None else cut[r, s].index_fill(0, torch.tensor(pos), 0)
    return cut


def pos_of(site: str) -> int | None:
    """The token of a node; None where it is of all of them."""
    found = _POS.search(site)
    return int(found[1]) if found else None


def bare(site: str) -> str:
    """A node without its token.

    >>> bare("blocks.3.attn.z[head=2, pos=5]"), bare("logits[pos=5]")
    ('blocks.3.attn.z[head=2]', 'logits')
    """
    return _POS.sub(lambda m: "]" if m[0].startswith(",") else "", site)


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
    at = f" @{index['pos']}" if "pos" in index else ""
    if parsed.layer is None:
        return f"{parsed.parts[0]}{at}"
    for unit in ("neuron", "latent"):
        if unit in index:
            return f"{parsed.layer} {unit} {index[unit]}{at}"
    if "mlp" in parsed.parts:
        return f"MLP {parsed.layer}{at}"
    if "kv_head" in index:
        return f"{parsed.layer} {parsed.parts[-1]} {index['kv_head']}{at}"
    return f"{parsed.layer}.{index['head']}{at}" if "head" in index else f"embedding{at}"


def _height(wires: Wires, site: str) -> float:
    pooled = bare(site)
    if pooled in wires.senders:
        return wires.senders.index(pooled)
    layer = Site.parse(pooled).layer
    if layer is None:
        return 1e9
    return wires.senders.index(next(s for s in wires.senders if s.startswith(f"blocks.{layer}."))) - 0.5


def _cells(q: Question, reader: Reader, values: dict[str, Tensor]) -> tuple[list[Cell], list[tuple[int, ...]]]:
    """One cell for every wire of a reader, or one at every token, and where in the table its weight goes."""
    block = q.wires.blocks[reader.block].path
    at: list[int | None] = list(range(q.start, q.length)) if q.positions else [None]
    cells, seats = [], []
    for row, kind, head in zip(reader.rows, reader.kinds, reader.heads):
        path = f"{block}.attn.{kind}" if kind != "in" else f"{block}.mlp.in" if reader.write else f"{block}.out"
        index = {} if kind == "in" else {"head" if kind == "q" else "kv_head": head}
        for sender in range(reader.before):
            value = values[kind][sender] if kind == "in" else values[kind][sender][:, :, head]
            for pos in at:
                edit = Edit(Site.parse(path).at(**index), _put, "put", {"value": value, "pos": pos})
                cells.append(Cell(((path, edit),), q.start if pos is None else pos))
                seats.append((row, sender) if pos is None else (row, sender, pos))
    return cells, seats


def _put(here_value: Tensor, here: Here, value: Tensor, pos: int | None) -> Tensor:
    """The tokens of `value` that are now being computed; or only one of them."""
    window = here.windows.get("pos")
    start = 0 if window is None else window.start
    if window is not None:
        value = value[:, start : start + here_value.shape[1]]
    if pos is None:
        return value.to(here_value.dtype)
    made = here_value.clone()
    made[:, pos - start] = value[:, pos - start].to(made.dtype)
    return made
