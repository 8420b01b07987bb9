"""Estimates of patching effects from gradients: every cell at once, from two forward passes and one backward.

Attribution patching (Nanda 2023): to first order, putting the clean value in place of the corrupt one changes the metric
by their difference times the metric's gradient in the corrupt run. It misses what is not linear: a saturated softmax has
no gradient, and patching it may still matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.cause.spread import Spread
from patchclamp.core.axes import Cells, Logits, PerPrompt
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.metric import read
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.core.window import select
from patchclamp.model.inputs import Inputs
from patchclamp.model.model import Model


@dataclass(frozen=True, eq=False)
class Comparison:
    """What an estimator is given: the model, the clean run (which kept the sites), and the corrupt prompt."""

    model: Model
    """What is swept: the model, with what is severed held as it is in the corrupt run."""
    clean: Run
    corrupt: Inputs
    spread: Spread
    metric: Callable[[Logits], PerPrompt]
    since: int
    """The first token in which the two prompts differ."""
    window: int = 1
    """How many neighbouring layers are patched together."""

    def read(self, logits: Logits) -> PerPrompt:
        """The metric of each prompt, for keeping."""
        return read(self.metric, logits, self.corrupt.batch)


Answers = Float[Tensor, "batch cell"]
Estimator = Callable[[Comparison], tuple[Answers, PerPrompt]]
"""Gives the effect of every cell, in the order of `spread.sites`, and the corrupt run's metric."""


def gradient(c: Comparison) -> tuple[Answers, PerPrompt]:
    """Attribution patching: (clean - corrupt) times the metric's gradient in the corrupt run, summed over each cell.

    >>> metric = pc.logit_diff(" Mary", " John")
    >>> pc.effects(model, clean, corrupt, "blocks.*.attn.z[head=*]", metric, estimate=pc.gradient).note
    'Estimated from gradients, to first order.'
    """
    if c.window > 1:
        raise Unserved("a gradient is of single places; windows of layers are patched exactly.")
    run = c.model.run(c.corrupt, c.spread.paths, grad=True)
    base = c.read(run.logits)
    slope = run.gradient(c.metric)
    cells = []
    for path in c.spread.paths:
        corrupt, axes, _ = run.stored(Site.parse(path))
        clean, _, windows = c.clean.stored(Site.parse(path))
        product = slope.kept[path].value * (clean - corrupt.detach())
        cells.append(pooled(c.spread.site, axes, product, dict(windows)))
    return torch.stack(cells, dim=1).flatten(1), base


def pooled(site: Site, axes: tuple[str, ...], product: Float[Tensor, "batch *place"], windows: dict) -> Cells:
    """Summed over everything but the prompts and the starred axes, in the order of the index."""
    chosen = select(site, axes, product, windows)
    if chosen is None or chosen.ragged is not None:
        raise WrongAxis(f"{site} needs prompts of equal length.")
    fixed = {a for a, v in site.index if not isinstance(v, Span)}
    left = [a for a in axes if a not in fixed]
    starred = [a for a, v in site.index if isinstance(v, Span)]
    part = chosen.take(product).float()
    summed = part.sum([d for d, a in enumerate(left) if a != "batch" and a not in starred])
    kept = [a for a in left if a == "batch" or a in starred]
    return summed.permute([kept.index(a) for a in ("batch", *starred)])
