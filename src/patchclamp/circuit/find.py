"""Find: the smallest circuit of a ranking that still does the work.

Edges are ranked by a weight (exact, EAP, EAP-IG), and the strongest are kept until the circuit alone gives the wanted share of
the answer (Syed et al. 2023; Hanna et al. 2024). Faithfulness need not grow with every edge (one that speaks against the
answer lowers it), so sizes are first tried on a growing scale, and bisection works between the last that fails and the first
that does. The circuit is the smallest found that way, not the smallest there is: `trimmed` takes out what is not missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from patchclamp.circuit.edges import Estimator, Question, edges
from patchclamp.circuit.faithful import AnyMetric, share
from patchclamp.core.errors import PatchclampError
from patchclamp.core.graph import Edge, Graph
from patchclamp.core.progress import progress
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model

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
    if not isinstance(ranking, Graph):
        ranking = edges(model, clean, corrupt, metric, estimate=ranking)
    ranked = ranking.strongest(signed=signed)
    q = Question.of(model, clean, corrupt, metric)
    total = int(q.all("pos=" in ranked[0].sender).sum()) if ranked else 0
    most = min(int(largest * total), len(ranked))
    tried: dict[int, float] = {}

    def enough(size: int) -> bool:
        if size not in tried:
            tried[size] = share(q, q.kept(ranked[:size]))
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


def connected(circuit: Graph) -> Graph:
    """The edges of a circuit on some way from its lowest nodes to the logits; what leads nowhere, or comes from nowhere, goes.

    An edge may be strong although nothing in the circuit reaches its sender: what the sender does by itself differs too. Such
    edges do not change what the circuit computes from the embedding on.
    """
    edges = list(circuit.edges)
    while True:
        fed = {e.receiver for e in edges} | {n.site for n in circuit.nodes if _is_embedding(n.site)}
        heard = {e.sender for e in edges} | {n.site for n in circuit.nodes if n.site.startswith("logits")}
        kept: list[Edge] = [e for e in edges if e.sender in fed and e.receiver in heard]
        if len(kept) == len(edges):
            return circuit.only(kept)
        edges = kept


def _is_embedding(site: str) -> bool:
    return site.partition("[")[0].endswith(".in")


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
