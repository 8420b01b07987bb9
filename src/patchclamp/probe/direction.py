"""Direction: a line through activations along which two kinds of prompt differ, and how far apart they lie on it.

A unit vector at a site, the gap between the two kinds measured along it, and, beside it, how well it tells prompts apart that
it was not made from: a direction can be drawn through any two heaps of points, so the number says whether it means anything.

Steps are counted in gaps: `1 * joy` carries the average disliked prompt to where the average liked one is, `-1 * joy` back,
whatever the layer and however long its activations are. That tensor is what `pc.steer` takes; `joy.vector` is of length one.

What it does not know: whether the model uses the line. That is seen by steering along it (`probe/dose.py`), not by separation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.core.store import CARD, TENSORS


@dataclass(frozen=True, eq=False)
class Direction:
    """Made by `pc.contrast`; at one site, or, for a pattern, one at every layer.

    >>> joy = pc.contrast(model, "blocks.2.out", ["The film was wonderful."] * 2, ["The film was dull."] * 2)
    >>> (2 * joy).shape, float((2 * joy).norm() / joy.scale)
    (torch.Size([128]), 2.0)
    >>> loved = model.run("The film was wonderful.", keep="blocks.2.out")["blocks.2.out[pos=-1]"]
    >>> bool(loved @ joy > joy.middle)
    True
    """

    vector: Float[Tensor, "*layer d"]
    """Of length one, pointing to what was liked."""
    scale: Float[Tensor, "*layer"]
    """The gap: how far the averages of the two kinds lie apart along it."""
    middle: Float[Tensor, "*layer"]
    """Halfway between them: where a projection says liked above it and disliked below."""
    site: Site
    """Where it lives and can be added: the place without a position."""
    separation: Grid
    """AUROC on prompts that the direction was not made from: 1 tells all pairs apart, 0.5 none. `details` holds the ends of
    the 95 % interval; the baseline `shuffled` is the same procedure on prompts shuffled between the two kinds."""
    how: str = ""
    facts: Mapping[str, str] | None = None
    """The model, how many prompts of each kind, the seed."""

    def __repr__(self) -> str:
        return f"Direction({str(self.site)!r}, {self.how}, {self._said()})"

    def _said(self) -> str:
        values = self.separation.values
        if bool(values.isnan().all()):
            return "never tested: too few prompts"
        best = int(values.flatten().argmax())
        where = "" if values.ndim == 0 else f" at layer {self.separation.words('layer')[best]}"
        poor = float(self.separation.details["low"].flatten()[best]) <= 0.5
        return f"AUROC {float(values.flatten()[best]):.3f} held out{where}" + (": NO BETTER THAN CHANCE" if poor else "")

    def at(self, layer: int) -> Direction:
        """The direction of one layer, where there is one for each."""
        if not self._layered:
            raise WrongAxis(f"this direction is of {self.site} alone; there is no layer to choose.")
        words = list(self.separation.words("layer"))
        if str(layer) not in words:
            raise WrongAxis(f"{self.site}: there is no direction of layer {layer}; there are those of {', '.join(words)}.")
        i = words.index(str(layer))
        parts = tuple(layer if not isinstance(p, (str, int)) else p for p in self.site.parts)
        return replace(
            self,
            vector=self.vector[i],
            scale=self.scale[i],
            middle=self.middle[i],
            site=Site(parts, self.site.index, self.site.raw),
            separation=self.separation.at(layer=i),
        )

    @property
    def _layered(self) -> bool:
        return self.vector.ndim > 1

    @property
    def _step(self) -> Tensor:
        """One gap along the direction."""
        if self._layered:
            raise ShapeMismatch(
                f"this is a direction for every layer of {self.site}, and a step is taken at one: use direction.at(layer=...)."
            )
        return self.scale * self.vector

    def __mul__(self, gaps: float | Tensor) -> Tensor:
        return gaps * self._step

    __rmul__ = __mul__

    def __truediv__(self, gaps: float) -> Tensor:
        return self._step / gaps

    def __neg__(self) -> Tensor:
        return -self._step

    def __add__(self, other: Tensor | Direction) -> Tensor:
        return self._step + (other._step if isinstance(other, Direction) else other)

    __radd__ = __add__

    def __sub__(self, other: Tensor | Direction) -> Tensor:
        return self._step - (other._step if isinstance(other, Direction) else other)

    def __rsub__(self, other: Tensor) -> Tensor:
        return other - self._step

    def __rmatmul__(self, values: Tensor) -> Tensor:
        """`activations @ joy`: how far along the direction they lie, in the units of the activations."""
        return values @ self.vector.to(values)

    def show(self) -> None:
        """Draw how well it separates, layer by layer where there are several."""
        self.separation.show()

    def save(self, folder: str | Path) -> Path:
        """Write to a folder: the numbers as safetensors, the separation as a grid, the rest as a readable card."""
        folder = Path(folder)
        self.separation.save(folder / "separation")
        card = {"noun": "Direction", "version": 1, "site": str(self.site), "how": self.how, "facts": dict(self.facts or {})}
        tensors = {"vector": self.vector, "scale": self.scale, "middle": self.middle}
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, folder / TENSORS)
        (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Direction:
        """Read what `save` wrote."""
        folder = Path(folder)
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            found = load_file(folder / TENSORS)
            tensors = {name: found[name] for name in ("vector", "scale", "middle")}
        except (OSError, ValueError, KeyError) as error:
            raise NotSaved(f"{folder} holds no direction that can be read ({type(error).__name__}: {error}).") from None
        if card.get("noun") != "Direction" or card.get("version") != 1:
            raise NotSaved(
                f"{folder} holds a {card.get('noun')} of version {card.get('version')}, not a Direction of version 1."
            )
        site, grid = Site.parse(card["site"]), Grid.load(folder / "separation")
        return cls(**tensors, site=site, separation=grid, how=card["how"], facts=card["facts"])


def random_like(vector: Float[Tensor, "*rows d"], seed: int = 0) -> Float[Tensor, "*rows d"]:
    """A random direction, each row as long as the one given: the control of everything that is said of a direction.

    >>> from patchclamp.probe.direction import random_like
    >>> float(random_like(torch.tensor([3.0, 4.0])).norm().round(decimals=4))
    5.0
    """
    made = torch.randn(vector.shape, generator=torch.Generator().manual_seed(seed)).to(vector)
    return made * (vector.norm(dim=-1, keepdim=True) / made.norm(dim=-1, keepdim=True).clamp(min=1e-30))
