"""Effects: how much of the clean run's answer comes back when one place of it is put into the corrupt run.

Activation patching, the exact kind: every cell of the pattern is patched by itself and the metric read. The sweep goes
through `model/replay.py`, which runs nothing that cannot have changed. `estimate=pc.gradient` gives every cell at once,
to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from patchclamp.cause.estimate import Answers, Comparison, Estimator
from patchclamp.cause.spread import Spread
from patchclamp.core.axes import Cells, Logits, PerPrompt
from patchclamp.core.edit import freeze, patch
from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric, called
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST, interval
from patchclamp.model.comparable import comparable
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.measure import measure
from patchclamp.model.model import Model
from patchclamp.model.ride import Cell


def exact(c: Comparison) -> tuple[Answers, PerPrompt]:
    """Every cell patched by itself."""
    cells = [_cell(c, site) for site in c.spread.sites]
    base = c.read(c.model.run(c.corrupt).logits)
    effects = torch.zeros(len(cells), c.corrupt.batch)
    # Before the first differing token both runs are the same, so patching there changes nothing.
    todo = [i for i, (cell, site) in enumerate(zip(cells, c.spread.sites)) if not _before(cell, site, c)]
    effects[todo] = measure(c.model, c.corrupt, [cells[i] for i in todo], c.metric, "patching") - base
    return effects.T, base


def effects(model: Model, clean: Prompt, corrupt: Prompt, sites: str | Site, metric: Metric | Callable[[Logits], PerPrompt],
            *, estimate: Estimator = exact, window: int = 1, severed: Sequence[str] = ()) -> Grid:  # fmt: skip
    """Patch the clean run's value into the corrupt run, place by place, and read how the metric changes.

    Every star of `sites` is an axis of the answer. Values are the metric after patching minus the metric of the corrupt
    run, averaged over prompts (`Grid.each` has them prompt by prompt); `Grid.baseline` holds the metric of both runs, and
    `Grid.fraction()` their share of the gap. The prompts of a pair must have the same number of tokens.

    `window` patches the same place in that many neighbouring layers at once. What is `severed` ("mlp", "attn") is held as it
    is in the corrupt run, so that nothing passes through it: the difference to the whole effect is what it carries (Meng et
    al. 2022). From five prompts on, `Grid.details` has the ends of each value's 95 % interval. For noising, swap the prompts.

    Vig et al. 2020; Meng et al. 2022, "causal tracing"; Wang et al. 2022.

    >>> grid = pc.effects(model, clean, corrupt, "blocks.*.out[pos=*]", pc.logit_diff(" Mary", " John"))
    >>> grid.shape
    {'layer': 4, 'pos': 15}
    >>> grid.fraction().top(1)[0][1] > 0.9
    True
    """
    site = Site.parse(sites)
    paths = model.places(site)
    ours, theirs = model.inputs(clean), model.inputs(corrupt)
    since = comparable(ours, theirs)
    run = model.run(ours, paths)
    if run.output is None:
        raise Unserved(f"{model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
    bound = model.metric(metric, run)
    spread = Spread(run, ours, site, paths)
    comparison = Comparison(_severed(model, theirs, severed), run, theirs, spread, bound, since, window)
    goal = comparison.read(run.logits)
    cells, base = estimate(comparison)
    each, axes, labels = spread.shaped(cells)
    name, unit = called(metric)
    notes = ["" if estimate is exact else "Estimated from gradients, to first order.",
             f"{window} layers at a time." if window > 1 else "",
             f"Nothing passes through {' or '.join(severed)}." if severed else ""]  # fmt: skip
    return Grid(
        each.mean(0), axes, labels, unit=unit, each=each, details=_bounds(each),
        title=f"Change of the {name}, patching {site}",
        baseline={"clean": float(goal.mean()), "corrupt": float(base.mean())},
        note=" ".join(filter(None, notes)),
    )  # fmt: skip


def _severed(model: Model, corrupt: Inputs, names: Sequence[str]) -> Model:
    """The model with what these layers add held as it is in the corrupt run."""
    if not names:
        return model
    for name in names:
        if name not in ("attn", "mlp"):
            raise ValueError(f'severed may hold "attn" and "mlp"; got "{name}".')
    run = model.run(corrupt, [f"blocks.*.{name}.out" for name in names])
    return model.edit(*(freeze(path, run) for path in run.sites))


def _bounds(each: Cells) -> dict[str, Tensor]:
    """The ends of the 95 % interval of each cell, where there are prompts enough."""
    if each.shape[0] < FEWEST:
        return {}
    low, high = interval(each)
    return {"low": low, "high": high}


def _cell(c: Comparison, site: Site) -> Cell:
    index = dict(site.index)
    position = index.get("pos", index.get("query"))
    n = c.corrupt.tokens.shape[1]
    start = c.since
    if isinstance(position, int):
        start = max(position if position >= 0 else n + position, 0)
    causal = c.model.anatomy.main.causal
    edits = tuple((one.path, patch(one, c.clean)) for one in c.spread.around(site, c.window))
    return Cell(edits, start if causal else 0)


def _before(cell: Cell, site: Site, c: Comparison) -> bool:
    """A cell at one token that lies before the first differing one, in a model whose tokens see only earlier ones."""
    return c.model.anatomy.main.causal and cell.start < c.since and "pos" in dict(site.index)
