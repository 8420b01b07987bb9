"""Claims about variables: alignment search, its illusion, and causal scrubbing, on networks whose every weight is known."""

from __future__ import annotations

from typing import Any

import torch

from patchclamp.cause.abstraction import Location
from patchclamp.cause.align import DAS, align, dormant, halves
from patchclamp.cause.scrub import Interpretation, scrub
from patchclamp.core.metric import nll
from patchclamp.papers import planted
from patchclamp.papers.claims import Asked, Mark, Measured, claim

AFTER = "blocks.0.out[pos=-1]"
NEURONS = "blocks.0.mlp.act[pos=-1]"


@claim("Distributed alignment search finds a planted subspace.", source="Geiger et al. 2023", mark=Mark(low=0.99),
       control="the same search on an untrained copy")  # fmt: skip
def a_planted_subspace_is_found(asked: Asked) -> Measured:
    """The worst interchange accuracy over seeds, on held-out pairs of a network that adds modulo three."""
    model, _ = planted.total()
    columns, rows = ("seed", "found", "untrained", "random", "nothing"), []
    for seed in range(1 if asked.quick else asked.seeds):
        bases, sources = planted.pairs(planted.every(), 400, seed)
        scores = align(model, planted.sums({"x": AFTER}), "x", bases, sources, DAS(k=2), seed=seed).scores
        rows.append((seed, *(float(scores.at(subspace=name).values) for name in columns[1:])))
    worst, control = min(row[1] for row in rows), max(row[2] for row in rows)
    return Measured(worst, control, f"worst {worst:.3f}", f"best {control:.3f}", columns, tuple(rows))


@claim("A dormant pathway is told from an honest one.", source="Makelov et al. 2023", mark=Mark(low=1.0),
       control="honest subspaces that are flagged")  # fmt: skip
def dormant_pathways_are_flagged(asked: Asked) -> Measured:
    """The share of constructed dormant pathways that the check flags, all of which answer every interchange rightly.

    At the neurons, where what downstream reads is the output matrix. Read from gradients, before the nonlinearity, one honest
    subspace of these is flagged as well.
    """
    around = planted.sign(skip=1, follows=0, silent=4, honest=0)
    through = planted.sign(skip=0, follows=0, silent=0, honest=1)
    either = planted.sign(skip=0, follows=0, silent=2, honest=1)
    trials = (
        ("dormant", around, (1.0, 1.0, 0.0)), ("dormant", around, (0.8, 0.6, 0.0)), ("dormant", either, (1.0, 1.0, 0.0)),
        ("honest", either, (0.0, 0.0, 1.0)), ("honest", through, (0.0, 0.0, 1.0)), ("honest", through, (0.5, 0.0, 1.0)),
        ("honest", through, (0.0, 0.5, 1.0)),
    )  # fmt: skip
    bases, sources = planted.pairs([{"a": a} for a in range(8)], 120)
    rows, flags = [], {"dormant": [], "honest": []}
    for kind, model, direction in trials:
        place = Location(NEURONS, torch.tensor([[*direction, 0.0, 0.0, 0.0]]))
        grid = halves(model, planted.signs(place), "s", bases, sources)
        flags[kind].append(dormant(grid))
        iia, read = (float(grid.at(subspace=name).values) for name in ("found", "read"))
        rows.append((kind, ", ".join(f"{d:g}" for d in direction), iia, read, "flagged" if flags[kind][-1] else "passed"))
    (share, told), (wrongly, said) = ((sum(each) / len(each), f"{sum(each)} of {len(each)}") for each in flags.values())
    columns = ("pathway", "direction in the neurons", "interchange", "what is read alone", "verdict")
    return Measured(share, wrongly, told, said, columns, tuple(rows))


@claim(
    "A true hypothesis survives causal scrubbing.", source="Chan et al. 2022", mark=Mark(low=0.95), control="false hypotheses"
)
def a_true_hypothesis_survives(asked: Asked) -> Measured:
    """The least share of the loss gap that is recovered under a true hypothesis, over hypotheses and seeds."""
    true, false = scrubbed(asked, _true()), scrubbed(asked, _false())
    least, most = min(true), max(false)
    return Measured(least, most, f"at least {least:.3f}", f"at most {most:.3f}", *_recovered(true, false))


@claim("A false one does not.", source="Chan et al. 2022", mark=Mark(high=0.3), control="true hypotheses")
def a_false_hypothesis_does_not(asked: Asked) -> Measured:
    """The largest share of the loss gap that is recovered under a false hypothesis."""
    true, false = scrubbed(asked, _true()), scrubbed(asked, _false())
    least, most = min(true), max(false)
    return Measured(most, least, f"at most {most:.3f}", f"at least {least:.3f}", *_recovered(true, false))


Trees = dict[str, list[Interpretation]]


def scrubbed(asked: Asked, trees: Trees) -> list[float]:
    """The loss recovered under hypotheses about the planted sum, for each and each seed."""
    model, _ = planted.total()
    inputs = planted.every()
    loss = nll([planted.ANSWERS[(_x(given) + _y(given)) % 3] for given in inputs])
    seeds = range(1 if asked.quick else asked.seeds)
    return [float(scrub(model, tree, inputs, loss, prompt=_ids, seed=seed).values) for tree in trees.values() for seed in seeds]


def _recovered(true: list[float], false: list[float]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    rows = []
    for kind, trees, values in (("true", _true(), true), ("false", _false(), false)):
        each = len(values) // len(trees)
        rows += [(kind, name, *sorted(values[n * each : (n + 1) * each])[:: max(each - 1, 1)]) for n, name in enumerate(trees)]
    width = max(len(row) for row in rows)
    return ("kind", "hypothesis", "least recovered", "most")[:width], tuple(rows)


def _true() -> Trees:
    _, turn = planted.total()
    x, y = Interpretation("blocks.0.in[pos=0]", _x), Interpretation("blocks.0.in[pos=1]", _y)
    mine, other = Location(AFTER, turn[:3]), Location(AFTER, turn[3:6])
    return {
        "both, after block 0": [Interpretation(AFTER, _both)],
        "both, each from its token": [Interpretation(AFTER, _both, [x, y])],
        "a subspace each": [Interpretation(mine, _x, [x]), Interpretation(other, _y)],
    }


def _false() -> Trees:
    _, turn = planted.total()
    crossed = [Interpretation("blocks.0.in[pos=0]", _y), Interpretation("blocks.0.in[pos=1]", _x)]
    return {
        "parities": [Interpretation(AFTER, lambda given: (given["a"] // 3, given["b"] // 3))],
        "one of the two": [Interpretation(AFTER, _x)],
        "the tokens crossed": [Interpretation(AFTER, _both, crossed)],
        "what nothing reads": [Interpretation(Location(AFTER, turn[6:]), _both)],
    }


def _x(given: Any) -> int:
    return given["a"] % 3


def _y(given: Any) -> int:
    return given["b"] % 3


def _both(given: Any) -> tuple[int, int]:
    return _x(given), _y(given)


def _ids(given: Any) -> list[int]:
    return [given["a"], 6 + given["b"], 12]
