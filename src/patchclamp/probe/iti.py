"""Inference-time intervention: a few heads, those that know, are moved along what they know (Li et al. 2023).

Every head's output is probed for the difference between two kinds of prompt. The heads that tell them apart best, on prompts
held out, are shifted towards one kind by so many standard deviations of their own output along their own direction: a small
push in many places that know, in the place of a large one everywhere.

The paper's direction is either the probe's normal or the way from one average to the other, which worked better; both are
here (`method`). It leaves the prompt alone but for its last token: `heads.edits(8, 15, by=onward)`.

What it does not know: whether a head that can be read is a head that is listened to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.edit import Edit, steer
from patchclamp.core.errors import ShapeMismatch, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.model.gather import gather
from patchclamp.model.model import Model
from patchclamp.probe.contrast import SIMPLEST, Method, held_out, line


@dataclass(frozen=True, eq=False)
class Heads:
    """What each head knows of a difference: how surely, in which direction, and how far its output varies along it."""

    separation: Grid
    """Grid(layer, head): AUROC on prompts held out; half is chance. `details["apart"]` is the gap in standard deviations
    inside the two kinds, which orders heads of equal AUROC."""
    vectors: Float[Tensor, "layer head d_head"]
    """Of length one, towards what was liked."""
    spread: Float[Tensor, "layer head"]
    """Standard deviation of the head's output along its direction, over all prompts."""
    sites: tuple[str, ...]
    """The place of each layer."""

    def best(self, count: int) -> list[tuple[int, int]]:
        """The rows and heads that tell the two kinds apart best; of equals, those where they lie further apart."""
        values, apart = self.separation.values, self.separation.details["apart"].flatten()
        if not 0 < count <= values.numel():
            raise ShapeMismatch(f"there are {values.numel()} heads; the best {count} of them cannot be chosen.")
        order = apart.argsort(descending=True, stable=True)
        order = order[values.flatten()[order].argsort(descending=True, stable=True)]
        return [divmod(i, values.shape[1]) for i in order[:count].tolist()]

    def edits(self, count: int, dose: float, by: Callable[[str, Tensor], Edit] = steer,
              seed: int | None = None) -> tuple[Edit, ...]:  # fmt: skip
        """The best heads shifted by `dose` standard deviations, at every token or as `by` says.

        With a `seed` the directions are random ones in the same heads: the control.
        """
        made = []
        for row, head in self.best(count):
            vector = self.vectors[row, head]
            if seed is not None:
                noise = torch.randn(vector.shape, generator=torch.Generator().manual_seed(seed * 10_007 + row * 101 + head))
                vector = noise / noise.norm()
            made.append(by(f"{self.sites[row]}[head={head}]", dose * self.spread[row, head] * vector))
        return tuple(made)

    def show(self) -> None:
        """Draw which heads know."""
        self.separation.show()


def knowing_heads(model: Model, liked: Sequence, disliked: Sequence, *, site: str | Site = "blocks.*.attn.z",
                  method: Method = SIMPLEST, at: tuple[Sequence[int], Sequence[int]] | None = None,
                  seed: int = 0) -> Heads:  # fmt: skip
    """Probe every head of a pattern for the difference between two kinds of prompt.

    >>> from patchclamp.probe.iti import knowing_heads
    >>> shows, good, bad = ("film", "play"), ("lovely", "superb", "perfect"), ("dull", "boring", "terrible")
    >>> liked, disliked = ([f"The {show} was {word}. We went home" for show in shows for word in said] for said in (good, bad))
    >>> heads = knowing_heads(model, liked, disliked)
    >>> heads.separation.shape, [str(edit.site) for edit in heads.edits(2, 2.0)]
    ({'layer': 4, 'head': 8}, ['blocks.2.attn.z[head=2]', 'blocks.1.attn.z[head=2]'])
    """
    site = Site.parse(site)
    if site.index and any(axis != "pos" for axis, _ in site.index):
        raise WrongAxis(f"{site}: all heads of a layer are probed; leave the index out.")
    values = [gather(model, site, list(prompts), at and at[i]) for i, prompts in enumerate((liked, disliked))]
    if values[0].ndim != 4:
        raise ShapeMismatch(f'{site} has no heads, or is one layer; a pattern such as "blocks.*.attn.z" has.')
    one, other = values
    layers, heads = one.shape[0], one.shape[2]
    vectors, (scores, spread, apart) = torch.zeros(layers, heads, one.shape[-1]), torch.zeros(3, layers, heads)
    for row in range(layers):
        for head in range(heads):
            a, b = one[row, :, head], other[row, :, head]
            vectors[row, head], gap, _ = line(method, a, b)
            along = [rows @ vectors[row, head] for rows in (a, b)]
            scores[row, head] = held_out(method, a, b, seed)
            spread[row, head] = torch.cat(along).std()
            apart[row, head] = gap / torch.cat([part - part.mean() for part in along]).std().clamp(min=1e-30)
    places = model.places(site)
    labels = {"layer": [str(site.star_values(path)[0]) for path in places]}
    grid = Grid(scores, ("layer", "head"), labels, unit="AUROC", title="Heads that tell the two kinds apart",
                scale="sequential", details={"apart": apart}, baseline={"chance": 0.5},
                note="On prompts held out; 0.5 is chance.")  # fmt: skip
    return Heads(grid, vectors, spread, tuple(places))
