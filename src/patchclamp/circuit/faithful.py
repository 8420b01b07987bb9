"""Is it the circuit? Faithfulness, completeness, minimality, and the comparison with random circuits of the same size.

A circuit is a graph of edges; running it means that every other edge of the model carries what it carries in the corrupt
run. Its faithfulness is the share of the gap between the corrupt and the clean metric that is then still there (Wang et al.
2022). A complete circuit leaves nothing outside: what remains with the circuit itself cut is small. A minimal one has no
edge that could go. Many circuits of one ranking make a curve, whose area is CPR and whose distance from the whole model is
CMD (the Mechanistic Interpretability Benchmark, Mueller et al. 2025).

CPR has no upper end (a circuit can do better than the model by leaving out what speaks against the answer), so CMD is always
given with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from patchclamp.circuit.edges import Question, name
from patchclamp.core.axes import Logits, PerPrompt
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.graph import Edge, Graph
from patchclamp.core.grid import Grid
from patchclamp.core.journal import remembered
from patchclamp.core.metric import Metric
from patchclamp.model.inputs import Prompt
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model
from patchclamp.model.wires import Cut

AnyMetric = Metric | Callable[[Logits], PerPrompt]
SHARES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of all edges at which the benchmark evaluates a ranking."""


@dataclass(frozen=True)
class Verdict:
    """How good a circuit is, as shares of the gap between the corrupt run (0) and the clean run (1)."""

    edges: int
    share: float
    """Edges of the circuit, of all edges of the model."""
    faithfulness: float
    """What is left of the answer when only the circuit is whole."""
    complement: float
    """What is left when only the circuit is cut; small for a complete circuit."""
    random: tuple[float, ...]
    """The faithfulness of circuits of as many edges, drawn by lot."""

    @property
    def p_value(self) -> float:
        """How often a random circuit of equal size does as well, counting this circuit as one of them."""
        return (1 + sum(r >= self.faithfulness for r in self.random)) / (1 + len(self.random))

    def __str__(self) -> str:
        others = f"{max(self.random):.1%} at best of {len(self.random)} random ones" if self.random else "no random ones tried"
        return (
            f"{self.edges} edges ({self.share:.1%} of all): {self.faithfulness:.1%} of the answer; "
            f"without them {self.complement:.1%}; {others}"
        )


def judge(model: Model, circuit: Graph, clean: Prompt, corrupt: Prompt, metric: AnyMetric, *, random: int = 10,
          seed: int = 0) -> Verdict:  # fmt: skip
    """Run a circuit by itself, the model without it, and random circuits of equal size.

    >>> from patchclamp.circuit.acdc import acdc
    >>> metric = pc.logit_diff(" Mary", " John")
    >>> found = judge(model, acdc(model, clean, corrupt, 0.2, metric), clean, corrupt, metric, random=2)
    >>> found.faithfulness > 0.8, found.complement < 0.2
    (True, True)
    """
    q = Question.of(model, clean, corrupt, metric)
    cut = q.kept(circuit.edges)
    rng, total = Random(seed), int(q.all(cut.ndim == 3).sum())
    lots = (by_lot(q, cut, rng) for _ in range(random))
    others = remembered(lots, lambda lot: share(q, lot), "random circuits", lambda: (*_about(q, circuit), seed), random)
    return Verdict(len(circuit.edges), len(circuit.edges) / total, share(q, cut), share(q, without(q, cut)), tuple(others))


def curve(model: Model, ranking: Graph, clean: Prompt, corrupt: Prompt, metric: AnyMetric, *, shares: Sequence[float] = SHARES,
          signed: bool = False) -> Grid:  # fmt: skip
    """Faithfulness of the strongest edges, more and more of them: Grid(share), with CPR and CMD as its baselines.

    Edges are ranked by magnitude, or, `signed`, by weight: those that support the answer first.
    """
    q = Question.of(model, clean, corrupt, metric)
    ranked = ranking.strongest(signed=signed)
    total = int(q.all("pos=" in ranked[0].sender).sum()) if ranked else 0

    def part(size: float) -> float:
        return share(q, q.kept(ranked[: round(size * total)]))

    found = remembered(shares, part, "circuits", lambda: (*_about(q, ranking), signed, tuple(shares)))
    values, at = torch.tensor(found), torch.tensor(list(shares))
    baseline = {"CPR": float(torch.trapezoid(values, at)), "CMD": float(torch.trapezoid((1 - values).abs(), at))}
    return Grid(values, ("share",), {"share": [f"{s:g}" for s in shares]}, unit="fraction of the gap", baseline=baseline,
                title=f"Faithfulness of the strongest edges, {'by weight' if signed else 'by magnitude'}",
                note=f"CPR {baseline['CPR']:.3f}, CMD {baseline['CMD']:.3f}.")  # fmt: skip


def minimality(model: Model, circuit: Graph, clean: Prompt, corrupt: Prompt, metric: AnyMetric) -> Grid:
    """For each edge of a circuit: how much faithfulness is lost when it alone is taken out. Near zero: it could go."""
    q = Question.of(model, clean, corrupt, metric)
    base = share(q, q.kept(circuit.edges))

    def lacking(edge: Edge) -> float:
        return base - share(q, q.kept([e for e in circuit.edges if e is not edge]))

    lost = remembered(circuit.edges, lacking, "edges taken out", lambda: _about(q, circuit))
    names = [name(e) for e in circuit.edges]
    return Grid(torch.tensor(lost), ("edge",), {"edge": names}, unit="fraction of the gap",
                title="What each edge is needed for", baseline={"faithfulness": base})  # fmt: skip


def share(q: Question, cut: Tensor) -> float:
    """The share of the gap between the corrupt and the clean metric that is left with these wires cut."""
    clean, corrupt = (float(end.mean()) for end in q.ends)
    if abs(clean - corrupt) < 1e-6:
        raise WrongPrompt(
            "the clean and the corrupt run have the same metric, so there is no difference to be responsible for."
        )
    return (float(q.cut(cut).mean()) - corrupt) / (clean - corrupt)


def without(q: Question, cut: Cut) -> Cut:
    """The model without a circuit, whose own cut is given: what was whole is cut, and the other way round."""
    joined = q.wires.joined.float()
    return (joined if cut.ndim == 2 else joined[..., None]) - cut


def by_lot(q: Question, cut: Cut, rng: Random) -> Cut:
    """A cut that leaves as many edges whole as this one, drawn by lot from those that can matter."""
    places = q.all(cut.ndim == 3).nonzero()
    size = int((without(q, cut) > 0)[q.all(cut.ndim == 3)].sum())
    made = torch.ones_like(cut) * without(q, torch.zeros_like(cut))
    made[tuple(places[rng.sample(range(len(places)), size)].T)] = 0
    return made


def _about(q: Question, graph: Graph) -> tuple[object, ...]:
    """What tells one question about a graph from another, for the journal."""
    return fingerprint(q.model), q.clean.tokens, q.corrupt.tokens, *q.ends, graph.edges
