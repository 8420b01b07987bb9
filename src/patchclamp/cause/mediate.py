"""Mediation: of the whole effect of a change of prompts, how much goes through a place, and how much goes round it?

Pearl (2001), for language models Vig et al. (2020). The treatment is the change from the corrupt to the clean prompt, a place
is the mediator M, the metric is the outcome Y:

    total         Y(clean) - Y(corrupt)
    indirect      Y(corrupt prompt, M as in clean) - Y(corrupt)       the natural indirect effect: what `pc.effects` gives
    direct        Y(clean prompt, M as in corrupt) - Y(corrupt)       the natural direct effect
    interaction   total - direct - indirect                           what it takes both for

Where the outcome is linear in both, there is no interaction and the two ways add up. Where there is one, the place matters more
(or less) once the rest of the prompt has changed as well: its indirect effect and interaction together are what is lost when
it is taken out of the clean run (noising, the total indirect effect). A place that another can stand in for has an interaction
of the opposite sign.

The places of a pattern are mediators one by one: effects of several do not add up.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from patchclamp.cause.comparison import AnyMetric, Comparison, Estimated, bounds
from patchclamp.cause.effects import swept
from patchclamp.cause.spread import Roles
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model

KINDS = ("total", "direct", "indirect", "interaction")


def mediate(model: Model, clean: Prompt, corrupt: Prompt, sites: str | Site, metric: AnyMetric, *,
            roles: Roles | None = None) -> Grid:  # fmt: skip
    """Total, direct and indirect effect of the clean prompt for every place of a pattern, and their interaction.

    The first axis is `effect`; the others are the pattern's. Two exact sweeps, one over each prompt.

    >>> from patchclamp.cause.mediate import mediate
    >>> grid = mediate(model, clean, corrupt, "blocks.*.out[pos=-1]", pc.logit_diff(" Mary", " John"))
    >>> [round(v) for v in grid.fraction().at(layer=3).values.tolist()]
    [1, 0, 1, 0]
    """
    there = Comparison.of(model, clean, corrupt, sites, metric, roles=roles)
    back = Comparison.of(model, corrupt, clean, sites, metric, roles=roles)
    indirect, lost = swept(there, there.spread.sites), swept(back, back.spread.sites)
    total = (lost.base - indirect.base)[:, None].expand_as(indirect.cells)
    direct = total + lost.cells
    kinds = (total, direct, indirect.cells, total - direct - indirect.cells)
    each = torch.stack([there.spread.shaped(cells)[0] for cells in kinds], dim=1)
    title = f"Ways of the {there.named[0]} through and round {there.spread.site}"
    one = there.grid(Estimated(indirect.cells, indirect.base), title)
    axes, labels = ("effect", *one.axes), {**one.labels, "effect": KINDS}
    return replace(one, values=each.mean(0), axes=axes, labels=labels, each=each, details=bounds(each))
