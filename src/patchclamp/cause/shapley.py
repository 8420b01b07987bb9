"""Shapley values: the effect of patching, divided evenly among places that do it together.

Patching places one by one answers "what does this one do by itself?", and taking them out "what is missing without it?"; where
two can stand in for each other the first counts the same thing twice and the second not at all. Shapley's value (1953) is the
mean of what a place adds to those patched before it, over all orders in which they could come. It is the only division that
adds up to the effect of all together, gives equals the same and gives nothing to what does nothing. As a sample of orders it is
due to Castro et al. 2009.

It is dear: every set of places is a cell of a sweep of its own. So it is for a handful of places, such as the heads that
`pc.effects` found, and for few enough of them it tries all sets and is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import factorial
from random import Random

import torch
from torch import Tensor

from patchclamp.cause.comparison import Answers, Comparison, Estimated, Estimator
from patchclamp.cause.effects import together
from patchclamp.core.errors import Unserved

ALL = 8
"""Players up to whom all sets are tried."""
MOST = 64
"""Players beyond whom nobody should wait."""

Set = frozenset[int]


def shapley(permutations: int = 100, seed: int = 0) -> Estimator:
    """Each place's share in the effect of all of them together, by sampling orders; by all sets up to eight places.

    `Grid.details["error"]` is the standard error that sampling leaves in each share, zero where all sets were tried.

    >>> from patchclamp.cause.shapley import shapley
    >>> metric = pc.logit_diff(" Mary", " John")
    >>> grid = pc.effects(model, clean, corrupt, "blocks.2:4.attn.out", metric, estimate=shapley())
    >>> grid.shape, float(grid.details["error"].max())
    ({'layer': 2}, 0.0)
    """

    def estimate(c: Comparison) -> Estimated:
        n = len(c.spread.sites)
        if n > MOST:
            raise Unserved(f"{c.spread.site} names {n} places; Shapley values are for {MOST} at most. Name those that matter.")
        if n <= ALL:
            sets = [frozenset(s) for size in range(n + 1) for s in combinations(range(n), size)]
            worth, base = _worth(c, sets)
            cells = torch.stack([_share(worth, i, n) for i in range(n)], 1)
            return Estimated(cells, base, "Shapley values, over all sets.", {"error": torch.zeros(n)})
        orders = _orders(n, permutations, seed)
        worth, base = _worth(c, list(dict.fromkeys(frozenset(o[:k]) for o in orders for k in range(n + 1))))
        added = torch.stack([_added(worth, order) for order in orders])  # permutation batch cell
        error = added.mean(1).std(0) / len(orders) ** 0.5
        return Estimated(added.mean(0), base, f"Shapley values, over {len(orders)} orders.", {"error": error})

    estimate.__name__ = f"shapley(permutations={permutations}, seed={seed})"
    return estimate


def _worth(c: Comparison, sets: Sequence[Set]) -> tuple[dict[Set, Tensor], Tensor]:
    """The effect of patching each set of places, prompt by prompt."""
    some = [s for s in sets if s]
    found = together(c, [[c.spread.sites[i] for i in sorted(s)] for s in some])
    nothing = torch.zeros_like(found.base)
    return {frozenset(): nothing, **dict(zip(some, found.cells.T))}, found.base


def _share(worth: dict[Set, Tensor], i: int, n: int) -> Tensor:
    total = torch.zeros_like(worth[frozenset()])
    for s in (s for s in worth if i not in s):
        total = total + factorial(len(s)) * factorial(n - len(s) - 1) / factorial(n) * (worth[s | {i}] - worth[s])
    return total


def _added(worth: dict[Set, Tensor], order: Sequence[int]) -> Answers:
    """What each place adds to those before it."""
    before, added = frozenset(), {}
    for i in order:
        added[i] = worth[before | {i}] - worth[before]
        before = before | {i}
    return torch.stack([added[i] for i in sorted(added)], 1)


def _orders(n: int, count: int, seed: int) -> list[list[int]]:
    if count < 2:
        raise ValueError(f"permutations is how many orders are tried, two or more; got {count}.")
    rng = Random(seed)
    return [rng.sample(range(n), n) for _ in range(count)]
