"""How sure an average over prompts is: bootstrap intervals, and permutation tests corrected for the number of cells.

Shares of so many (`wilson`) and areas under the ROC curve (`auroc`, `auroc_interval`) have closed forms of their own.

Intervals are studentised (Efron & Tibshirani 1993, chapter 12): prompts are drawn again with replacement, and each average
is measured in its own standard errors, so few prompts give honestly wide intervals. A permutation flips the sign of whole
prompts; the largest cell of each permutation is what a cell has to beat (Westfall & Young 1993), so that among hundreds of
cells one in twenty analyses, not one cell in twenty, is wrong by chance. Both take the prompts as drawn independently.

How often a 95 % interval holds the truth, in 2000 draws each (`python -m bench.coverage`):

    prompts                                         5     10     20     50
    normal                                      94.5%  94.2%  95.0%  95.4%
    skewed as an exponential (skewness 2)       92.3%  93.4%  94.2%  95.0%
    heavily skewed (log-normal, skewness 6)     89.8%  91.5%  92.5%  92.5%
    an effect on one prompt in five only        47.2%  62.1%  84.3%  97.6%

The last two are too narrow: what has not been seen in the prompts at hand cannot be known of. Where an effect rests on few
prompts (look at `Grid.each`), take more of them before believing an interval.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from patchclamp.core.axes import Cells
from patchclamp.core.errors import WrongPrompt

FEWEST = 5
"""Prompts below which nothing is said about chance."""
ROOM = 1 << 24
"""Numbers that are drawn at a time."""


def interval(each: Cells, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Float[Tensor, "2 *cells"]:
    """The lower and the upper end of the interval that holds the mean over all prompts there are, at this level of confidence.

    >>> values = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 1.0, 5.0])
    >>> low, high = interval(values)
    >>> bool((low < torch.tensor([0.0, 1.0, 5.0])).all() and (high > torch.tensor([0.0, 1.0, 5.0])).all())
    True
    """
    _enough(each)
    flat = each.detach().double().reshape(each.shape[0], -1)
    n, mean = flat.shape[0], flat.mean(0)
    error = flat.std(0) / n**0.5
    generator, bounds = torch.Generator().manual_seed(seed), []
    picks = torch.randint(n, (draws, n), generator=generator)
    width = max(ROOM // (draws * n), 1)
    for first in range(0, flat.shape[1], width):
        part = flat[:, first : first + width]
        drawn = part[picks]
        spread = drawn.std(1) / n**0.5
        t = (drawn.mean(1) - part.mean(0)) / spread.clamp(min=1e-300)
        t = torch.where(spread > 1e-12 * part.abs().max().clamp(min=1e-300), t, torch.zeros_like(t))
        ends = torch.tensor([(1 + level) / 2, (1 - level) / 2], dtype=torch.float64)
        bounds.append(torch.quantile(t, ends, dim=0))
    found = mean - torch.cat(bounds, 1) * error
    return found.float().reshape(2, *each.shape[1:])


def p_values(each: Cells, draws: int = 2000, seed: int = 0, corrected: bool = True) -> Float[Tensor, "*cells"]:
    """How often prompts with random signs give an average as far from zero; `corrected` for all cells together.

    >>> values = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 1.0, 5.0])
    >>> p_values(values) < 0.05
    tensor([False,  True,  True])
    """
    _enough(each)
    flat = each.detach().double().reshape(each.shape[0], -1)
    n = flat.shape[0]
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (draws, n), generator=generator).double() * 2 - 1
    scale = flat.square().sum(0).clamp(min=1e-300).sqrt()  # of a sign-flipped sum: cells of different size compare
    seen = flat.sum(0).abs() / scale
    drawn = (signs @ flat).abs() / scale
    if corrected:
        drawn = drawn.max(1, keepdim=True).values
    return ((1 + (drawn >= seen - 1e-9).sum(0)) / (1 + draws)).float().reshape(each.shape[1:])


def wilson(share: Cells, n: int | Tensor, level: float = 0.95) -> tuple[Cells, Cells]:
    """The lower and the upper end of the interval of a share seen in n draws (Wilson 1927), right near 0 and 1 too.

    >>> low, high = wilson(torch.tensor([0.5, 1.0]), 100)
    >>> low, high
    (tensor([0.4038, 0.9630]), tensor([0.5962, 1.0000]))
    """
    p, n, z = share.double(), torch.as_tensor(n, dtype=torch.float64, device=share.device), _quantile(level)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()
    return (middle - reach).clamp(min=0).to(share.dtype), (middle + reach).clamp(max=1).to(share.dtype)


def auroc(ones: Shaped[Tensor, " n"], others: Shaped[Tensor, " m"]) -> float:
    """How often one of these is larger than one of the others, equals counting half: the area under the ROC curve.

    It is Mann and Whitney's U over the number of pairs; 1 is perfect, 0.5 is chance. Not a number where something is none.

    >>> auroc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]))
    0.875
    """
    return float(_placed(ones, others).mean())


def auroc_interval(ones: Shaped[Tensor, " n"], others: Shaped[Tensor, " m"], level: float = 0.95) -> tuple[float, float]:
    """Where `auroc` lies for all there are: DeLong et al. 1988, on the log-odds of the area so that it stays within 0 and 1.

    An area of exactly 0 or 1 has no width by this formula, whatever the number of prompts: what was never confused tells
    nothing about how often it will be.

    >>> low, high = auroc_interval(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([0.4, 0.2]))
    >>> low < auroc(torch.tensor([0.9, 0.8, 0.3]), torch.tensor([0.4, 0.2])) < high
    True
    """
    if min(len(ones), len(others)) < 2:
        raise WrongPrompt(f"an area needs two of either kind; there are {len(ones)} and {len(others)}.")
    of_ones, of_others = _placed(ones, others), 1 - _placed(others, ones)
    area = of_ones.mean()
    if not 0 < area < 1:
        return float(area), float(area)
    error = (of_ones.var() / len(ones) + of_others.var() / len(others)).sqrt()
    width = _quantile(level) * error / (area * (1 - area))
    return float((area.logit() - width).sigmoid()), float((area.logit() + width).sigmoid())


def _placed(ones: Tensor, others: Tensor) -> Float[Tensor, " n"]:
    """For each of `ones`, the share of `others` that is smaller, equals counting half."""
    ones, order = ones.detach().double(), others.detach().double().sort().values
    below, up_to = (torch.searchsorted(order, ones, right=right) for right in (False, True))
    found = (below + up_to).double() / (2 * len(order))
    return torch.full_like(found, torch.nan) if ones.isnan().any() or order.isnan().any() else found


def _quantile(level: float) -> float:
    """Standard deviations of a normal distribution between which so much of it lies."""
    return float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))


def _enough(each: Tensor) -> None:
    if each.shape[0] < FEWEST:
        raise WrongPrompt(f"chance is judged over prompts, and needs {FEWEST} of them at least; there are {each.shape[0]}.")
