"""Effects: how much of the clean run's answer comes back when one place of it is put into the corrupt run.

Activation patching, the exact kind: every cell of the pattern is patched by itself and the metric read. The sweep goes
through `model/replay.py`, which runs nothing that cannot have changed. `estimate=pc.gradient` gives every cell at once,
to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.cause.estimate import Comparison, Estimator
from patchclamp.core.axes import POSITIONS, Cells, Logits, PerPrompt
from patchclamp.core.edit import patch
from patchclamp.core.errors import Unserved, WrongAxis, WrongPrompt
from patchclamp.core.grid import Grid, by_stars
from patchclamp.core.metric import Metric
from patchclamp.core.progress import progress
from patchclamp.core.site import Site, Span
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model
from patchclamp.model.replay import sweep
from patchclamp.model.ride import Cell


def exact(c: Comparison) -> tuple[Cells, PerPrompt]:
    """Every cell patched by itself."""
    spans = [(a, v) for a, v in c.site.index if isinstance(v, Span)]
    shape = [_entries(c, axis, span) for axis, span in spans]
    fixed = tuple((a, v) for a, v in c.site.index if not isinstance(v, Span))
    cells, sizes = [], [len(c.paths), *map(len, shape)]
    for path in c.paths:
        for place in _product(shape):
            index = (*fixed, *((a, i) for (a, _), i in zip(spans, place)))
            cells.append(_cell(c, path, index))
    base = c.read(c.model.run(c.corrupt).logits)
    effects = torch.zeros(len(cells), c.corrupt.batch)
    # Before the first differing token both runs are the same, so patching there changes nothing.
    todo = [i for i, cell in enumerate(cells) if not _before(cell, c)]
    last = isinstance(c.metric, Metric) and c.metric.columns is None
    answers = sweep(c.model, c.corrupt, [cells[i] for i in todo], last)
    for answer in progress(answers, label="patching"):
        for n, logits in zip(answer.cells, answer.logits):
            effects[todo[n]] = c.read(logits) - base
    return effects.T.reshape(c.corrupt.batch, *sizes), base


def effects(model: Model, clean: Prompt, corrupt: Prompt, sites: str | Site, metric: Metric | Callable[[Logits], PerPrompt],
            *, estimate: Estimator = exact) -> Grid:  # fmt: skip
    """Patch the clean run's value into the corrupt run, place by place, and read how the metric changes.

    Every star of `sites` is an axis of the answer. Values are the metric after patching minus the metric of the corrupt
    run, averaged over prompts (`Grid.each` has them prompt by prompt); `Grid.baseline` holds the metric of both runs, and
    `Grid.fraction()` their share of the gap. The prompts of a pair must have the same number of tokens.

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
    comparison = Comparison(model, run, theirs, site, paths, bound, since)
    goal = comparison.read(run.logits)
    cells, base = estimate(comparison)
    each, axes, labels = _shaped(comparison, ours, cells)
    name = metric.name if isinstance(metric, Metric) else getattr(metric, "__name__", "metric")
    return Grid(
        each.mean(0), axes, labels, unit=metric.unit if isinstance(metric, Metric) else "", each=each,
        title=f"Change of the {name}, patching {site}",
        baseline={"clean": float(goal.mean()), "corrupt": float(base.mean())},
        note="" if estimate is exact else "Estimated from gradients, to first order.",
    )  # fmt: skip


def comparable(clean: Inputs, corrupt: Inputs) -> int:
    """The first token in which two batches differ; an error where they cannot be laid side by side."""
    a, b = clean.tokens, corrupt.tokens
    if clean.batch != corrupt.batch or a.shape != b.shape or clean.windows != corrupt.windows:
        raise WrongPrompt(
            f"patching lays two prompts side by side, token by token: the clean one has {a.shape[1]} tokens"
            f"{f' in {a.shape[0]} prompts' if a.shape[0] > 1 else ''}, the corrupt one {b.shape[1]}"
            f"{f' in {b.shape[0]} prompts' if b.shape[0] > 1 else ''}. Reword one so that they match."
        )
    if set(clean.arguments) != set(corrupt.arguments):
        raise WrongPrompt("the two prompts come with different inputs; prepare them in the same way.")
    differs = (a != b).any(0)
    if not a.shape[1] or "decoder_input_ids" in clean.arguments:
        return _encoders_match(clean, corrupt)
    if not bool(differs.any()):
        raise WrongPrompt("the clean and the corrupt prompt are the same tokens; there is nothing to patch.")
    return int(differs.int().argmax())


def _encoders_match(clean: Inputs, corrupt: Inputs) -> int:
    """Whatever else goes in must have the same shape; nothing is known to be the same up to some token."""
    for name, value in clean.arguments.items():
        other = corrupt.arguments[name]
        if isinstance(value, Tensor) and value.shape != other.shape:
            raise WrongPrompt(
                f"patching lays two prompts side by side: {name} is {list(value.shape)} for the clean one and "
                f"{list(other.shape)} for the corrupt one. Reword one so that they match."
            )
    return 0


def _entries(c: Comparison, axis: str, span: Span) -> list[int]:
    value, axes, windows = c.clean.stored(Site.parse(c.paths[0]))
    if axis not in axes:
        raise WrongAxis(f'{c.site} has no axis "{axis}"; its axes are {" ".join(axes)}.')
    if axis in windows and c.corrupt.padded:
        raise WrongPrompt(f"{c.site} has a star over positions, but the prompts differ in length; run them pair by pair.")
    return list(span.of(value.shape[axes.index(axis)]))


def _product(shape: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    return [(i, *rest) for i in shape[0] for rest in _product(shape[1:])] if shape else [()]


def _cell(c: Comparison, path: str, index: tuple[tuple[str, int | Span], ...]) -> Cell:
    position = dict(index).get("pos", dict(index).get("query"))
    n = c.corrupt.tokens.shape[1]
    start = c.since
    if isinstance(position, int):
        start = max(position if position >= 0 else n + position, 0)
    site = Site(Site.parse(path).parts, index)
    causal = c.model.anatomy.main.causal
    return Cell(path, patch(site, c.clean), start if causal else 0)


def _before(cell: Cell, c: Comparison) -> bool:
    """A cell at one token that lies before the first differing one, in a model whose tokens see only earlier ones."""
    return c.model.anatomy.main.causal and cell.start < c.since and "pos" in dict(cell.edit.site.index)


def _shaped(
    c: Comparison, clean: Inputs, each: Float[Tensor, "batch path *starred"]
) -> tuple[Cells, tuple[str, ...], dict[str, list[str]]]:
    """The answer with the pattern's axes: paths become their stars, positions and heads their labels."""
    made, axes, labels = by_stars(c.site, c.paths, each)
    for axis, span in ((a, v) for a, v in c.site.index if isinstance(v, Span)):
        labels[axis] = _words(c, clean, axis, _entries(c, axis, span))
    return made, axes, labels


def _words(c: Comparison, clean: Inputs, axis: str, entries: list[int]) -> list[str]:
    """The numbers of the entries; beside them the tokens, where that is what the axis counts."""
    value, axes, _ = c.clean.stored(Site.parse(c.paths[0]))
    ids = clean.ids(c.paths[0], axis) if axis in POSITIONS else []
    if len(ids) != value.shape[axes.index(axis)]:
        return [str(i) for i in entries]
    words = c.clean.reader.words(ids)
    return [f"{i} {words[i].strip() or repr(words[i])}" for i in entries]
