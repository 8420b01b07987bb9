"""Check: is an estimate to be believed? It is compared with exact patching, on a sample of its own cells.

Half of the sample are the cells that the estimate calls strongest, which is where it could claim too much; the other half is
drawn by lot from the rest, which is where it could miss something. A strong effect that the estimate does not see is named as
saturated: a softmax that has no slope, or two slopes that cancel. No saturated cell in a sample of fifty does not mean none.
"""

from __future__ import annotations

from collections.abc import Sequence

from patchclamp.cause.comparison import AnyMetric, Comparison, Estimated, Estimator
from patchclamp.cause.effects import swept
from patchclamp.cause.estimate import gradient
from patchclamp.cause.spread import Roles
from patchclamp.core.agreement import Agreement, chosen
from patchclamp.core.site import Site
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model


def check(model: Model, clean: Prompt, corrupt: Prompt, sites: str | Site, metric: AnyMetric, *, estimate: Estimator = gradient,
          sample: int = 50, seed: int = 0, magnitude: bool = False, severed: Sequence[str] = (),
          roles: Roles | None = None) -> Agreement:  # fmt: skip
    """An estimate beside exact patching, on a sample of cells: rank correlation, error, and the strong effects it misses.

    `magnitude` compares absolute values, for estimates that have no sign. What comes back shows itself as a scatter plot.

    >>> from patchclamp.cause.check import check
    >>> found = check(model, clean, corrupt, "blocks.*.attn.z[head=*]", pc.logit_diff(" Mary", " John"))
    >>> found.spearman > 0.8, found.saturated
    (True, ())
    """
    c = Comparison.of(model, clean, corrupt, sites, metric, severed=severed, roles=roles)
    said = Estimated(*estimate(c)).cells.mean(0)
    mine = chosen(said, sample, seed)
    exact = swept(c, [c.spread.sites[i] for i in mine]).cells.mean(0)
    pair = (exact.abs(), said[mine].abs()) if magnitude else (exact, said[mine])
    return Agreement.of(*pair, [c.spread.names[i] for i in mine], unit=c.named[1])
