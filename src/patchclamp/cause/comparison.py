"""Comparison: two runs laid side by side, the places to be asked about, and what is asked. All that an estimator is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.cause.spread import Roles, Spread
from patchclamp.core.axes import Cells, Logits, PerPrompt
from patchclamp.core.edit import freeze
from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric, called, read
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST, interval
from patchclamp.model.comparable import comparable
from patchclamp.model.inputs import Inputs, Prompt, find_logits
from patchclamp.model.model import Model
from patchclamp.model.spare import inside, last_logits

AnyMetric = Metric | Callable[[Logits], PerPrompt]
Answers = Float[Tensor, "batch cell"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What an estimator is given: the model, the clean run (which kept the sites), and the corrupt prompt."""

    model: Model
    """What is swept: the model, with what is severed held as it is in the corrupt run."""
    clean: Run
    """It has the logits that the metric reads, which may be the last position's alone."""
    corrupt: Inputs
    spread: Spread
    metric: Callable[[Logits], PerPrompt]
    since: int
    """The first token in which the two prompts differ."""
    window: int = 1
    """How many neighbouring layers are patched together."""
    named: tuple[str, str] = field(default=("metric", ""))
    """What the metric is called, and its unit."""

    @classmethod
    def of(cls, model: Model, clean: Prompt, corrupt: Prompt, sites: str | Site, metric: AnyMetric, *, window: int = 1,
           severed: Sequence[str] = (), roles: Roles | None = None) -> Comparison:  # fmt: skip
        """Both prompts read, the clean one run, and every mistake found that can be found before the work begins."""
        site = Site.parse(sites)
        paths = model.places(site)
        ours, theirs = model.inputs(clean), model.inputs(corrupt)
        since = comparable(ours, theirs)
        run = _answered(model, ours, paths, metric)
        if run.output is None:
            raise Unserved(f"{model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
        spread = Spread(run, ours, site, paths, roles)
        bound = model.metric(metric, run)
        return cls(severed_model(model, theirs, severed), run, theirs, spread, bound, since, window, called(metric))

    def read(self, logits: Logits) -> PerPrompt:
        """The metric of each prompt, for keeping."""
        return read(self.metric, logits, self.corrupt.batch)

    def grid(self, found: Estimated, title: str, *notes: str) -> Grid:
        """The answers laid out along the pattern's stars, with both runs' metric as baselines and intervals over prompts."""
        each, axes, labels = self.spread.shaped(found.cells)
        details = {name: self.spread.shaped(cells[None])[0][0] for name, cells in found.details.items()}
        return Grid(
            each.mean(0), axes, labels, unit=self.named[1], each=each, details={**bounds(each), **details}, title=title,
            baseline={"clean": float(self.read(self.clean.logits).mean()), "corrupt": float(found.base.mean())},
            note=" ".join(filter(None, (found.note, *notes))),
        )  # fmt: skip


def _answered(model: Model, inputs: Inputs, paths: Sequence[str], metric: AnyMetric) -> Run:
    """A run that keeps these places, with the logits that the metric reads: the last position's, where it says so."""
    early = all(inside(Site.parse(p)) for p in paths)
    if not isinstance(metric, Metric) or metric.columns is not None or inputs.padded or not early:
        return model.run(inputs, paths)
    with torch.no_grad():
        forward = model.forward(inputs, paths)
        last = last_logits(model, forward)
        return model.result(inputs, forward, find_logits(forward.run(lambda: model.call(inputs, **last))))


class Estimated(NamedTuple):
    """What an estimator answers with."""

    cells: Answers
    """The effect of every cell on every prompt, in the order of `spread.sites`."""
    base: PerPrompt
    """The corrupt run's metric."""
    note: str = ""
    """How the answer was come by, where it is not exact."""
    details: Mapping[str, Float[Tensor, " cell"]] = {}
    """Further numbers for every cell."""


Estimator = Callable[[Comparison], tuple]
"""Gives an `Estimated`, or just its first two fields."""


def bounds(each: Cells) -> dict[str, Tensor]:
    """The ends of the 95 % interval of each cell, where there are prompts enough."""
    if each.shape[0] < FEWEST:
        return {}
    low, high = interval(each)
    return {"low": low, "high": high}


def severed_model(model: Model, corrupt: Inputs, names: Sequence[str]) -> Model:
    """The model with what these layers add held as it is in the corrupt run."""
    if not names:
        return model
    for name in names:
        if name not in ("attn", "mlp"):
            raise ValueError(f'severed may hold "attn" and "mlp"; got "{name}".')
    run = model.run(corrupt, [f"blocks.*.{name}.out" for name in names])
    return model.edit(*(freeze(path, run) for path in run.sites))
