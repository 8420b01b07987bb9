"""Choose: from a ranking of edges to a circuit. As few edges as do the work, and none that lead nowhere.

An edge out of a node that hears nothing, or into one that nobody listens to, changes nothing: its sender writes what it
writes in the corrupt run anyway. `living` leaves such edges out, at no cost. `smallest` looks for the size at which a ranking
is faithful enough, by doubling and halving. More edges are not always more faithful, so a smaller circuit may exist.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch

from patchclamp.circuit.edges import Question, kept
from patchclamp.circuit.faithful import AnyMetric, share
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.graph import Edge, Graph
from patchclamp.core.journal import leaf
from patchclamp.core.site import Site
from patchclamp.model.inputs import Prompt
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model
from patchclamp.model.wires import Wires

FEW = 8
"""The size of the first circuit that is tried."""


def ranked(ranking: Graph, signed: bool = False) -> list[Edge]:
    """Edges by magnitude; or, `signed`, by weight, those that support the answer first.

    >>> ends = "embed.out", "logits"
    >>> graph = Graph(tuple(map(pc.Node, ends)), (Edge(*ends, 1.0), Edge(*ends, -2.0)))
    >>> [e.weight for e in ranked(graph)], [e.weight for e in ranked(graph, signed=True)]
    ([-2.0, 1.0], [1.0, -2.0])
    """
    return sorted(ranking.edges, key=lambda e: -e.weight if signed else -abs(e.weight))


def living(model: Model, circuit: Graph) -> Graph:
    """The edges that lie on a way from the embedding to the logits. Running the circuit gives what it gave before.

    >>> from patchclamp.circuit.edges import edges
    >>> from patchclamp.circuit.eap import eap
    >>> ranking = edges(model, clean, corrupt, pc.logit_diff(" Mary", " John"), estimate=eap)
    >>> some = ranking.only(ranked(ranking)[:60])
    >>> len(living(model, some).edges) < 60
    True
    """
    wires = Wires.of(model)
    heard = _reached([wires.senders[0]], ((e.sender, s) for e in circuit.edges for s in _carried(wires, e.receiver)))
    listened = _reached(["logits"], ((s, e.sender) for e in circuit.edges for s in _carried(wires, e.receiver)))
    return circuit.only(
        e for e in circuit.edges if e.sender in heard and any(s in listened for s in _carried(wires, e.receiver))
    )


def smallest(model: Model, ranking: Graph, clean: Prompt, corrupt: Prompt, metric: AnyMetric, *, faithful: float = 0.9,
             signed: bool = False) -> Graph:  # fmt: skip
    """The strongest edges of a ranking, as few as keep this share of the answer, without those that lead nowhere.

    >>> from patchclamp.circuit.edges import edges
    >>> from patchclamp.circuit.eap import eap
    >>> metric = pc.logit_diff(" Mary", " John")
    >>> circuit = smallest(model, edges(model, clean, corrupt, metric, estimate=eap), clean, corrupt, metric)
    >>> 0 < len(circuit.edges) < 150
    True
    """
    if not 0 < faithful <= 1:
        raise WrongPrompt(f"faithful is the share of the answer that is to be kept, above 0 and up to 1; got {faithful}.")
    q, order = Question.of(model, clean, corrupt, metric), ranked(ranking, signed)
    page = leaf("sizes", lambda: (fingerprint(model), q.clean.tokens, q.corrupt.tokens, *q.ends, ranking.edges, signed))

    def enough(n: int) -> bool:
        if n not in page.known:
            page.write(n, torch.tensor(share(q, kept(q.wires, order[:n])), dtype=torch.float64))
        return float(page.known[n]) >= faithful

    high = FEW
    while high < len(order) and not enough(high):
        high *= 2
    low, high = high // 2 if high > FEW else 0, min(high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return living(model, ranking.only(order[:high]))


def _carried(wires: Wires, receiver: str) -> list[str]:
    """The senders whose output depends on a receiver's node: itself, or the heads that share a key or a value."""
    index = dict(Site.parse(receiver).index)
    if "kv_head" not in index:
        return [receiver]
    block = ".".join(map(str, Site.parse(receiver).parts[:2]))
    write = next(b for b in wires.blocks if b.path == block).write("attn")
    assert write is not None and isinstance(index["kv_head"], int)
    group = write.heads // write.kv_heads
    return [f"{block}.attn.z[head={h}]" for h in range(index["kv_head"] * group, (index["kv_head"] + 1) * group)]


def _reached(start: list[str], steps: Iterable[tuple[str, str]]) -> set[str]:
    """Every node that can be come to."""
    ways: dict[str, list[str]] = {}
    for one, other in steps:
        ways.setdefault(one, []).append(other)
    found, todo = set(start), deque(start)
    while todo:
        for other in ways.get(todo.popleft(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found
