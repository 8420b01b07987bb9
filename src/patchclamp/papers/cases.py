"""Cases: models whose circuit is known, the methods that look for it, and the table of how well they do.

Every method is given the same model, pairs of sequences and metric: the logit difference between the two answers where they
differ, or, where the answer is a number, the number. Whatever takes a threshold becomes a ranking by its sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import median

from patchclamp.circuit.acdc import acdc
from patchclamp.circuit.compile import Compiled, Pairs, compile
from patchclamp.circuit.edges import Estimator, Question, graph_of
from patchclamp.circuit.mask import Gates, learned
from patchclamp.circuit.programs import PROGRAMS
from patchclamp.circuit.score import chance, score, score_nodes, swept
from patchclamp.circuit.siit import RECIPES, opened
from patchclamp.core.graph import Graph
from patchclamp.core.progress import progress
from patchclamp.model.load import load
from patchclamp.model.model import Model
from patchclamp.papers.claims import Asked, Measured

PAIRS = 24
"""Pairs of sequences that every method is given."""
JUNK = 4
"""Idle heads, and idle neurons, of every compiled model."""
THRESHOLDS = tuple(10 ** (-4 + n / 2) for n in range(9))
"""ACDC's, as shares of the gap between the clean and the corrupt metric."""
QUICK = ("histogram", "sort", "deduplicate")
"""The programs of a quick look."""


@dataclass(frozen=True, eq=False)
class Case:
    """A model whose circuit is known, and the pairs that methods may ask it about."""

    name: str
    seed: int
    made: Compiled
    pairs: Pairs
    model: Model

    @classmethod
    def of(cls, name: str, seed: int, made: Compiled) -> Case:
        """With pairs drawn by the seed."""
        return cls(name, seed, made, made.pairs(PAIRS, seed), load(made.hf))

    @cached_property
    def question(self) -> Question:
        """What estimates are asked."""
        return Question.of(self.model, self.pairs.clean, self.pairs.corrupt, self.pairs.metric)

    def edges(self, estimate: Estimator) -> Graph:
        """All edges by an estimate."""
        return graph_of(self.question.wires, estimate(self.question))

    @property
    def truth(self) -> Graph:
        """The true edges that pairs of one length can show."""
        return self.made.varying


Find = Callable[[Case], Graph]
"""A method: from a case to a ranking of all its edges."""


def compiled(asked: Asked, **settings: float) -> Iterator[Case]:
    """Programs compiled among junk, in a turned stream, one for each seed."""
    names = [make.__name__ for make in PROGRAMS if not asked.quick or make.__name__ in QUICK]
    cases = [(name, seed) for name in names for seed in range(1 if asked.quick else asked.seeds)]
    for name, seed in progress(cases, label="compiled programs"):
        yield _compiled(name, seed, tuple(settings.items()))


@cache
def _compiled(name: str, seed: int, settings: tuple[tuple[str, float], ...]) -> Case:
    program = {make.__name__: make for make in PROGRAMS}[name]()
    return Case.of(program.name, seed, compile(program, junk=JUNK, rotate=True, seed=seed, **dict(settings)))


def taught(asked: Asked) -> Iterator[Case]:
    """The shipped networks that were taught a circuit, with pairs for each seed."""
    cases = [(name, seed) for name in names(asked) for seed in range(1 if asked.quick else asked.seeds)]
    for name, seed in progress(cases, label="taught networks"):
        yield _taught(name, seed)


@cache
def _taught(name: str, seed: int) -> Case:
    return Case.of(name, seed, opened(name))


def names(asked: Asked) -> list[str]:
    """The taught networks there are, or the first of them."""
    return list(RECIPES)[:1] if asked.quick else list(RECIPES)


def by(estimate: Estimator) -> Find:
    """An estimate as a method."""
    return lambda case: case.edges(estimate)


def by_acdc(case: Case) -> Graph:
    """ACDC's sweep of thresholds, by the same metric as all other methods."""
    ours, theirs = (float(end.mean()) for end in case.question.ends)

    def find(threshold: float) -> Graph:
        share = threshold * (ours - theirs)
        return acdc(case.model, case.pairs.clean, case.pairs.corrupt, share, case.pairs.metric)

    return swept(find, THRESHOLDS, case.edges(chance()))


def by_masks(case: Case) -> Graph:
    """Learned gates, by the same metric."""
    gates = Gates(steps=150, seed=case.seed)
    return learned(case.model, case.pairs.clean, case.pairs.corrupt, case.pairs.metric, gates=gates)


COLUMNS = ("circuit", "true edges", "AUROC", "average precision", "AUROC of nodes", "worst AUROC")


def scored(cases: Iterator[Case], find: Find, worst: bool = False) -> Measured:
    """AUROC over cases, the median or the worst, beside that of rankings by lot."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    sizes = {}
    for case in cases:
        ranking = find(case)
        edges, nodes = score(ranking, case.truth), score_nodes(ranking, case.truth)
        lots = [score(case.edges(chance(n)), case.truth).auroc for n in _lots(case)]
        found.setdefault(case.name, []).append((edges.auroc, edges.precision, nodes.auroc, sum(lots) / len(lots)))
        sizes[case.name] = f"{edges.true} of {edges.all}"
    rows = tuple(
        (name, sizes[name], *(median(column) for column in list(zip(*mine))[:3]), min(mine)[0]) for name, mine in found.items()
    )
    values, lot = [each[0] for mine in found.values() for each in mine], median(e[3] for mine in found.values() for e in mine)
    lowest = min(found, key=lambda name: min(found[name]))
    where = f" ({lowest})" if min(values) < median(values) else ""
    said = f"median {median(values):.3f}, worst {min(values):.3f}{where}, of {len(values)}"
    return Measured(min(values) if worst else median(values), lot, said, f"median {lot:.3f}", COLUMNS, rows)


def _lots(case: Case) -> range:
    """Seeds of twenty random rankings that no other case shares."""
    first = 1000 * sum(map(ord, case.name)) + 100 * case.seed
    return range(first, first + 20)
