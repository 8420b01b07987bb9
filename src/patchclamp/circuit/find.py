"""Find: the smallest circuit of a ranking that still does the work.

Edges are ranked by a weight (exact, EAP, EAP-IG), and the strongest are kept until the circuit alone gives the wanted share of
the answer (Syed et al. 2023; Hanna et al. 2024). Faithfulness need not grow with every edge (one that speaks against the
answer lowers it), so sizes are first tried on a growing scale, and bisection works between the last that fails and the first
that does. The circuit is the smallest found that way, not the smallest there is: `trimmed` takes out what is not missed.

An edge out of a node that hears nothing, or into one that nobody listens to, changes nothing: its sender writes what it
writes in the corrupt run anyway. `living` leaves such edges out, at no cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from patchclamp.circuit.edges import Estimator, Question, bare, edges, pos_of
from patchclamp.circuit.faithful import AnyMetric, share
from patchclamp.core.errors import PatchclampError, WrongPrompt
from patchclamp.core.graph import Graph
from patchclamp.core.journal import leaf
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.inputs import Prompt
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model
from patchclamp.model.wires import Wires

SCALE = 1.5
"""How much larger each size that is tried is than the one before."""


class NoCircuit(PatchclampError):
    """No circuit of the size allowed does enough of the work."""


def found(model: Model, clean: Prompt, corrupt: Prompt, metric: AnyMetric, *, ranking: Graph | Estimator, faithful: float = 0.9,
          largest: float = 0.15, signed: bool = False) -> Graph:  # fmt: skip
    """The fewest strongest edges of a ranking whose faithfulness reaches `faithful`.

    `ranking` is a graph of edges, or how they are to be weighed. `largest` is the share of all edges that the circuit may
    have; if it is not enough, an error tells how far it came. Edges are ranked by magnitude, or, `signed`, by weight.

    >>> from patchclamp.circuit.eap import eap
    >>> circuit = found(model, clean, corrupt, pc.logit_diff(" Mary", " John"), ranking=eap)
    >>> 0 < len(circuit.edges) < 0.15 * 1519
    True
    """
    if not 0 < faithful <= 1:
        raise WrongPrompt(f"faithful is the share of the answer that is to be kept, above 0 and up to 1; got {faithful}.")
    if not isinstance(ranking, Graph):
        ranking = edges(model, clean, corrupt, metric, estimate=ranking)
    ranked = ranking.strongest(signed=signed)
    q = Question.of(model, clean, corrupt, metric)
    total = int(q.all("pos=" in ranked[0].sender).sum()) if ranked else 0
    most = min(int(largest * total), len(ranked))
    page = leaf("sizes", lambda: (fingerprint(model), q.clean.tokens, q.corrupt.tokens, *q.ends, ranking.edges, signed))
    tried: dict[int, float] = {}

    def enough(size: int) -> bool:
        if size not in page.known:
            page.write(size, torch.tensor(share(q, q.kept(ranked[:size])), dtype=torch.float64))
        tried[size] = float(page.known[size])
        return tried[size] >= faithful

    size = _smallest(enough, most)
    if size is None:
        best = max(tried, key=lambda n: tried[n], default=0)
        told = f"the best kept {tried[best]:.1%} of the answer ({best} edges)" if tried else "the ranking has no edges"
        raise NoCircuit(
            f"no circuit of up to {largest:.0%} of the {total} edges reaches {faithful:.0%}: {told}. "
            "Allow a larger one with largest=, or rank by another estimate."
        )
    how = "by weight" if signed else "by magnitude"
    facts = {**ranking.facts, "circuit": f"{size} strongest edges {how}", "faithfulness": f"{tried[size]:.3f}"}
    return replace(ranking.only(ranked[:size]), facts=facts, title=f"Circuit of {size} edges, {tried[size]:.0%} of the answer")


def trimmed(model: Model, circuit: Graph, clean: Prompt, corrupt: Prompt, metric: AnyMetric, *, faithful: float = 0.9) -> Graph:
    """The circuit without the edges that are not missed: tried from the weakest on, each stays out while it stays faithful."""
    q = Question.of(model, clean, corrupt, metric)
    kept = list(circuit.edges)
    for edge in progress(sorted(circuit.edges, key=lambda e: abs(e.weight)), label="trimming"):
        less = [e for e in kept if e is not edge]
        if share(q, q.kept(less)) >= faithful:
            kept = less
    last = share(q, q.kept(kept))
    facts = {**circuit.facts, "trimmed": f"from {len(circuit.edges)} to {len(kept)} edges", "faithfulness": f"{last:.3f}"}
    return replace(circuit.only(kept), facts=facts, title=f"Circuit of {len(kept)} edges, {last:.0%} of the answer")


def living(model: Model, circuit: Graph) -> Graph:
    """The edges that lie on a way from the embedding to the logits. Running the circuit gives what it gave before.

    >>> from patchclamp.circuit.edges import edges
    >>> from patchclamp.circuit.eap import eap
    >>> ranking = edges(model, clean, corrupt, pc.logit_diff(" Mary", " John"), estimate=eap)
    >>> some = ranking.only(ranking.strongest(60))
    >>> len(living(model, some).edges) < 60
    True
    """
    wires = Wires.of(model)
    senders = {e.sender for e in circuit.edges}
    steps = [(e.sender, s) for e in circuit.edges for s in _carried(wires, e.receiver, senders)]
    heard = _reached((s for s in senders if bare(s) == wires.senders[0]), steps)
    ends = {e.receiver for e in circuit.edges if bare(e.receiver) == "logits"}
    listened = _reached(ends, ((to, by) for by, to in steps))
    return circuit.only(
        e for e in circuit.edges if e.sender in heard and any(s in listened for s in _carried(wires, e.receiver, senders))
    )


def _carried(wires: Wires, receiver: str, senders: set[str]) -> list[str]:
    """The nodes whose output depends on a receiver: itself, or the heads that share a key or a value and can see it."""
    site = Site.parse(receiver)
    if site.parts[-1] not in ("k", "v"):
        return [receiver]
    index, block = dict(site.index), ".".join(map(str, site.parts[:2]))
    write = next(b for b in wires.blocks if b.path == block).write("attn")
    assert write is not None and isinstance(index["kv_head"], int)
    group = write.heads // write.kv_heads
    sharing = {f"{block}.attn.z[head={h}]" for h in range(index["kv_head"] * group, (index["kv_head"] + 1) * group)}
    first = (pos_of(receiver) or 0) if wires.model.anatomy.main.causal else 0
    return [s for s in senders if bare(s) in sharing and ((at := pos_of(s)) is None or at >= first)]


def _reached(start: Iterable[str], steps: Iterable[tuple[str, str]]) -> set[str]:
    """Every node that can be come to."""
    ways: dict[str, list[str]] = {}
    for one, other in steps:
        ways.setdefault(one, []).append(other)
    found = set(start)
    todo = deque(found)
    while todo:
        for other in ways.get(todo.popleft(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def _smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest size that is enough, between the last that fails and the first that does on a growing scale."""
    low, high = 0, None
    size = 1
    while high is None:
        size = min(size, most)
        if size and enough(size):
            high = size
        elif size >= most:
            return None
        else:
            low, size = size, max(size + 1, int(size * SCALE))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
