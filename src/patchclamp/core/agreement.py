"""Agreement: how far estimated effects are from exact ones, and where they miss altogether.

A rank correlation says whether the same places would be found, an error whether the numbers can be believed, and neither says
what matters most: which strong effects an estimate calls nothing. They are named, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.grid import Grid
from patchclamp.picture import Picture, Scatter

STRONG = 0.1
"""Of the largest exact effect: from there on an effect counts as one that must not be missed."""
MISSED = 0.1
"""Of an exact effect: what an estimate must reach, or the effect counts as missed."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well estimates agree with exact effects on a sample of cells."""

    spearman: float
    """Rank correlation; 1 is perfect."""
    error: float
    """Mean absolute difference over the mean exact magnitude."""
    saturated: tuple[str, ...]
    """Cells whose exact effect is at least a tenth of the largest, while the estimate says less than a tenth of that effect."""
    grid: Grid
    """Both, cell by cell: Grid(kind, cell). A saturated cell is marked."""

    @classmethod
    def of(cls, exact: Float[Tensor, " cell"], estimated: Float[Tensor, " cell"], names: Sequence[str], what: str = "cell",
           unit: str = "") -> Agreement:  # fmt: skip
        """Exact effects and estimates of the same cells, compared.

        >>> found = Agreement.of(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.5, 0.0]), ["a", "b", "c"])
        >>> round(found.spearman, 2), round(found.error, 2), found.saturated
        (-0.5, 0.58, ('c',))
        """
        exact, estimated = exact.detach().float().cpu(), estimated.detach().float().cpu()
        largest = exact.abs().max().clamp(min=1e-9)
        missed = (exact.abs() >= STRONG * largest) & (estimated.abs() < MISSED * exact.abs())
        error = float((estimated - exact).abs().mean() / exact.abs().mean().clamp(min=1e-9))
        lost = tuple(name for name, m in zip(names, missed.tolist()) if m)
        words = [f"{name} (saturated)" if m else name for name, m in zip(names, missed.tolist())]
        rank = rank_correlation(estimated, exact)
        told = (
            f"{len(lost)} of {len(names)} are saturated: strong, and not seen by the estimate."
            if lost
            else "None is saturated."
        )
        grid = Grid(torch.stack([exact, estimated]), ("kind", what), {"kind": ["exact", "estimated"], what: words}, unit=unit,
                    details={"saturated": missed.float().expand(2, -1)}, title="An estimate, checked",
                    note=f"Rank correlation {rank:.3f}, mean relative error {error:.1%}. {told}")  # fmt: skip
        return cls(rank, error, lost, grid)

    def __str__(self) -> str:
        return self.grid.note

    def picture(self) -> Picture:
        """Every cell a point, exact against estimated; saturated ones are a group of their own, on the line of no effect."""
        exact, estimated = self.grid.values.numpy()
        names = tuple(self.grid.words(self.grid.axes[1]))
        groups = tuple("saturated" if name in self._lost else "seen" for name in names)
        return Scatter(exact, estimated, names, groups, "exact", "estimated", title=self.grid.title, note=self.grid.note)

    @property
    def _lost(self) -> set[str]:
        return {f"{name} (saturated)" for name in self.saturated}

    def show(self) -> None:
        """Draw in the terminal or notebook."""
        self.picture().show()

    def html(self) -> str:
        """One self-contained HTML page."""
        return self.picture().html()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()

    def __rich__(self):
        return self.picture().__rich__()


def chosen(estimated: Float[Tensor, " cell"], sample: int, seed: int = 0) -> list[int]:
    """Which cells to check: half of the sample the strongest by estimate, the other half by lot among the rest."""
    order = estimated.abs().argsort(descending=True).tolist()
    strong, rest = order[: sample // 2], order[sample // 2 :]
    return strong + Random(seed).sample(rest, min(sample - len(strong), len(rest)))


def rank_correlation(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Spearman's; not a number where all of one side are equal, since ranks then say nothing.

    >>> from patchclamp.core.agreement import rank_correlation
    >>> round(rank_correlation(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 3.0, 2.0])), 3)
    0.5
    """
    from scipy.stats import spearmanr

    if not len(a) or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return float("nan")
    found: Any = spearmanr(a, b)
    return float(found.statistic)
