"""Effects: how much of the clean run's answer comes back when one place of it is put into the corrupt run.

Activation patching, the exact kind: every cell of the pattern is patched by itself and the metric read. The sweep goes
through `model/replay.py`, which runs nothing that cannot have changed. Estimates give all cells from a few gradients:
`pc.gradient`, and in their own files `integrated`, `atp_star` and `shapley` (which is dear, and says what cells do together).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from patchclamp.cause.comparison import AnyMetric, Comparison, Estimated, Estimator
from patchclamp.cause.spread import Roles
from patchclamp.core.edit import patch
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.model.inputs import Prompt
from patchclamp.model.measure import changes
from patchclamp.model.model import Model
from patchclamp.model.ride import Cell


def exact(c: Comparison) -> Estimated:
    """Every cell patched by itself."""
    return swept(c, c.spread.sites)


def effects(model: Model, clean: Prompt, corrupt: Prompt, sites: str | Site, metric: AnyMetric, *, estimate: Estimator = exact,
            window: int = 1, severed: Sequence[str] = (), roles: Roles | None = None) -> Grid:  # fmt: skip
    """Patch the clean run's value into the corrupt run, place by place, and read how the metric changes.

    Every star of `sites` is an axis of the answer. Values are the metric after patching minus the metric of the corrupt
    run, averaged over prompts (`Grid.each` has them prompt by prompt); `Grid.baseline` holds the metric of both runs, and
    `Grid.fraction()` their share of the gap. The prompts of a pair must have the same number of tokens.

    Prompts that say the same thing at different tokens are averaged by role: with `roles`, the tokens of each role prompt by
    prompt (`aligned` of `core/pair.py` finds them), `[role=*]` patches every prompt at its own token. Prompts may then differ
    in length.

    `window` patches the same place in that many neighbouring layers at once. What is `severed` ("mlp", "attn") is held as it
    is in the corrupt run, so that nothing passes through it: the difference to the whole effect is what it carries (Meng et
    al. 2022). From five prompts on, `Grid.details` has the ends of each value's 95 % interval. For noising, swap the prompts.

    Vig et al. 2020; Meng et al. 2022, "causal tracing"; Wang et al. 2022.

    >>> metric = pc.logit_diff(" Mary", " John")
    >>> grid = pc.effects(model, clean, corrupt, "blocks.*.out[pos=*]", metric)
    >>> grid.shape
    {'layer': 4, 'pos': 15}
    >>> grid.fraction().top(1)[0][1] > 0.9
    True
    >>> pc.effects(model, clean, corrupt, "blocks.*.out[role=*]", metric, roles={"giver": [10], "end": [-1]}).shape
    {'layer': 4, 'role': 2}
    """
    c = Comparison.of(model, clean, corrupt, sites, metric, window=window, severed=severed, roles=roles)
    notes = (f"{window} layers at a time." if window > 1 else "",
             f"Nothing passes through {' or '.join(severed)}." if severed else "")  # fmt: skip
    return c.grid(Estimated(*estimate(c)), f"Change of the {c.named[0]}, patching {c.spread.site}", *notes)


def swept(c: Comparison, sites: Sequence[Site]) -> Estimated:
    """The effects of these places, each patched by itself."""
    return together(c, [[site] for site in sites])


def together(c: Comparison, sets: Sequence[Sequence[Site]]) -> Estimated:
    """The effect of each set of places, all of its places patched at once."""
    cells = [_cell(c, sites) for sites in sets]
    found = torch.zeros(len(cells), c.corrupt.batch)
    # Before the first differing token both runs are the same, so patching there changes nothing.
    todo = [i for i, sites in enumerate(sets) if not all(_before(c, site) for site in sites)]
    found[todo], base = changes(c.model, c.corrupt, [cells[i] for i in todo], c.metric, "patching")
    return Estimated(found.T, base)


def _cell(c: Comparison, sites: Sequence[Site]) -> Cell:
    """The edits that patch these places, and the first token they can change."""
    edits = tuple((one.path, patch(one, c.clean)) for site in sites for one in c.spread.around(site, c.window))
    firsts = [min(columns) if (columns := c.spread.columns(site)) else c.since for site in sites]
    return Cell(edits, min(firsts, default=0) if c.model.anatomy.main.causal else 0)


def _before(c: Comparison, site: Site) -> bool:
    """A place at one token that lies before the first differing one, in a model whose tokens see only earlier ones."""
    columns = c.spread.columns(site) if "pos" in dict(site.index) else None
    return columns is not None and c.model.anatomy.main.causal and max(columns) < c.since
