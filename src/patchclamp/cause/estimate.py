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

from patchclamp.core.axes import Cells, Logits, PerPrompt
from patchclamp.core.errors import ShapeMismatch, WrongAxis
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.core.window import select
from patchclamp.model.inputs import Inputs
from patchclamp.model.model import Model


@dataclass(frozen=True, eq=False)
class Comparison:
    """What an estimator is given: the model, the clean run (which kept the sites), and the corrupt prompt."""

    model: Model
    clean: Run
    corrupt: Inputs
    site: Site
    paths: tuple[str, ...]
    metric: Callable[[Logits], PerPrompt]
    since: int
    """The first token in which the two prompts differ."""

    def read(self, logits: Logits) -> PerPrompt:
        """The metric of each prompt, for keeping."""
        found = self.metric(logits)
        batch = self.corrupt.batch
        if not isinstance(found, Tensor) or found.shape != (batch,):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeMismatch(f"a metric gives one number per prompt, a tensor [{batch}]; this one gave {shape}.")
        return found.detach().float().cpu()


Estimator = Callable[[Comparison], tuple[Cells, PerPrompt]]
"""Gives the effect of every cell (batch, path, *starred axes of the index), and the corrupt run's metric."""


def gradient(c: Comparison) -> tuple[Cells, PerPrompt]:
    """Attribution patching: (clean - corrupt) times the metric's gradient in the corrupt run, summed over each cell.

    >>> metric = pc.logit_diff(" Mary", " John")
    >>> pc.effects(model, clean, corrupt, "blocks.*.attn.z[head=*]", metric, estimate=pc.gradient).note
    'Estimated from gradients, to first order.'
    """
    run = c.model.run(c.corrupt, c.paths, grad=True)
    base = c.read(run.logits)
    slope = run.gradient(c.metric)
    cells = []
    for path in c.paths:
        corrupt, axes, _ = run.stored(Site.parse(path))
        clean, _, windows = c.clean.stored(Site.parse(path))
        product = slope.kept[path].value * (clean - corrupt.detach())
        cells.append(pooled(c.site, axes, product, dict(windows)))
    return torch.stack(cells, dim=1), base


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
