"""Trajectories: how a prediction comes about from layer to layer.

A lens answers layer by layer; these read its answers downwards. `evolution` and `curve` follow a number (divergence from the
output, entropy, rank, probability) through the layers, `depth` is the layer from which on the top token stays (Baldock et al.
2021, there by nearest neighbours: a measure of how hard an example is), `steps` how much each block changes what would be said,
`between` how far the readings of any two layers lie apart.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongAxis, did_you_mean
from patchclamp.core.grid import Grid
from patchclamp.lenses.logit import UNITS
from patchclamp.lenses.readings import Output
from patchclamp.lenses.translator import Translator
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model
from patchclamp.model.unembed import End
from patchclamp.picture import Lines, Series


def evolution(grid: Grid, what: str = "KL") -> Grid:
    """One of the numbers of a lens's answer as a grid of its own: `KL`, `entropy`, `rank` or `p(output)`, by layer and
    position.

    >>> from patchclamp.lenses.trajectory import evolution
    >>> kl = evolution(pc.lens(model, clean), "KL")
    >>> kl.axes, float(kl.values[-1].max())
    (('layer', 'pos'), 0.0)
    """
    if what not in grid.details:
        raise Unserved(f'this grid has no "{what}"; a lens has {", ".join(UNITS)}.{did_you_mean(what, grid.details)}')
    return replace(grid, values=grid.details[what], unit=UNITS.get(what, ""), title=f"{grid.title}: {what}", details={})


def curve(grid: Grid, what: str = "KL") -> Lines:
    """The same over layers, in the middle of all tokens; the band holds the middle half of them.

    >>> from patchclamp.lenses.trajectory import curve
    >>> curve(pc.lens(model, clean), "entropy").series[0].y.shape
    (4,)
    """
    _layered(grid)
    values = evolution(grid, what).values.flatten(1)
    low, middle, high = (values.nanquantile(q, dim=1).numpy() for q in (0.25, 0.5, 0.75))
    x = torch.arange(len(values)).float().numpy()
    return Lines(x, (Series(what, middle, low, high),), "layer", what, UNITS.get(what, ""), title=f"{grid.title}: {what}",
                 note="Median over tokens; the band holds the middle half.")  # fmt: skip


def depth(grid: Grid) -> Grid:
    """Prediction depth: of every token the first row from which on the top token is the one of the last row.

    Grid(pos), or Grid(prompt, pos): the number of a row of the lens, 0 where every row says it already.

    >>> from patchclamp.lenses.trajectory import depth
    >>> float(depth(pc.lens(model, clean)).values[-1])
    3.0
    """
    _layered(grid)
    tokens = grid.details["token"]
    same = (tokens == tokens[-1]) | tokens.isnan()
    stays = same.flip(0).cumprod(0).sum(0).float()
    values = torch.where(tokens[-1].isnan(), torch.nan, len(tokens) - stays)
    labels = {a: w for a, w in grid.labels.items() if a != "layer"}
    return Grid(values, grid.axes[1:], labels, unit="layers", title=f"{grid.title}: prediction depth", scale="sequential",
                note="The first layer from which on the top token stays.")  # fmt: skip


def steps(model: Model, prompt: Prompt, sites: str = "blocks.*.out", through: Translator | None = None) -> Grid:
    """How much each block changes what would be said: KL(reading after || reading before) in nats, Grid(layer, pos).

    The first layer that has one before it is the first row; rows add up to no whole, since divergences do not.

    >>> from patchclamp.lenses.trajectory import steps
    >>> steps(model, clean).shape
    {'layer': 3, 'pos': 15}
    """
    inputs = model.inputs(prompt)
    end, paths = End.of(model, inputs, sites), model.places(sites)
    if inputs.batch > 1 or len(paths) < 2:
        raise WrongAxis(f"steps are between two or more places on one prompt; {sites} on {inputs.batch} prompts is not.")
    rows, before = [], _said(end, paths[0], through)
    for path in paths[1:]:
        after = _said(end, path, through)
        rows.append(Output(after).read(before)["KL"][0])
        before = after
    labels = {"layer": [_short(p) for p in paths[1:]], **({"pos": end.run.words[0]} if end.run.words[0] else {})}
    return Grid(
        torch.stack(rows).cpu(), ("layer", "pos"), labels, unit="nats", title="What each block changes", scale="sequential"
    )


def between(
    model: Model, prompt: Prompt, sites: str = "blocks.*.out", through: Translator | None = None, pos: int = -1
) -> Grid:
    """How far apart any two layers read at one token: KL(row || column) in nats, Grid(layer, other).

    >>> from patchclamp.lenses.trajectory import between
    >>> apart = between(model, clean)
    >>> apart.shape, float(apart.values.diagonal().abs().max())
    ({'layer': 4, 'other': 4}, 0.0)
    """
    inputs = model.inputs(prompt)
    if inputs.batch > 1:
        raise WrongAxis(f"layers are compared on one prompt, not on {inputs.batch}.")
    end, paths = End.of(model, inputs, sites), model.places(sites)
    said = torch.stack([_said(end, path, through)[0, pos] for path in paths]).float().log_softmax(-1)
    p = said.exp()
    apart = torch.where(p[:, None] == 0, 0, p[:, None] * (said[:, None] - said[None])).sum(-1).clamp(min=0).cpu()
    words = [_short(path) for path in paths]
    return Grid(apart, ("layer", "other"), {"layer": words, "other": words}, unit="nats", scale="sequential",
                title="How far apart layers read")  # fmt: skip


def _said(end: End, path: str, through: Translator | None) -> Tensor:
    stream = end.run.kept[path].value
    return end((stream if through is None else through(path, stream))[None])[0]


def _short(path: str) -> str:
    return path.removeprefix("blocks.").removesuffix(".out")


def _layered(grid: Grid) -> None:
    if grid.axes[0] != "layer" or grid.axes[1:] not in (("pos",), ("prompt", "pos")):
        raise WrongAxis(
            f"a trajectory goes over layers; this grid has the axes {' '.join(grid.axes)}. Fix some with grid.at(...)."
        )
