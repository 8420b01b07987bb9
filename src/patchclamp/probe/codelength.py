"""Codelength: how many bits it takes to say the labels to somebody who has the activations.

Voita & Titov 2020 ("Information-theoretic probing with minimum description length"). An accuracy says what a probe reaches when
it has seen everything; a code says how soon. Labels are sent in portions: the first with equal chances for all classes, each
later one with the probabilities of a probe fitted on the portions before it. What is easy to read is short. The same labels,
dealt out at random, cost what a coin does: unlike an accuracy, a code tells what a probe learns from what it memorises without
a second task.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.model import Model
from patchclamp.probe.fitted import coded
from patchclamp.probe.layers import At, asked, labelled, values_at
from patchclamp.probe.linear import Fit, logistic

PORTIONS = (0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where portions end, as shares of the rows: each about as long as all before it."""


@dataclass(frozen=True)
class Codelength:
    """Bits of all labels."""

    bits: float
    uniform: float
    """Bits with equal chances for all classes: rows times log2 of the classes."""
    portions: tuple[tuple[int, float], ...]
    """For each portion its rows and its bits."""

    @property
    def compression(self) -> float:
        """How many times shorter than the uniform code; 1 is nothing learned, below 1 something false."""
        return self.uniform / self.bits


def codelength(x: Float[Tensor, "row d"], labels: Sequence | Tensor, groups: Sequence[Hashable] | None = None,
               fit: Fit = logistic, seed: int = 0) -> Codelength:  # fmt: skip
    """The online code of labels given activations. Rows come in an order drawn by lot, those of a group together.

    >>> from patchclamp.probe.codelength import codelength
    >>> x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    >>> codelength(x, [int(r[0] > 0) for r in x]).compression > 3
    True
    >>> round(codelength(x, [n % 2 for n in range(400)]).compression, 1) <= 1.0
    True
    """
    y, classes = coded(labels)
    if not classes:
        raise WrongPrompt("a code has a word for each class, and these labels are numbers; sort them into classes.")
    if len(x) != len(y):
        raise ShapeMismatch(f"{len(x)} rows and {len(y)} labels; give one for each.")
    order = _order(range(len(y)) if groups is None else groups, seed)
    x, y = x[order], y[order]
    uniform, start, portions = math.log2(len(classes)), 0, []
    for end in _ends(len(y)):
        if len(y[:start].unique()) < len(classes):  # nobody can have learned a class that was never named
            cost = (end - start) * uniform
        else:
            known = fit(x[:start], [classes[i] for i in y[:start]])
            said = known.log_probabilities(x[start:end])[:, [known.classes.index(c) for c in classes]]
            cost = -float(said[range(end - start), y[start:end]].double().sum()) / math.log(2)
        portions.append((end - start, cost))
        start = end
    return Codelength(sum(cost for _, cost in portions), len(y) * uniform, tuple(portions))


def codelengths(model: Model, site: str | Site, prompts: Sequence, labels: Sequence | Tensor, *,
                groups: Sequence[Hashable] | None = None, fit: Fit = logistic, at: At | None = None,
                seeds: Sequence[int] = (0, 1, 2)) -> Grid:  # fmt: skip
    """The compression of the labels at each place, the mean over several orders of the rows: Grid(layer[, pos]).

    >>> from patchclamp.probe.codelength import codelengths
    >>> names = ["Mary", "Anna", "Clara", "Emma", "Nora", "John", "Adam", "Carl", "Hugo", "Leo"]
    >>> codelengths(model, "blocks.*.out", [f"{n} stayed at" for n in names], ["she"] * 5 + ["he"] * 5, seeds=[0]).axes
    ('layer',)
    """
    site, groups, at = asked(model, site, prompts, labels, groups, at)
    x = values_at(model, site, prompts, at)
    axes, words = labelled(model, site, at)
    each = torch.tensor([[codelength(place, labels, groups, fit, seed).compression for place in x]
                         for seed in progress(seeds, label=f"codelengths at {site}")])  # fmt: skip
    each = each.reshape(len(seeds), *(len(words[a]) for a in axes))
    note = f"Online code over {len(PORTIONS)} portions; 1 is nothing learned. The mean over {len(seeds)} orders of the rows."
    grid = Grid(each.mean(0), axes, words, "times shorter", f"Codelength of the labels at {site}", note, "sequential")
    return replace(grid, baseline={"uniform": 1.0}, details={"least": each.amin(0), "most": each.amax(0)})


def _ends(rows: int) -> list[int]:
    found = sorted({max(round(share * rows), 1) for share in PORTIONS})
    return [end for end in found if end >= min(8, rows)]


def _order(groups: Sequence[Hashable], seed: int) -> list[int]:
    homes: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        homes.setdefault(group, []).append(row)
    chunks = list(homes.values())
    drawn = torch.randperm(len(chunks), generator=torch.Generator().manual_seed(seed)).tolist()
    return [row for n in drawn for row in chunks[n]]
