"""Looks: attention patterns of chosen blocks, and the same tokens in another order, which says what a look owes to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.core.site import Site
from patchclamp.model.inputs import Inputs

if TYPE_CHECKING:
    from patchclamp.model.model import Model


def patterns(
    model: Model, inputs: Inputs, layers: Sequence[int] | None = None
) -> dict[int, Float[Tensor, "batch head query key"]]:
    """Layer -> its attention pattern; of all blocks that have one, unless told.

    >>> from patchclamp.model.looks import patterns
    >>> patterns(model, model.inputs(clean), [2])[2].shape
    torch.Size([1, 8, 15, 15])
    """
    found = looking(model) if layers is None else {i: f"blocks.{i}.attn.pattern" for i in layers}
    run = model.run(inputs, list(found.values()), logits=False)
    return {i: run[site].float() for i, site in found.items()}


def looking(model: Model) -> dict[int, str]:
    """Layer -> the site of its attention pattern, for every block of the main stack that has one."""
    served = [p for p in model.anatomy.places if p.startswith("blocks.") and p.endswith(".attn.pattern")]
    if not served:
        raise Unserved(f"{model.name} has no block whose attention pattern can be read; model.sites lists what it has.")
    return {int(Site.parse(p).layer or 0): p for p in served}


def shuffled(model: Model, inputs: Inputs, seed: int = 0) -> Inputs:
    """The same tokens in another order, within each prompt: all but its first and its last."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for r in range(inputs.batch):
        row = torch.tensor(inputs.ids(row=r))
        inner = row[1:-1]
        rows.append([int(row[0]), *inner[torch.randperm(len(inner), generator=generator)].tolist(), *row[1:][-1:].tolist()])
    return model.inputs(rows)
