"""Contrast pairs, and how well each method tells the true side from the false one, layer by layer.

The pairs are split by what they are about: no subject is in both halves, so a direction cannot be right by having met it. The
activations may be of any site that has one vector a prompt. Directions are sought on the first half, and every figure is
about the second, each pair with its own line in `Grid.each`, so `grid.interval()` says how sure the figures are.

**The sign.** A direction found without labels does not say which of its ends is true. `labelled` pairs of the first half set
it (16 unless told otherwise); with `labelled=0` the better reading of the *second* half is reported, as in the code of Burns
et al. 2022, and the grid says so: such a figure is never below one half, and a coin would seem to do better than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchclamp.core import uncertain
from patchclamp.core.errors import ShapeMismatch, WrongPrompt, did_you_mean
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.model.gather import gather
from patchclamp.probe.ccs import FEWEST, METHODS, SUPERVISED, Belief

if TYPE_CHECKING:
    from patchclamp.model.model import Model

LABELLED = 16
Layer = tuple[Tensor, Tensor, Tensor]
"""Both sides at one layer, and which is true."""


@dataclass(frozen=True)
class Contrast:
    """Pairs of statements of which exactly one is true."""

    yes: tuple[str, ...]
    no: tuple[str, ...]
    truth: tuple[bool, ...]
    """Whether the first of each pair is the true one. Methods without labels do not look, except for the sign."""
    content: tuple[str, ...] = ()
    """What each pair is about; pairs with the same content stay in the same half. Each is its own where nothing is said."""
    features: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    """What else tells the two sides apart, for each pair whether the first side has it: candidate confounds."""

    def __post_init__(self) -> None:
        columns = {"no": self.no, "truth": self.truth, **({"content": self.content} if self.content else {}), **self.features}
        for name, column in columns.items():
            if len(column) != len(self.yes):
                raise ShapeMismatch(f'{len(self.yes)} pairs have {len(column)} entries of "{name}"; give one for each.')

    def __len__(self) -> int:
        return len(self.yes)

    def take(self, rows: Sequence[int]) -> Contrast:
        """Some of the pairs."""
        yes, no, truth = (tuple(self.yes[i] for i in rows), tuple(self.no[i] for i in rows), tuple(self.truth[i] for i in rows))
        content = tuple(self.content[i] for i in rows) if self.content else ()
        features = {name: tuple(column[i] for i in rows) for name, column in self.features.items()}
        return Contrast(yes, no, truth, content, features)

    def halves(self, share: float = 0.5, seed: int = 0) -> tuple[Contrast, Contrast]:
        """Two parts that have no content in common; about `share` of the contents are in the first.

        >>> from patchclamp.probe.elicit import Contrast
        >>> pairs = Contrast(("a", "b", "c", "d"), ("A", "B", "C", "D"), (True,) * 4, ("x", "y", "x", "y"))
        >>> [half.content for half in pairs.halves()]
        [('x', 'x'), ('y', 'y')]
        """
        about = self.content or tuple(map(str, range(len(self))))
        known = sorted(set(about))
        Random(seed).shuffle(known)
        first = set(known[: round(share * len(known))])
        parts = [i for i, one in enumerate(about) if one in first], [i for i, one in enumerate(about) if one not in first]
        return self.take(parts[0]), self.take(parts[1])

    @property
    def right(self) -> Tensor:
        """`truth` as a tensor."""
        return torch.tensor(self.truth)


def elicit(
    model: Model,
    contrast: Contrast,
    site: str | Site = "blocks.*.out[pos=-1]",
    methods: Sequence[str] = tuple(METHODS),
    labelled: int = LABELLED,
    share: float = 0.5,
    seed: int = 0,
) -> Grid:
    """Share of held-out pairs in which each method takes the true side: Grid(method, layer).

    `Grid.details` hold the ends of the 95 % interval over pairs, and the loss of CCS on the pairs it was fitted on: the one
    figure by which a layer can be chosen without labels. A site without a star gives Grid(method, layer) of one layer.

    >>> from patchclamp.probe.elicit import Contrast, elicit
    >>> from patchclamp.specimens.exposures.tasks import contrasts
    >>> grid = elicit(pc.load("specimen:exposures"), Contrast(**contrasts(60, "lying")), methods=["crc", "logistic"])
    >>> grid.axes, grid.words("method")
    (('method', 'layer'), ('crc', 'logistic'))
    """
    for name in methods:
        if name not in METHODS:
            raise WrongPrompt(f'there is no method "{name}"; there is {", ".join(METHODS)}.{did_you_mean(name, METHODS)}')
    halves = contrast.halves(share, seed)
    few = min(map(len, halves))
    if few < max(FEWEST, uncertain.FEWEST):
        raise WrongPrompt(f"half of the contents make {few} pairs; {uncertain.FEWEST} are needed on either side. Give more.")
    fit, test = (sides_of(model, half, site) for half in halves)
    cells = [[_cell(name, a, b, labelled, seed) for a, b in zip(fit.layers, test.layers)] for name in methods]
    each = torch.stack([torch.stack([right for right, _ in row]) for row in cells]).movedim(-1, 0)
    low, high = uncertain.interval(each)
    losses = torch.tensor([[loss for _, loss in row] for row in cells])
    sign = f"the sign set by {labelled} labelled pairs" if labelled else "the better of both signs on the very pairs reported"
    layers = tuple(str(Site.parse(place).layer) for place in model.places(Site.parse(site).bare()))
    return Grid(
        each.mean(0), ("method", "layer"), {"method": tuple(methods), "layer": layers}, "fraction right",
        "What is true, without asking", f"{len(halves[1])} held-out pairs; {sign}.", "sequential",
        details={"low": low, "high": high, "loss": losses}, baseline={"chance": 0.5}, each=each,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sides:
    """The activations of both sides of every pair, layer by layer, and which side is true."""

    yes: Float[Tensor, "layer pair d_model"]
    no: Float[Tensor, "layer pair d_model"]
    truth: Bool[Tensor, " pair"]

    @property
    def layers(self) -> list[Layer]:
        """What `ccs.METHODS` are given, one layer after another."""
        return [(yes, no, self.truth) for yes, no in zip(self.yes, self.no)]


def sides_of(model: Model, contrast: Contrast, site: str | Site) -> Sides:
    """Read both sides; a site that names one place only is one layer."""
    read = [gather(model, site, side) for side in (contrast.yes, contrast.no)]
    yes, no = (side if Site.parse(site).bare().stars else side[None] for side in read)
    if yes.ndim != 3:
        raise ShapeMismatch(f"{site} has the shape {list(yes.shape[2:])} in a prompt; a direction needs one vector there.")
    return Sides(yes, no, contrast.right)


def found(name: str, yes: Tensor, no: Tensor, truth: Tensor, labelled: int = LABELLED, seed: int = 0) -> Belief:
    """What a method finds on these pairs. The first `labelled` of them set its sign; with 0 it is as it came."""
    belief = METHODS[name](yes, no, truth, seed)
    if name in SUPERVISED or not labelled:
        return belief
    return belief.oriented(yes[:labelled], no[:labelled], truth[:labelled])


def zero_shot(model: Model, contrast: Contrast, answer: str = " Yes", wrong: str = " No") -> Tensor:
    """Pair by pair, 1 where the model's own words take the true side: it is readier to say `answer` after that one.

    Readiness is the difference of the two logits, so a model that would rather say "yes" to everything is not held to it.
    """
    ids = model.token(answer), model.token(wrong)
    ready = []
    for side in (contrast.yes, contrast.no):
        logits = gather(model, "logits", side)
        ready.append(logits[:, ids[0]] - logits[:, ids[1]])
    return ((ready[0] > ready[1]) == contrast.right).float()


def _cell(name: str, fit: Layer, test: Layer, labelled: int, seed: int) -> tuple[Tensor, float]:
    """Which of the held-out pairs a method has right at one layer, and the loss it ended with."""
    belief = found(name, fit[0], fit[1], fit[2], labelled, seed)
    right = belief.right(*test)
    if name not in SUPERVISED and not labelled and float(right.mean()) < 0.5:
        right = 1 - right
    return right, float("nan") if belief.losses is None else float(belief.losses[0])
