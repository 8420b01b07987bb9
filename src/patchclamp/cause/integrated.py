"""Integrated gradients: slopes taken along the way from the corrupt to the clean run, not at its beginning alone.

A gradient says what the first small step would do; the sum over small steps says what the whole way does (Sundararajan et al.
2017). Two ways are served, because a third, the only one that gives single cells exactly, costs as much as patching each:

    along="inputs"       everything moves together: the first block reads a mixture of both prompts' embeddings, and `steps`
                         gradients serve all places (Hanna et al. 2024, for edges). Complete for the embedding alone.
    along="activations"  one place moves at a time, all of its heads, neurons and tokens together, while everything before it
                         stays corrupt: `steps` gradients for every place (Marks et al. 2024, for features). Complete for
                         each place: its cells add up to the exact effect of patching all of it.

The second is the default: on the town's indirect objects its cells are within 1 to 10 % of the exact ones where plain gradients
miss them by 28 to 62 %, and gradients along the inputs, within 14 to 52 %, rank small cells worse than plain ones do.

Slopes are taken in the middle of each step, so few steps go far. What is shared between the cells of one place (an OR of two
heads, say) is divided among them as their straight way divides it; only `shapley` divides it evenly.
"""

from __future__ import annotations

import torch

from patchclamp.cause.comparison import Answers, Comparison, Estimated, Estimator
from patchclamp.cause.estimate import products, single
from patchclamp.core.edit import Edit
from patchclamp.core.errors import Unserved
from patchclamp.core.progress import progress
from patchclamp.core.run import Run
from patchclamp.core.site import Site


def integrated(steps: int = 5, along: str = "activations") -> Estimator:
    """(clean - corrupt) times the mean gradient at `steps` points of the way, summed over each cell.

    >>> from patchclamp.cause.integrated import integrated
    >>> metric, sites = pc.logit_diff(" Mary", " John"), "blocks.0.in[pos=*]"
    >>> whole = pc.effects(model, clean, corrupt, sites, metric, estimate=integrated(steps=20))
    >>> abs(float(whole.fraction().values.sum()) - 1) < 0.02
    True
    """
    if along not in ("inputs", "activations"):
        raise ValueError(f'along is "inputs" or "activations", not "{along}".')
    if steps < 1:
        raise ValueError(f"steps is how many gradients are taken on the way, one or more; got {steps}.")

    def estimate(c: Comparison) -> Estimated:
        single(c)
        base = c.model.run(c.corrupt, c.spread.paths)
        cells = _inputs(c, base, steps) if along == "inputs" else _activations(c, base, steps)
        return Estimated(cells, c.read(base.logits), f"Estimated from gradients at {steps} points along the {along}.")

    estimate.__name__ = f"integrated(steps={steps}, along={along!r})"
    return estimate


def _inputs(c: Comparison, corrupt: Run, steps: int) -> Answers:
    """Every place at once, while the first block reads a mixture."""
    if "decoder_input_ids" in c.corrupt.arguments:
        raise Unserved(f'what the decoder of {c.model.name} reads is the same for both prompts; take along="activations".')
    first = f"{c.model.anatomy.main.blocks[0].path}.in"
    ours, theirs = (c.model.run(inputs, first, logits=False)[first] for inputs in (c.spread.inputs, c.corrupt))
    found = []
    for part in progress(middles(steps), label="gradients"):
        slope = _slope(c, Edit(first, lambda old, by=part * (ours - theirs): old + by), c.spread.paths)
        found.append(products(c, corrupt, slope, c.spread.paths))
    return torch.stack(found).mean(0)


def _activations(c: Comparison, corrupt: Run, steps: int) -> Answers:
    """One place after the other, each moved as a whole."""
    found = []
    for path in progress(c.spread.paths, label="gradients"):
        ours, theirs = (run.stored(Site.parse(path))[0] for run in (c.clean, corrupt))
        moved = [Edit(path, lambda old, to=theirs + part * (ours - theirs): to.to(old.dtype)) for part in middles(steps)]
        found.append(torch.stack([products(c, corrupt, _slope(c, edit, (path,)), (path,)) for edit in moved]).mean(0))
    return torch.cat(found, dim=1)


def middles(steps: int) -> list[float]:
    """The middle of each of so many steps from 0 to 1.

    >>> middles(2)
    [0.25, 0.75]
    """
    return [(k + 0.5) / steps for k in range(steps)]


def _slope(c: Comparison, edit: Edit, paths: tuple[str, ...]) -> Run:
    return c.model.edit(edit).run(c.corrupt, paths, grad=True).gradient(c.metric)
