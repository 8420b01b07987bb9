"""Causal tracing: which places bring an answer back that noise on the subject's embedding has destroyed.

The corrupt run has no second prompt: some tokens are blurred by Gaussian noise, and the clean value of one place after another
is put back (Meng et al. 2022). Noise takes away whatever the tokens said, where a counterfactual prompt takes away only what
differs; it also makes streams that no prompt makes, and what is found depends on its strength (Zhang & Nanda 2024). So noise is
drawn several times, its strength is in the embedding's own standard deviations, and the spread over draws is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from patchclamp.cause.ablate import ablate, noised
from patchclamp.cause.comparison import AnyMetric, bounds, severed_model
from patchclamp.core.edit import patch
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.metric import called, read
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model


def trace(model: Model, prompt: Prompt, sites: str | Site, metric: AnyMetric, *, blurred: str | Site, strength: float = 3.0,
          draws: int = 10, window: int = 1, severed: Sequence[str] = (), seed: int = 0) -> Grid:  # fmt: skip
    """Restore every place of a pattern, by itself, where noise lies on `blurred` (`embed.out[pos=2:4]`, the subject's tokens).

    Values are the metric after restoring minus the metric of the blurred run, averaged over `draws` of noise of `strength`
    standard deviations of the place in this run; `Grid.baseline` and `Grid.fraction()` are as in `pc.effects`, and
    `Grid.details["draws"]` is the standard deviation over draws. `window` restores neighbouring layers together; what is
    `severed` ("attn", "mlp") is held as it is in the blurred run.

    >>> from patchclamp.cause.trace import trace
    >>> grid = trace(model, clean, "blocks.*.out[pos=*]", pc.prob(" Mary"), blurred="embed.out[pos=10]", draws=3)
    >>> grid.shape, round(float(grid.fraction().at(layer=3, pos=-1).values), 3)
    ({'layer': 4, 'pos': 15}, 1.0)
    """
    if draws < 1 or strength <= 0:
        raise WrongPrompt(f"noise is drawn once or more, of a strength above 0; got {draws} draws of strength {strength:g}.")
    inputs, place = model.inputs(prompt), Site.parse(blurred)
    clean = model.run(inputs, [*model.places(sites), place.path])
    scale = strength * float(clean[place.path].float().std())
    found = []
    for n in progress(range(draws), label="draws of noise"):
        noisy = model.edit(noised(scale, seed + n)(place))
        found.append(ablate(severed_model(noisy, inputs, severed), inputs, sites, metric, by=lambda site: patch(site, clean),
                            window=window))  # fmt: skip
    each = torch.stack([grid.each for grid in found if grid.each is not None])
    goal = read(model.metric(metric, clean), clean.logits, inputs.batch)
    spread = {"draws": each.mean(1).std(0)} if draws > 1 else {}
    told = [f"Noise of {strength:g} standard deviations on {place}, {draws} draws.",
            f"{window} layers at a time." if window > 1 else "",
            f"Nothing passes through {' or '.join(severed)}." if severed else ""]  # fmt: skip
    return replace(
        found[0], values=each.mean((0, 1)), each=each.mean(0), details={**bounds(each.mean(0)), **spread},
        title=f"Change of the {called(metric)[0]}, restoring {sites}", note=" ".join(filter(None, told)),
        baseline={"clean": float(goal.mean()), "corrupt": sum(g.baseline["metric"] for g in found) / draws},
    )  # fmt: skip
