"""Gather: the activations of one site over many prompts, as a matrix. What probes, directions and geometry are made of.

`gather` takes one place a prompt, `every` all tokens. Prompts are run a batch at a time, those of similar length together, and
a pass stops as soon as the site is there; what comes back is in the order of the prompts, in single precision, on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongAxis
from patchclamp.core.progress import progress
from patchclamp.core.site import Site

if TYPE_CHECKING:
    from patchclamp.model.model import Model

BATCH = 64
"""How many prompts go in one pass, if nothing else is asked."""


def gather(model: Model, site: str | Site, prompts: Sequence, at: Sequence[int] | None = None, batch: int = BATCH) -> Tensor:
    """The activation at a site in every prompt: (prompt, ...), or (layer, prompt, ...) for a pattern over layers.

    The position is the site's own (`blocks.2.out[pos=-1]`) or, with `at`, one for each prompt; without either it is the last.

    >>> from patchclamp.model.gather import gather
    >>> gather(model, "blocks.*.out", [clean, corrupt, "Mary"]).shape
    torch.Size([4, 3, 128])
    >>> gather(model, "blocks.1.mlp.act", [clean, corrupt], at=[5, 11]).shape
    torch.Size([2, 384])
    """
    prompts, site = list(prompts), Site.parse(site)
    if not prompts:
        raise ShapeMismatch(f"{site} is to be gathered over no prompts at all.")
    if at is not None and len(at) != len(prompts):
        raise ShapeMismatch(f"{site}: {len(at)} positions for {len(prompts)} prompts; give one for each.")
    named = dict(site.index)
    if at is not None and "pos" in named:
        raise WrongAxis(f"{site} says its position itself; leave that out, or at=.")
    found: list[Tensor | None] = [None] * len(prompts)
    for rows in _batches(prompts, batch, str(site)):
        here = site
        if "pos" not in named:
            where = tuple(int(at[i]) for i in rows) if at is not None else -1
            here = Site(site.parts, (*site.index, ("pos", where)))
        run = model.run([prompts[i] for i in rows], here, logits=False)
        values = run[here].detach().float().cpu().movedim(1 if site.bare().stars else 0, 0)
        for i, value in zip(rows, values):
            found[i] = value
    stacked = torch.stack([f for f in found if f is not None])
    return stacked.movedim(0, 1) if site.bare().stars else stacked


@dataclass(frozen=True, eq=False)
class Rows:
    """The activations of all tokens, one a row, and where each comes from."""

    value: Float[Tensor, "row ..."]
    prompt: Int[Tensor, " row"]
    """Which prompt."""
    pos: Int[Tensor, " row"]
    """Which of its tokens."""
    token: Int[Tensor, " row"]
    """The token itself."""


def every(model: Model, site: str | Site, prompts: Sequence, batch: int = BATCH) -> Rows:
    """The activation at one site at every token of every prompt, prompt by prompt.

    >>> from patchclamp.model.gather import every
    >>> every(model, "blocks.1.out", [clean, "Mary"]).value.shape
    torch.Size([17, 128])
    """
    prompts, site = list(prompts), Site.parse(site)
    if site.bare().stars or "pos" in dict(site.index):
        raise WrongAxis(f"{site}: all tokens are gathered of one place at a time, without a position.")
    found: list[tuple[Tensor, Tensor] | None] = [None] * len(prompts)
    for rows in _batches(prompts, batch, str(site)):
        run = model.run([prompts[i] for i in rows], site, logits=False)
        values = run[site].detach().float().cpu()
        for r, i in enumerate(rows):
            columns = list(run.windows[""].tokens(r))
            found[i] = (values[r, columns], run.tokens[r, columns].cpu())
    kept = [f for f in found if f is not None]
    return Rows(
        torch.cat([v for v, _ in kept]),
        torch.cat([torch.full((len(t),), i) for i, (_, t) in enumerate(kept)]),
        torch.cat([torch.arange(len(t)) for _, t in kept]),
        torch.cat([t for _, t in kept]),
    )


def _batches(prompts: Sequence, batch: int, label: str) -> Iterator[list[int]]:
    """The numbers of the prompts that go together: those of similar length, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) if hasattr(prompts[i], "__len__") else 0)
    batches = [order[n : n + batch] for n in range(0, len(order), batch)]
    return iter(progress(batches, total=len(batches), label=label))
