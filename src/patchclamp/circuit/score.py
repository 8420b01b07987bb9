"""Score: how well a ranking of edges finds a circuit that is known, beside what chance and mere loudness would find.

Of one edge in the circuit and one outside it, drawn by lot, the area under the ROC curve (AUROC) is how often the first is
ranked higher, a tie counting half: 1 is perfect, 0.5 is chance, whatever the circuit's size. The average precision is the
share of true edges among those ranked at least as high as a true edge, averaged over true edges: it also minds how few the
true ones are. A method that takes a threshold (ACDC) becomes a ranking by its sweep: an edge is worth the largest threshold
at which it survives. A node is worth the strongest edge that leaves it.

What no score says: whether the strongest edges do the work (`faithful.py`). And a true edge that no pair of prompts can show,
since what it carries is the same in all of them, counts against every method: score by `Compiled.varying`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchclamp.circuit.edges import Question, Weights, name
from patchclamp.core.errors import UnknownSite, WrongPrompt
from patchclamp.core.graph import Edge, Graph
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.core.uncertain import auroc

Key = tuple[str, str, str]
"""Sender, receiver, and which of its inputs."""


@dataclass(frozen=True)
class Score:
    """How well a ranking finds what is known to be there."""

    auroc: float
    precision: float
    """Average precision; by chance it is about `true / all`."""
    true: int
    all: int

    def __str__(self) -> str:
        return f"AUROC {self.auroc:.3f}, average precision {self.precision:.3f} ({self.true} true of {self.all})"


def score(ranking: Graph, truth: Graph, signed: bool = False) -> Score:
    """Score a ranking that has every edge of a model; by magnitude, or, `signed`, by weight.

    >>> from patchclamp.circuit.compile import compile
    >>> from patchclamp.circuit.edges import edges
    >>> from patchclamp.circuit.programs import histogram
    >>> from patchclamp.circuit.score import score
    >>> made = compile(histogram(), junk=2)
    >>> pairs = made.pairs(8)
    >>> print(score(edges(pc.load(made.hf), pairs.clean, pairs.corrupt, pairs.metric), made.varying))
    AUROC 1.000, average precision 1.000 (4 true of 18)
    """
    known = {_key(edge) for edge in truth.edges}
    every = {_key(edge): edge.weight if signed else abs(edge.weight) for edge in ranking.edges}
    if missing := [edge for edge in truth.edges if _key(edge) not in every]:
        raise UnknownSite(
            f"the ranking has no edge {name(missing[0])}, which is in the circuit. Score a ranking of every edge, as `edges` "
            "and `swept` make it; and of the same model."
        )
    return _scored(list(every.values()), [key in known for key in every])


def score_nodes(ranking: Graph, truth: Graph) -> Score:
    """The same for heads and feed-forward layers: each is worth the largest magnitude among the edges that leave it."""
    worth: dict[str, float] = {}
    for edge in ranking.edges:
        if Site.parse(edge.sender).parts[-1] != "in":  # the embedding is in every circuit
            worth[edge.sender] = max(worth.get(edge.sender, 0.0), abs(edge.weight))
    known = {edge.sender for edge in truth.edges}
    return _scored(list(worth.values()), [site in known for site in worth])


def pooled(graph: Graph) -> Graph:
    """One edge for each pair of nodes, as strong as the strongest of those into a head's query, key and value."""
    strongest: dict[tuple[str, str], Edge] = {}
    for edge in graph.edges:
        pair = edge.sender, edge.receiver
        if pair not in strongest or abs(edge.weight) > abs(strongest[pair].weight):
            strongest[pair] = edge
    return replace(graph, edges=tuple(replace(edge, into="") for edge in strongest.values()))


def swept(find: Callable[[float], Graph], thresholds: Iterable[float], every: Graph) -> Graph:
    """A method that takes a threshold as a ranking: each edge of `every` with the largest threshold at which it survives.

    An edge that survives none weighs 0. `every` is any graph that names all edges of the model.
    """
    survived: dict[Key, float] = {}
    for threshold in progress(sorted(thresholds), label="thresholds"):
        survived.update({_key(edge): threshold for edge in find(threshold).edges})
    ranked = tuple(replace(edge, weight=survived.get(_key(edge), 0.0)) for edge in every.edges)
    return replace(every, edges=ranked, unit="threshold", title="Edges by the threshold at which they go")


def average_precision(values: Sequence[float] | Float[Tensor, " n"], true: Sequence[bool] | Bool[Tensor, " n"]) -> float:
    """The share of true ones among all that are valued at least as highly, averaged over true ones; ties go together.

    >>> average_precision([3.0, 2.0, 2.0, 1.0], [True, True, False, False])
    0.833...
    """
    values, true = torch.as_tensor(values, dtype=torch.float64), torch.as_tensor(true)
    _both(true)
    above = values[None] >= values[true][:, None]
    return float((above[:, true].sum(1) / above.sum(1)).double().mean())


# ---- baselines: what a ranking is worth that knows nothing of the answer ---------------------------------------------


def chance(seed: int = 0) -> Callable[[Question], Weights]:
    """An estimate that is drawn by lot."""

    def estimate(q: Question) -> Weights:
        return torch.rand(q.wires.joined.shape, generator=torch.Generator().manual_seed(seed))

    estimate.__name__ = f"chance({seed})"
    return estimate


def magnitude(q: Question) -> Weights:
    """How much louder a sender is between the runs, times the size of the matrix that its receiver reads with.

    Whether the two have a direction in common, and what the answer is, it does not ask.
    """
    said = (q.ours - q.theirs).float().norm(dim=-1).mean((1, 2)).cpu()
    return _reading(q)[:, None] * said[None]


def _reading(q: Question) -> Float[Tensor, " receiver"]:
    """The Frobenius norm of what each receiver reads with."""
    found = []
    for receiver in q.wires.receivers:
        site = Site.parse(receiver)
        block, letter = ".".join(map(str, site.parts[:-1])), str(site.parts[-1]).upper()
        weight = "logits.W_U" if receiver == "logits" else f"{block}.W_{'in' if letter == 'IN' else letter}"
        found.append(q.model.weights[Site.parse(weight).at(**dict(site.index))].float().norm().cpu())
    return torch.stack(found)


def _key(edge: Edge) -> Key:
    return edge.sender, edge.receiver, edge.into


def _scored(values: Sequence[float], true: Sequence[bool]) -> Score:
    worth, inside = torch.tensor(values, dtype=torch.float64), torch.tensor(true)
    precision = average_precision(worth, inside)
    return Score(auroc(worth[inside], worth[~inside]), precision, sum(true), len(true))


def _both(true: Tensor) -> None:
    """With nothing to be told apart there is no score."""
    if bool(true.all()) or not bool(true.any()):
        raise WrongPrompt(
            f"{int(true.sum())} of {len(true)} are in the circuit, and a score needs some inside and some outside; "
            "compile with junk=."
        )
