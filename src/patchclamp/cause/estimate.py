"""Estimates of patching effects from gradients: every cell at once, from two forward passes and one backward.

Attribution patching (Nanda 2023): to first order, putting the clean value in place of the corrupt one changes the metric
by their difference times the metric's gradient in the corrupt run. It misses what is not linear: a saturated softmax has
no gradient, and patching it may still matter. `check` of `cause/check.py` says how often that is so.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.cause.comparison import Answers, Comparison, Estimated
from patchclamp.cause.spread import Spread
from patchclamp.core.axes import Cells
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.core.window import select


def gradient(c: Comparison) -> Estimated:
    """Attribution patching: (clean - corrupt) times the metric's gradient in the corrupt run, summed over each cell.

    >>> metric = pc.logit_diff(" Mary", " John")
    >>> pc.effects(model, clean, corrupt, "blocks.*.attn.z[head=*]", metric, estimate=pc.gradient).note
    'Estimated from gradients, to first order.'
    """
    single(c)
    run = c.model.run(c.corrupt, c.spread.paths, grad=True)
    cells = products(c, run, run.gradient(c.metric), c.spread.paths)
    return Estimated(cells, c.read(run.logits), "Estimated from gradients, to first order.")


def single(c: Comparison) -> None:
    """An error where several layers are to be patched at once."""
    if c.window > 1:
        raise Unserved("a gradient is of single places; windows of layers are patched exactly.")


def products(c: Comparison, corrupt: Run, slope: Run, paths: tuple[str, ...]) -> Answers:
    """(clean - corrupt) times a gradient, summed over each cell of these places."""
    found = []
    for path in paths:
        value, axes, windows = corrupt.stored(Site.parse(path))
        clean, _, _ = c.clean.stored(Site.parse(path))
        found.append(pooled(c.spread, axes, slope.kept[path].value * (clean - value.detach()), dict(windows)))
    return torch.stack(found, dim=1).flatten(1)


def pooled(spread: Spread, axes: tuple[str, ...], product: Float[Tensor, "batch *place"], windows: dict) -> Cells:
    """Summed over everything but the prompts and the starred axes, in the order of the index."""
    return _pooled(spread.site, spread, axes, product, windows)


def _pooled(site: Site, spread: Spread, axes: tuple[str, ...], product: Float[Tensor, "batch *place"], windows: dict) -> Cells:
    starred = [a for a, v in site.index if isinstance(v, Span)]
    if "role" in starred:
        parts = [_pooled(spread.at(site, role=entry), spread, axes, product, windows) for entry in spread.entries["role"]]
        return torch.stack(parts, dim=1 + starred.index("role"))
    chosen = select(site, axes, product, windows)
    if chosen is None:
        raise WrongAxis(f"{site} lies outside this run.")
    fixed = {a for a, v in site.index if not isinstance(v, Span)}
    left = [a for a in axes if a not in fixed]
    part = chosen.take(product).float()
    summed = part.sum([d for d, a in enumerate(left) if a != "batch" and a not in starred])
    kept = [a for a in left if a == "batch" or a in starred]
    return summed.permute([kept.index(a) for a in ("batch", *starred)])
