"""The Jacobian lens: the stream at a place carried to the end by what the blocks between do to small changes, on average.

For every place the mean, over tokens of a text, of the Jacobian of the final stream (before the last norm) with respect to
the stream there, at the same token: how a change at this token reaches its own prediction. With the means of both streams it
is the first-order map around them, so it is a translator: nothing is trained towards the output, and no more is read than the
model itself would carry on, were it linear. What it does not know: changes that reach the prediction by other tokens, and
curvature, which an average over tokens smooths over: on the bundled town it reads worse than the logit lens at every layer.
Hernandez et al. 2023 ("Linearity of relation decoding") use such mean Jacobians for relations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import ClassVar

import torch
from torch import Tensor

from patchclamp.core.errors import UnknownSite, WrongPrompt, did_you_mean
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.lenses import affine
from patchclamp.lenses.affine import Affine
from patchclamp.model.model import Model, Sites

BATCH = 16
"""Prompts differentiated together."""


@dataclass(frozen=True, eq=False)
class JacobianLens:
    """One affine map a place. A translator: `pc.lens(model, prompt, through=lens)`.

    >>> from patchclamp.lenses.jacobian import JacobianLens
    >>> lens = JacobianLens.of(model, [clean, corrupt], "blocks.2:.out")
    >>> lens.maps["blocks.3.out"].weight.diagonal().unique(), pc.lens(model, clean, "blocks.3.out", through=lens).text[0][-1]
    (tensor([1.]), ' Mary')
    """

    maps: Mapping[str, Affine]
    tokens: int = 0
    """How many Jacobians each is the mean of."""
    model: str = ""
    title: ClassVar[str] = "Jacobian lens"

    def __call__(self, path: str, stream: Tensor, /) -> Tensor:
        """The stream at a place as it would be at the end."""
        if path not in self.maps:
            raise UnknownSite(
                f"this lens was not made for {path}; it has {', '.join(self.maps)}.{did_you_mean(path, self.maps)}"
            )
        return self.maps[path](stream)

    @classmethod
    def of(cls, model: Model, texts: Iterable, sites: Sites = "blocks.*.out", tokens: int = 256, seed: int = 0) -> JacobianLens:
        """From the first `tokens` texts, one token of each chosen by chance; a backward pass a dimension."""
        wanted = [sites] if isinstance(sites, (str, Site)) else sites
        paths = [path for site in wanted for path in model.places(site)]
        last, rng = f"{model.anatomy.main.blocks[-1].path}.out", Random(f"jacobian {seed}")
        prompts = list(islice(texts, tokens))
        if not prompts:
            raise WrongPrompt("a Jacobian lens is a mean over texts, and there are none.")
        sums = {p: torch.zeros(model.width, model.width, dtype=torch.float64) for p in paths}
        means = {p: torch.zeros(model.width, dtype=torch.float64) for p in (*paths, last)}
        batches = [prompts[n : n + BATCH] for n in range(0, len(prompts), BATCH)]
        for batch in progress(batches, label="Jacobians"):
            for path, (jacobian, value) in jacobians(model, batch, paths, last, rng).items():
                if path in sums:
                    sums[path] += jacobian.sum(0).double()
                means[path] += value.sum(0).double()
        n = len(prompts)
        end = means[last] / n
        maps = {p: Affine((sums[p].T / n).float(), (end - means[p] @ sums[p].T / n**2).float()) for p in paths}
        return cls(maps, n, model.name)

    def save(self, folder: str | Path) -> Path:
        """Write to a folder."""
        return affine.write(folder, "JacobianLens", self.maps, {"tokens": self.tokens, "model": self.model})

    @classmethod
    def load(cls, folder: str | Path) -> JacobianLens:
        """Read what `save` wrote."""
        maps, card = affine.read(folder, "JacobianLens")
        return cls(maps, card["tokens"], card["model"])


def jacobians(
    model: Model, prompts: Sequence, paths: Sequence[str], last: str, rng: Random
) -> dict[str, tuple[Tensor, Tensor]]:
    """At one token of every prompt, by place: d final / d stream (prompt out into), and the stream there (prompt d_model)."""
    run = model.run(list(prompts), list(dict.fromkeys([*paths, last])), grad=True)
    rows = range(run.tokens.shape[0])
    at = [rng.choice(run.windows[""].tokens(r)) for r in rows]
    final, values = run.kept[last].value, [run.kept[p].value for p in paths]
    found: list[list[Tensor]] = [[] for _ in paths]
    for i in range(final.shape[-1]):
        slopes = torch.autograd.grad(final[rows, at, i].sum(), values, retain_graph=True, allow_unused=True)
        for mine, slope, value in zip(found, slopes, values):
            mine.append((torch.zeros_like(value) if slope is None else slope)[rows, at].float().cpu())
    made = {p: (torch.stack(mine, 1), v[rows, at].detach().float().cpu()) for p, mine, v in zip(paths, found, values)}
    made.setdefault(last, (torch.empty(0), final[rows, at].detach().float().cpu()))
    return made
