"""How often the intervals hold the truth: draws of prompts from populations whose mean is known, counted.

    python -m bench.coverage [--draws 500] [--seeds 4]

A 95 % interval that holds the truth in 95 % of the draws is right; in fewer, it says too much. Skewed effects of few prompts
are where bootstrap intervals are known to be too narrow, so those are here too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from patchclamp.core.uncertain import interval

Draw = Callable[[tuple[int, int], torch.Generator], Tensor]
PROMPTS = (5, 10, 20, 50)


def _normal(shape: tuple[int, int], by: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=by, dtype=torch.float64)


def _exponential(shape: tuple[int, int], by: torch.Generator) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).exponential_(generator=by)


def _rare(shape: tuple[int, int], by: torch.Generator) -> Tensor:
    size = 1 + 0.2 * _normal(shape, by)
    return (torch.rand(shape, generator=by) < 0.2).double() * size


POPULATIONS: dict[str, tuple[Draw, float]] = {
    "normal": (_normal, 0.0),
    "log-normal, skewness 1.8": (lambda shape, by: (0.5 * _normal(shape, by)).exp(), math.exp(0.125)),
    "exponential, skewness 2": (_exponential, 1.0),
    "log-normal, skewness 6": (lambda shape, by: _normal(shape, by).exp(), math.exp(0.5)),
    "one prompt in five": (_rare, 0.2),
}
"""What effects are drawn from, and their mean."""


def coverage(draw: Draw, truth: float, prompts: int, draws: int = 500, seed: int = 0) -> float:
    """The share of draws whose 95 % interval holds the mean of the population."""
    low, high = interval(draw((prompts, draws), torch.Generator().manual_seed(seed)))
    return float(((low <= truth) & (truth <= high)).double().mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=4)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("effects drawn from", *(f"{n} prompts" for n in PROMPTS))
    for name, (draw, truth) in POPULATIONS.items():
        row = []
        for n in PROMPTS:
            found = [coverage(draw, truth, n, asked.draws, seed) for seed in range(asked.seeds)]
            row.append(f"{sum(found) / len(found):.1%} ({min(found):.1%} to {max(found):.1%})")
        table.add_row(name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
