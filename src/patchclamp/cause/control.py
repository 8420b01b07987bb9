"""Controls: the same sweep with chance in the place of what was asked, drawn beside the answer.

That patching a place changes the metric need not mean that it holds what one thinks: any change of that size might, or any
place of that kind. So every cell is asked again, over several seeds, with

    control="direction"   what it holds in the corrupt run plus a *random direction of equal norm*, as far as the real
                          difference goes, token by token and head by head: what any change of this size does
    control="component"   the clean value of *another place of equal size*, drawn by lot: another layer, another head or neuron,
                          the same tokens: what any component does

Random directions know nothing of where activations usually lie, so they may break a model in ways that real ones do not: an
effect that does not beat them is no effect, one that does need not be special.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.cause.comparison import AnyMetric, Comparison, Estimated, Estimator, bounds
from patchclamp.cause.effects import exact, swept
from patchclamp.cause.spread import Roles
from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model

COMPONENTS = ("head", "kv_head", "neuron", "expert", "latent")
"""The axes that count what a place is made of."""


def beside(model: Model, clean: Prompt, corrupt: Prompt, sites: str | Site, metric: AnyMetric, *, control: str = "direction",
           seeds: Sequence[int] = (0, 1, 2), estimate: Estimator = exact, roles: Roles | None = None) -> Grid:  # fmt: skip
    """`pc.effects` with its control beside it: the first axis, `source`, has the clean run and a random one for each seed.

    All sources have intervals and p-values as any grid over prompts has; `p_values` corrects for the random cells as well.

    >>> from patchclamp.cause.control import beside
    >>> grid = beside(model, clean, corrupt, "blocks.*.out[pos=-1]", pc.logit_diff(" Mary", " John"), seeds=[0, 1]).fraction()
    >>> grid.axes, float(grid.at(source="clean", layer=3).values.round(decimals=2))
    (('source', 'layer'), 1.0)
    >>> bool(grid.at(source="random 1").values.abs().max() < 0.5)
    True
    """
    if control not in ("direction", "component"):
        raise ValueError(f'control is "direction" or "component", not "{control}".')
    if control == "component" and estimate is not exact:
        raise Unserved("places drawn by lot are patched exactly; leave estimate= out, or take random directions.")
    c = Comparison.of(model, clean, corrupt, sites, metric, roles=roles)
    found = [Estimated(*estimate(c)), *(_elsewhere(c, seed) if control == "component" else
             Estimated(*estimate(_astray(c, seed))) for seed in seeds)]  # fmt: skip
    one = c.grid(found[0], f"Change of the {c.named[0]}, patching {c.spread.site}, and its control")
    each = torch.stack([c.spread.shaped(f.cells)[0] for f in found], dim=1)
    said = {"direction": "Random sources lie as far from the corrupt run as the clean one, in a random direction.",
            "component": "Random sources are the clean run's, patched at another place of the same kind."}  # fmt: skip
    labels = {**one.labels, "source": ["clean", *(f"random {seed}" for seed in seeds)]}
    return replace(one, values=each.mean(0), axes=("source", *one.axes), labels=labels, each=each, details=bounds(each),
                   note=f"{one.note} {said[control]}".strip())  # fmt: skip


# ---- random directions -------------------------------------------------------------------------------------------------


def _astray(c: Comparison, seed: int) -> Comparison:
    return replace(c, clean=randomised(c.clean, c.model.run(c.corrupt, c.spread.paths), seed))


def randomised(clean: Run, corrupt: Run, seed: int = 0) -> Run:
    """A run as far from the corrupt one as the clean one is at every place it kept, but in a random direction."""
    kept = {}
    for n, (path, place) in enumerate(clean.kept.items()):
        if place.axes[-1] == "key":
            raise Unserved(
                f"{path} holds attention, and in a random direction from it lies no attention; take attn.z or attn.q."
            )
        there = corrupt.stored(Site.parse(path))[0]
        kept[path] = replace(place, value=_turned(place.value, there, seed + 1000 * n))
    return replace(clean, kept=kept)


def _turned(clean: Float[Tensor, "*place"], corrupt: Float[Tensor, "*place"], seed: int) -> Float[Tensor, "*place"]:
    """Along the last axis: the corrupt value plus a random vector of the difference's norm."""
    drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean.device)
    size = (clean - corrupt).float().norm(dim=-1, keepdim=True)
    return corrupt + (drawn / drawn.norm(dim=-1, keepdim=True) * size).to(corrupt.dtype)


# ---- random components -------------------------------------------------------------------------------------------------


def _elsewhere(c: Comparison, seed: int) -> Estimated:
    """Every cell patched at another place of its kind."""
    kind = c.spread.site.parts
    layers = [i for i, part in enumerate(kind) if i and kind[i - 1] == "blocks"]
    paths = c.model.places(Site(tuple(Span() if i in layers else part for i, part in enumerate(kind))))
    run, rng = c.model.run(c.spread.inputs, paths), Random(seed)
    return swept(replace(c, clean=run), [_another(site, run, rng) for site in c.spread.sites])


def _another(site: Site, run: Run, rng: Random) -> Site:
    """A place of the same name and shape, drawn by lot from all layers and all heads, neurons or latents."""
    sizes: dict[str, dict[str, int]] = {}
    for path in run.sites:
        value, axes, _ = run.stored(Site.parse(path))
        sizes[path] = {a: value.shape[axes.index(a)] for a, _ in site.index if a in COMPONENTS}
    if sum(prod(counts.values()) for counts in sizes.values()) < 2:
        raise Unserved(f"there is no other place like {site} in this model; take random directions.")
    while True:
        path = rng.choice(run.sites)
        entries = {axis: rng.randrange(count) for axis, count in sizes[path].items()}
        if path != site.path or any(dict(site.index)[axis] != entry for axis, entry in entries.items()):
            return Site(Site.parse(path).parts, site.index).at(**entries)
