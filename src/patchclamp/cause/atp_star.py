"""AtP*: attribution patching with its two worst failures mended (Kramar et al. 2024).

**A saturated softmax** has no slope, so patching a query or a key seems to do nothing. But what a pattern becomes under another
query or key need not be estimated: it is computed, by the model's own attention with the clean query or key put in, and only
the step from the pattern to the metric is taken to first order. Queries cost one pass for all of them; keys one pass for each
token asked about, since a pattern is not the sum of what its keys do.

**Cancellation**: two ways from a place to the answer can have opposite slopes, and their small steps cancel where large ones
would not. So the layers are made deaf one by one (no gradient passes through what one of them adds), and the absolute values
of what is then left are averaged, over the layers that the place does not itself lie in. What comes out has no sign, and is a
ranking, not an effect: `drop=False` leaves this out.

Neither sees a saturation elsewhere: in a norm, in a feed-forward layer, in the metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.cause.comparison import Answers, Comparison, Estimated, Estimator
from patchclamp.cause.estimate import pooled, products, single
from patchclamp.core.edit import Edit, freeze, patch
from patchclamp.core.progress import progress
from patchclamp.core.run import Run
from patchclamp.core.site import Entry, Site, Span
from patchclamp.core.window import select
from patchclamp.model.model import Model


def atp_star(drop: bool = True) -> Estimator:
    """AtP*: patterns under the clean query or key computed, and (with `drop`) layers made deaf in turn.

    One backward pass for each block with `drop`, one without. With `drop` values are averages of magnitudes.

    >>> from patchclamp.cause.atp_star import atp_star
    >>> metric = pc.logit_diff(" Mary", " John")
    >>> grid = pc.effects(model, clean, corrupt, "blocks.*.attn.q[head=*]", metric, estimate=atp_star())
    >>> grid.shape, bool((grid.values >= 0).all())
    ({'layer': 4, 'head': 8}, True)
    """

    def estimate(c: Comparison) -> Estimated:
        single(c)
        softmaxed = tuple(p for p in c.spread.paths if Site.parse(p).parts[-1] in ("q", "k"))
        kept = (*c.spread.paths, *dict.fromkeys(map(_pattern, softmaxed)))
        base = c.model.run(c.corrupt, kept)
        deaf = _deaf(c.model) if drop else [(None, c.model)]
        slopes = [(layer, _slope(c, model, kept)) for layer, model in progress(deaf, label="gradients")]
        mended = _softmaxed(c, base, softmaxed, [slope for _, slope in slopes])
        found = []
        for path in c.spread.paths:
            heard = [(layer, mended[path][n] if path in mended else products(c, base, slope, (path,)))
                     for n, (layer, slope) in enumerate(slopes)]  # fmt: skip
            found.append(_averaged(path, heard) if drop else heard[0][1])
        how = "magnitudes averaged over deaf layers" if drop else "no layer deaf"
        return Estimated(torch.cat(found, dim=1), c.read(base.logits), f"Estimated from gradients (AtP*, {how}).")

    estimate.__name__ = f"atp_star(drop={drop})"
    return estimate


def _slope(c: Comparison, model: Model, kept: Sequence[str]) -> Run:
    return model.run(c.corrupt, kept, grad=True).gradient(c.metric)


def _deaf(model: Model) -> list[tuple[int | None, Model]]:
    """For each block the model in which no gradient passes through what that block adds to the stream."""
    found: list[tuple[int | None, Model]] = []
    for layer, block in enumerate(model.anatomy.main.blocks):
        adds = [path for write in block.writes if (path := f"{block.path}.{write.name}.out") in model.anatomy.places]
        found.append((layer, model.edit(*map(freeze, adds))))
    return found


def _averaged(path: str, heard: Sequence[tuple[int | None, Answers]]) -> Answers:
    """The mean magnitude over the deaf layers, without that of the place itself, from which nothing would come."""
    site = Site.parse(path)
    own = site.layer if len(site.parts) > 1 and isinstance(site.parts[-2], str) else None  # the stream lies in no layer
    others = [cells.abs() for layer, cells in heard if layer != own]
    return torch.stack(others).mean(0) if others else torch.zeros_like(heard[0][1])


# ---- a softmax taken again ---------------------------------------------------------------------------------------------


def _softmaxed(c: Comparison, base: Run, paths: Sequence[str], slopes: Sequence[Run]) -> dict[str, list[Answers]]:
    """For every place of queries or keys and every set of slopes: the exact change of its pattern, times the slope there."""
    made = {path: [torch.zeros_like(base.stored(Site.parse(path))[0][..., :1]) for _ in slopes] for path in paths}
    asked = [(kind, entry) for kind in ("q", "k") for entry in (_tokens(c) if kind == "k" else [None])]
    for kind, entry in progress(asked, label="patterns"):
        mine = [path for path in paths if Site.parse(path).parts[-1] == kind]
        changes = _changes(c, base, mine, entry)
        for path in mine:
            for n, slope in enumerate(slopes):
                moved = (changes[path] * slope.kept[_pattern(path)].value).float()
                made[path][n] = _noted(base, path, entry, moved, made[path][n])
    found = {}
    for path in paths:
        _, axes, windows = base.stored(Site.parse(path))
        found[path] = [pooled(c.spread, axes, product, dict(windows)).reshape(len(product), -1) for product in made[path]]
    return found


def _tokens(c: Comparison) -> list[Entry | None]:
    """The tokens whose keys are asked about one at a time; None where all of them are patched together."""
    index = dict(c.spread.site.index)
    if "role" in c.spread.entries:
        return list(c.spread.entries["role"])
    if isinstance(index.get("pos"), Span):
        return list(c.spread.entries["pos"])
    return [index.get("pos")]


def _changes(c: Comparison, base: Run, paths: Sequence[str], entry: Entry | None) -> dict[str, Tensor]:
    """How the pattern of every layer changes when its queries or keys are the clean run's and all before it is corrupt.

    One pass serves all layers: each pattern is noted, and then put back to what it was.
    """
    found: dict[str, Tensor] = {}
    edits = []
    for path in paths:
        site, before = Site.parse(path), base.stored(Site.parse(_pattern(path)))[0]

        def note(pattern: Tensor, path: str = path, before: Tensor = before) -> Tensor:
            found[path] = pattern - before
            return before

        edits += [patch(site if entry is None else site.at(pos=entry), c.clean), Edit(_pattern(path), note)]
    if edits:
        c.model.edit(*edits).run(c.corrupt)
    return found


def _noted(base: Run, path: str, entry: Entry | None, moved: Float[Tensor, "batch head query key"], made: Tensor) -> Tensor:
    """What a place's own entries do to the metric, written where the place has them: (batch, pos, head, 1)."""
    if Site.parse(path).parts[-1] == "q":
        return moved.sum(-1).transpose(1, 2)[..., None]  # a query makes its own row of the pattern and no other
    value, axes, windows = base.stored(Site.parse(path))
    heads = moved.sum((-1, -2)).unflatten(1, (value.shape[axes.index("kv_head")], -1)).sum(-1)  # a group shares its key
    at = Site((), (("pos", 0 if entry is None else entry),))  # all together: noted at one token, since tokens are summed
    chosen = select(at, axes, made, dict(windows))
    assert chosen is not None
    return chosen.put(made, heads[..., None])


def _pattern(path: str) -> str:
    return f"{path.rpartition('.')[0]}.pattern"
