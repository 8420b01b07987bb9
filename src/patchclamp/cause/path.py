"""Path patching: what one place tells another, and nothing else.

A sender carries what it carries in the clean run, everything between it and the receivers stays as it is in the corrupt run,
and the receivers are recomputed; then a corrupt run is made in which the receivers have those values, and the metric is read
(Wang et al. 2022; Goldowsky-Dill et al. 2023). `through` names what may pass the change on in between: nothing for the direct
path through the stream alone; feed-forward layers in the paper on indirect objects; attention.

Senders are rows of one batch in the first half, and cells of the same replay as activation patching in the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from patchclamp.cause.comparison import AnyMetric, Comparison, Estimated
from patchclamp.cause.spread import Roles
from patchclamp.core.edit import Edit, Here, patch
from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.core.window import select
from patchclamp.model.inputs import Prompt, tiled
from patchclamp.model.model import Model, Sites
from patchclamp.model.replay import sweep
from patchclamp.model.ride import Cell, on_rows

TOKENS = 8192
"""How many tokens the senders of one pass may have together."""


def paths(model: Model, clean: Prompt, corrupt: Prompt, senders: str | Site, receivers: Sites,
          metric: AnyMetric, *, through: Sequence[str] = (), roles: Roles | None = None) -> Grid:  # fmt: skip
    """The effect of each sender on the metric along the paths that lead straight to the receivers.

    Every star of `senders` is an axis of the answer; all `receivers` (`blocks.3.attn.q[head=7]`, or the patterns of several)
    are patched together. `through` may hold "mlp" and "attn": those layers between sender and receiver are then recomputed,
    and the paths through them belong to the answer. Values, and the `roles` of the senders, are as in `pc.effects`.

    >>> from patchclamp.cause.path import paths
    >>> metric = pc.logit_diff(" Mary", " John")
    >>> paths(model, clean, corrupt, "blocks.*.attn.z[head=*]", "blocks.3.attn.q[head=*]", metric).axes
    ('layer', 'head')
    """
    if set(through) - {"mlp", "attn"}:
        raise ValueError(f'through may hold "mlp" and "attn"; got {", ".join(map(repr, through))}.')
    ends, c = _receivers(model, receivers), Comparison.of(model, clean, corrupt, senders, metric, roles=roles)
    base = model.run(c.corrupt, _frozen(model, through))
    value, found = c.read(base.logits), torch.zeros(len(c.spread.sites), c.corrupt.batch)
    start = c.since if model.anatomy.main.causal else 0
    for seats, told in progress(_told(c, base, ends), label="paths"):
        cells = [Cell(tuple((e.path, _holding(e, told[e.path][n])) for e in ends), start) for n in range(len(seats))]
        for answer in sweep(model, c.corrupt, cells, c.last):
            for n, logits in zip(answer.cells, answer.logits):
                found[seats[n]] = c.read(logits) - value
    where = ", ".join(map(str, ends[:3])) + (f" and {len(ends) - 3} more" if len(ends) > 3 else "")
    note = f"Paths through {' and '.join(through)} count." if through else "Direct paths only."
    return c.grid(Estimated(found.T, value), f"Change of the {c.named[0]} along paths from {c.spread.site} to {where}", note)


def _receivers(model: Model, receivers: Sites) -> list[Site]:
    """Every concrete place that receives, whole or with its index."""
    given = [receivers] if isinstance(receivers, (str, Site)) else list(receivers)
    found = []
    for one in map(Site.parse, given):
        found += [Site(Site.parse(p).parts, one.index) for p in model.places(one)]
    return found


def _frozen(model: Model, through: Sequence[str]) -> list[str]:
    """The places that stay as they are: what every attention and feed-forward layer brings, unless it may pass things on."""
    places = model.anatomy.places
    found = []
    for block in model.anatomy.main.blocks:
        for name, site in (("attn", "attn.z"), ("mlp", "mlp.out")):
            path = f"{block.path}.{site}"
            if block.write(name) is not None and name not in through:
                if path not in places:
                    raise Unserved(f"{path} is not served in {model.name}, so what a path passes cannot be held.")
                found.append(path)
    return found


def _told(c: Comparison, base: Run, ends: list[Site]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """What the receivers get from some of the senders: their numbers, and for each place (sender, batch, ...)."""
    model, inputs, sites = c.model, c.corrupt, c.spread.sites
    room = max(TOKENS // max(inputs.tokens.numel(), 1), 1)
    keeps = dict.fromkeys(e.path for e in ends)
    heard = [n for n, site in enumerate(sites) if not _later(site, ends)]
    idle = _idle(model, base, [*sites, *ends])
    for first in range(0, len(heard), room):
        seats = heard[first : first + room]
        some = [sites[n] for n in seats]
        rows = tiled(inputs, len(some))
        forward = model.forward(rows, [Site.parse(k) for k in keeps], stop=True)
        for path in base.sites:
            free = [n for n, site in enumerate(some) if _inside(model, site, path)]
            forward.edit(path, _held(path, base.stored(Site.parse(path))[0], len(some), free))
        by_path: dict[str, list[tuple[int, Edit]]] = {}
        for n, site in enumerate(some):
            by_path.setdefault(site.path, []).append((n, patch(site, c.clean)))
        for path, mine in by_path.items():
            forward.edit(path, on_rows(path, mine, inputs.batch))
        forward.taps.instead.update({module: _giving(value, len(some)) for module, value in idle.items()})
        forward.run(lambda rows=rows: model.call(rows))
        yield seats, {k: forward.kept[k].value.unflatten(0, (len(some), inputs.batch)) for k in keeps}


def _later(sender: Site, ends: list[Site]) -> bool:
    """Whether a sender lies in a later block than every receiver, so that none can hear it."""
    layers = [end.layer for end in ends if end.layer is not None and end.path.startswith("blocks.")]
    return len(layers) == len(ends) and sender.path.startswith("blocks.") and (sender.layer or 0) > max(layers)


def _idle(model: Model, base: Run, asked: list[Site]) -> dict[str, Tensor]:
    """Feed-forward modules whose output is held and in which nothing is asked about: they need not run. What they return."""
    places = model.anatomy.places
    within = {site.path.rpartition(".mlp.")[0] for site in asked if ".mlp." in site.path and not site.path.endswith("mlp.out")}
    calls = Counter(module for place in places.values() for module in place.modules if place.path.endswith("mlp.out"))
    found = {}
    for path in base.sites:
        place = places[path]
        plain = place.kind == "output" and place.slot is None and not place.layout.steps and calls[place.modules[0]] == 1
        if path.endswith(".mlp.out") and plain and path.removesuffix(".mlp.out") not in within:
            found[place.modules[0]] = base.stored(Site.parse(path))[0]
    return found


def _giving(value: Tensor, times: int) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: value.repeat(times, *[1] * (value.ndim - 1))


def _inside(model: Model, sender: Site, path: str) -> bool:
    """Whether a sender lies inside the layer that writes here, so that what it says comes out here and nowhere else."""
    places = model.anatomy.places
    own = sender.path in places and sender.path.startswith(path.rpartition(".")[0] + ".")
    return own and places[sender.path].order < places[path].order


def _held(path: str, value: Tensor, times: int, free: Sequence[int]) -> Edit:
    """What a place holds in the base run, for every sender but those who speak through it."""
    batch = value.shape[0]

    def change(old: Tensor) -> Tensor:
        made = value.repeat(times, *[1] * (value.ndim - 1)).to(old.dtype)
        for n in free:
            made[n * batch : (n + 1) * batch] = old[n * batch : (n + 1) * batch]
        return made

    return Edit(path, change)


def _holding(end: Site, value: Tensor) -> Edit:
    """An edit that puts a place's own part of a whole value into it, cut to the tokens now being computed."""
    return Edit(end, _part, "holding", {"value": value})


def _part(old: Tensor, here: Here, value: Tensor) -> Tensor:
    window = here.windows.get("pos", here.windows.get("query"))
    dim = 1 if "pos" in here.axes else 2
    if window is not None:
        value = value.narrow(dim, window.start, window.length)
    chosen = select(here.site, here.axes, value, here.windows, here.late)
    assert chosen is not None
    return chosen.take(value).to(old.dtype)
