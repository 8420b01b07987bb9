"""Significance: is a circuit as good as the model, is nothing left outside, is it better than chance, is every edge needed?

Hypothesis tests after Shi et al. 2024, "hypothesis testing the circuit hypothesis in LLMs":

    equivalence    of the prompts, the circuit does better than the model on half: a sign test
    independence   what is left without the circuit tells nothing of what the model does: a permutation test (HSIC)
    sufficiency    the circuit is no more faithful than random circuits of its size, or of its shape with other heads
    minimality     taking out this edge matters no more than taking out an edge that was added by lot

The first two speak for a circuit where they are not rejected, the last two where they are. A test that is not rejected may
have had too few prompts: with n of them a sign test cannot say less than 2 / 2^n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.circuit.edges import Question, name
from patchclamp.circuit.faithful import AnyMetric, by_lot, share, without
from patchclamp.core.axes import PerPrompt
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.graph import Edge, Graph
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model
from patchclamp.picture import Table


@dataclass(frozen=True)
class Test:
    """One hypothesis and how likely what was seen would be if it held."""

    __test__ = False  # what pytest would collect by its name

    name: str
    hypothesis: str
    statistic: float
    p_value: float
    wanted: bool
    """Whether a good circuit has it rejected."""

    def passed(self, level: float = 0.05) -> bool:
        """Whether the circuit does as a good one should."""
        return (self.p_value <= level) == self.wanted


@dataclass(frozen=True)
class Significance:
    """The tests of a circuit, and the edges that are no more needed than one added by lot."""

    tests: tuple[Test, ...]
    idle: tuple[Edge, ...]

    def __getitem__(self, name: str) -> Test:
        return next(t for t in self.tests if t.name == name)

    def picture(self) -> Table:
        """One row a test."""
        rows = tuple((t.name, t.hypothesis, t.statistic, t.p_value, "yes" if t.passed() else "no") for t in self.tests)
        note = "Edges that could go: " + (", ".join(map(name, self.idle)) if self.idle else "none") + "."
        return Table(("test", "if not for the circuit", "statistic", "p", "as it should"), rows, digits=2,
                     title="Significance of a circuit", note=note)  # fmt: skip

    def show(self) -> None:
        """Draw in the terminal or notebook."""
        self.picture().show()

    def __rich__(self):
        return self.picture().__rich__()


def significance(model: Model, circuit: Graph, clean: Prompt, corrupt: Prompt, metric: AnyMetric, *, draws: int = 99,
                 seed: int = 0) -> Significance:  # fmt: skip
    """Test a circuit on a batch of prompts. `draws` is how many random circuits, added edges and permutations are tried.

    Five prompts or more are needed; with few of them only large differences are found.
    """
    q = Question.of(model, clean, corrupt, metric)
    if q.clean.batch < FEWEST:
        raise WrongPrompt(f"a circuit is tested on {FEWEST} prompts or more; got {q.clean.batch}.")
    rng, cut = Random(seed), q.kept(circuit.edges)
    own, least = share(q, cut), []
    lots = [share(q, by_lot(q, cut, rng)) for _ in progress(range(draws), label="random circuits")]
    shapes = [
        share(q, q.kept(moved)) for moved in progress([_moved(q, circuit, rng) for _ in range(draws)], label="same shape")
    ]
    added = _added(q, circuit, rng, min(draws, 99))
    for edge in progress(circuit.edges, label="edges"):
        lost = own - share(q, q.kept([e for e in circuit.edges if e is not edge]))
        least.append(_rank([abs(lost)], added))
    idle = tuple(e for e, p in zip(circuit.edges, least) if p > 0.05)
    tests = (
        equivalence(q.ends[0], q.cut(cut)),
        independence(q.ends[0] - q.ends[1], q.cut(without(q, cut)) - q.ends[1], draws, seed),
        Test("sufficiency", "no better than edges by lot", max(lots), _rank([own], lots), True),
        Test("shape", "no better than other heads in its shape", max(shapes), _rank([own], shapes), True),
        Test("minimality", "some edge is no more needed than one by lot", len(idle) / max(len(circuit.edges), 1),
             max(least, default=1.0), True),
    )  # fmt: skip
    return Significance(tests, idle)


def equivalence(model: PerPrompt, circuit: PerPrompt) -> Test:
    """On how many prompts the circuit does better than the model; either way, from half of them.

    >>> equivalence(torch.zeros(10), torch.ones(10)).p_value < 0.01
    True
    """
    from scipy.stats import binomtest

    differ = (circuit - model)[circuit != model]
    wins = int((differ > 0).sum())
    p = float(binomtest(wins, len(differ), 0.5).pvalue) if len(differ) else 1.0
    return Test("equivalence", "circuit and model do better equally often", wins / max(len(differ), 1), p, False)


def independence(model: PerPrompt, rest: PerPrompt, draws: int = 99, seed: int = 0) -> Test:
    """Whether what is left without the circuit depends on what the model does, prompt by prompt.

    >>> x = torch.linspace(-1, 1, 30)
    >>> independence(x, x**2).p_value < 0.05, independence(x, torch.zeros(30)).p_value
    (True, 1.0)
    """
    generator = torch.Generator().manual_seed(seed)
    a, b = _kernel(model), _kernel(rest)
    seen = float((a * b).mean())
    lots = []
    for _ in range(draws):
        order = torch.randperm(len(rest), generator=generator)
        lots.append(float((a * b[order][:, order]).mean()))
    return Test("independence", "what is left outside tells nothing of the model's answer", seen, _rank([seen], lots), False)


def _kernel(values: PerPrompt) -> Float[Tensor, "batch batch"]:
    """A centred Gaussian kernel, as wide as the median distance."""
    apart = (values[:, None] - values[None]).abs()
    apart = torch.where(apart > 1e-4 * values.abs().max().clamp(min=1e-9), apart, torch.zeros(()))  # rounding is no difference
    width = apart[apart > 0].median() if bool((apart > 0).any()) else torch.ones(())
    made = torch.exp(-(apart**2) / (2 * width**2))
    return made - made.mean(0) - made.mean(1, keepdim=True) + made.mean()


def _rank(seen: list[float], lots: list[float]) -> float:
    """How often chance does as well, counting what was seen as one draw."""
    return (1 + sum(lot >= seen[0] - 1e-6 for lot in lots)) / (1 + len(lots))


def _moved(q: Question, circuit: Graph, rng: Random) -> list[Edge]:
    """The circuit with the heads of every layer exchanged by lot: its shape, not its heads."""
    orders: dict[tuple[int, str], list[int]] = {}
    for block in q.wires.blocks:
        write = block.write("attn")
        if write is not None:
            layer = Site.parse(block.path + ".in").layer
            assert layer is not None
            for axis, n in (("head", write.heads), ("kv_head", write.kv_heads)):
                orders[layer, axis] = rng.sample(range(n), n)

    def other(text: str) -> str:
        site = Site.parse(text)
        for axis, value in site.index:
            if site.layer is not None and isinstance(value, int) and (site.layer, axis) in orders:
                return text.replace(f"{axis}={value}", f"{axis}={orders[site.layer, axis][value]}")
        return text

    return [replace(e, sender=other(e.sender), receiver=other(e.receiver)) for e in circuit.edges]


def _added(q: Question, circuit: Graph, rng: Random, draws: int) -> list[float]:
    """How much it matters to take out an edge that was added to the circuit by lot."""
    cut = q.kept(circuit.edges)
    outside = ((cut > 0) & q.all(cut.ndim == 3)).nonzero().tolist()
    own, found = share(q, cut), []
    for place in progress(rng.sample(outside, min(draws, len(outside))), label="added edges"):
        more = cut.clone()
        more[tuple(place)] = 0
        found.append(abs(share(q, more) - own))
    return found
