"""Ablation: what is lost when a place is knocked out, place by place.

`by` says what a place holds afterwards: nothing (`pc.zero`), its mean (`lambda site: pc.mean(site, over=run)`), what it held on
another prompt (`lambda site: pc.patch(site, other)`, the counterfactual, or `resampled(run)`, any other one), noise
(`noised(scale)`), or, for attention scores, nothing for chosen tokens (`blocked(queries, keys)`, attention knockout; Geva et
al. 2023). With `window` the same place is knocked out in several neighbouring layers at once.

Zero is rarely what a model expects at a place; a resampled or counterfactual value is (Zhang & Nanda 2024). And a place that
others can stand in for shows less than it does: nothing here sees that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from patchclamp.cause.comparison import AnyMetric, bounds
from patchclamp.cause.spread import Roles, Spread
from patchclamp.core.edit import Edit, Here, patch, zero
from patchclamp.core.errors import ShapeMismatch, Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric, called, read
from patchclamp.core.progress import progress
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.core.window import Window
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model
from patchclamp.model.replay import sweep
from patchclamp.model.ride import Cell


def ablate(model: Model, prompt: Prompt, sites: str | Site, metric: AnyMetric, *, by: Callable[[Site], Edit] = zero,
           window: int = 1, roles: Roles | None = None) -> Grid:  # fmt: skip
    """Knock out every place of a pattern, by itself, and read how the metric changes: after minus before.

    Every star is an axis. `by` makes an edit of a concrete site; `window` is how many layers around each are edited together.
    `Grid.baseline["metric"]` is the metric before; `Grid.each` has the values prompt by prompt, and from five prompts on
    `Grid.details` the ends of their 95 % intervals. `roles` are as in `pc.effects`.

    >>> from patchclamp.cause.ablate import ablate
    >>> grid = ablate(model, clean, "blocks.*.attn.z[head=*]", pc.logit_diff(" Mary", " John"))
    >>> grid.top(1, "smallest")[0][0]["layer"] in "23"
    True
    """
    site, inputs = Site.parse(sites), model.inputs(prompt)
    run = model.run(inputs, model.places(site))
    if run.output is None:
        raise Unserved(f"{model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
    bound = model.metric(metric, run)
    spread = Spread(run, inputs, site, model.places(site), roles)
    base = read(bound, run.logits, inputs.batch)
    starts = [min(spread.columns(one) or (0,)) if model.anatomy.main.causal else 0 for one in spread.sites]
    cells = [Cell(tuple((s.path, by(s)) for s in spread.around(one, window)), start)
             for one, start in zip(spread.sites, starts)]  # fmt: skip
    found = torch.zeros(len(cells), inputs.batch)
    last = isinstance(bound, Metric) and bound.columns is None
    for answer in progress(sweep(model, inputs, cells, last), label="ablating"):
        for n, logits in zip(answer.cells, answer.logits):
            found[n] = read(bound, logits, inputs.batch) - base
    each, axes, labels = spread.shaped(found.T)
    name, unit = called(metric)
    return Grid(each.mean(0), axes, labels, unit=unit, each=each, details=bounds(each), baseline={"metric": float(base.mean())},
                title=f"Change of the {name} without {site}",
                note=f"{window} layers at a time." if window > 1 else "")  # fmt: skip


def shuffled(run: Run, seed: int = 0) -> Run:
    """The same run with its prompts in another order, none in its own place: what a resample ablation patches in."""
    rows = run.tokens.shape[0]
    if rows < 2:
        raise ShapeMismatch("resampling takes values from other prompts; run several of them.")
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    taken = torch.empty_like(order)
    taken[order] = order.roll(1)  # one cycle through all: nobody gets their own
    kept = {path: replace(k, value=k.value[taken.to(k.value.device)], windows=_ordered(k.windows, taken.tolist()))
            for path, k in run.kept.items()}  # fmt: skip
    return replace(run, tokens=run.tokens[taken], windows=_ordered(run.windows, taken.tolist()), kept=kept,
                   output=None if run.output is None else run.output[taken])  # fmt: skip


def resampled(run: Run, seed: int = 0) -> Callable[[Site], Edit]:
    """What each place of this run holds on another of its prompts: `ablate(model, prompts, sites, metric, by=resampled(run))`.

    The other prompt is asked at its own token, so that with roles a giver is replaced by a giver, wherever they stand.
    """
    order = shuffled(replace(run, tokens=torch.arange(run.tokens.shape[0])[:, None], kept={}, output=None), seed)
    donors = order.tokens[:, 0]

    def by(site: Site) -> Edit:
        return patch(site, run[site][donors.to(run[site].device)])

    return by


def _ordered(windows: Mapping[str, Window], rows: Sequence[int]) -> dict[str, Window]:
    """Where each prompt lies, once they stand in another order."""

    def turned(at: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return at and tuple(at[row] for row in rows)

    return {name: replace(w, first=turned(w.first), end=turned(w.end)) for name, w in windows.items()}


def noised(scale: float, seed: int = 0) -> Callable[[Site], Edit]:
    """Gaussian noise of a standard deviation, added; the same for the same seed and site."""

    def by(site: Site) -> Edit:
        return Edit(site, _noisy, "noise", {"scale": scale, "seed": seed})

    return by


def blocked(queries: Iterable[int], keys: Iterable[int]) -> Callable[[Site], Edit]:
    """Attention scores of these queries to these keys are as if masked; for sites such as `blocks.*.attn.scores[head=*]`.

    Positions are counted in the prompt as it stands in the batch; negative ones from its end.
    """
    pairs = tuple(queries), tuple(keys)

    def by(site: Site) -> Edit:
        if site.parts[-1] != "scores":
            raise WrongAxis(f"attention is blocked at attn.scores; {site} is another place.")
        return Edit(site, _blocked, "blocked", {"queries": pairs[0], "keys": pairs[1]})

    return by


def _blocked(value: Tensor, here: Here, queries: tuple[int, ...], keys: tuple[int, ...]) -> Tensor:
    window = here.windows["query"]
    length = window.start + value.shape[-2]
    rows = [q % length - window.start for q in queries if q % length >= window.start]
    made = value.clone()
    for row in rows:
        made[..., row, [k % length for k in keys]] = torch.finfo(value.dtype).min
    return made


def _noisy(value: Tensor, here: Here, scale: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(map(ord, str(here.site))))
    window = here.windows.get("pos")
    if window is None or "pos" in dict(here.site.index):
        return value + scale * torch.randn(value.shape, generator=generator).to(value)
    whole = torch.randn((value.shape[0], window.start + value.shape[1], *value.shape[2:]), generator=generator)
    return value + scale * whole[:, window.start :].to(value)
