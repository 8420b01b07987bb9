"""Affine maps from one stream to another: fitted by least squares over any amount of text, or given; written to a folder.

What is fitted is y = x W + b with the smallest squared error. Only sums are kept (of x, y, their squares and products), so text
streams through and the answer is that of one large solve; a little ridge holds directions that the text never uses at zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from patchclamp.core.errors import NotSaved, ShapeMismatch
from patchclamp.core.store import CARD, TENSORS

RIDGE = 1e-6
"""In units of the mean square of x along a direction."""


@dataclass(frozen=True, eq=False)
class Affine:
    """y = x W + b.

    >>> from patchclamp.lenses.affine import Affine
    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> found = Affine.fit(x, 2 * x + 1)
    >>> torch.allclose(found(x), 2 * x + 1, atol=1e-4)
    True
    """

    weight: Float[Tensor, "into out"]
    bias: Float[Tensor, " out"]

    def __call__(self, x: Tensor, /) -> Tensor:
        """The image of vectors (..., into), in their own precision."""
        if x.shape[-1] != self.weight.shape[0]:
            raise ShapeMismatch(f"this map takes vectors of {self.weight.shape[0]} numbers; got {list(x.shape)}.")
        return x @ self.weight.to(x) + self.bias.to(x)

    @classmethod
    def fit(cls, x: Float[Tensor, "row into"], y: Float[Tensor, "row out"], ridge: float = RIDGE) -> Affine:
        """The least squares map between paired rows."""
        sums = Sums()
        sums.add(x, y)
        return sums.solve(ridge)


class Sums:
    """What least squares needs of the data, added up as it streams by, in double precision."""

    def __init__(self) -> None:
        self.n = 0
        self.found: list[Tensor] = []

    def add(self, x: Float[Tensor, "row into"], y: Float[Tensor, "row out"]) -> None:
        """Further rows."""
        x, y = x.double(), y.double()
        more = [x.sum(0), y.sum(0), x.T @ x, x.T @ y]
        self.n += len(x)
        self.found = [old + new for old, new in zip(self.found, more)] if self.found else more

    def solve(self, ridge: float = RIDGE) -> Affine:
        """The map for everything added so far."""
        if not self.n:
            raise ShapeMismatch("a map cannot be fitted to no rows at all; give longer or more texts.")
        x, y = self.found[0] / self.n, self.found[1] / self.n
        square = self.found[2] / self.n - torch.outer(x, x)
        product = self.found[3] / self.n - torch.outer(x, y)
        held = ridge * square.diagonal().mean().clamp(min=1e-12) * torch.eye(len(x), dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(square + held, product)
        return Affine(weight.float(), (y - x @ weight).float())


def write(folder: str | Path, noun: str, maps: Mapping[str, Affine], about: Mapping[str, Any]) -> Path:
    """Maps by name, and what they are, in a folder: numbers as safetensors, the rest as a readable card."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{name}/{part}": getattr(one, part) for name, one in maps.items() for part in ("weight", "bias")}
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, folder / TENSORS)
    card = {"noun": noun, "version": 1, "maps": list(maps), **about}
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def read(folder: str | Path, noun: str) -> tuple[dict[str, Affine], dict[str, Any]]:
    """What `write` wrote; an error where the folder holds something else."""
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotSaved(f"{folder} holds no readable {CARD} ({type(error).__name__}); it was not written by save().") from None
    if card.get("noun") != noun:
        raise NotSaved(f"{folder} holds a {card.get('noun')}, not a {noun}.")
    tensors = load_file(folder / TENSORS)
    return {name: Affine(tensors[f"{name}/weight"], tensors[f"{name}/bias"]) for name in card["maps"]}, card
