"""A pattern laid out over a run: every concrete place it names, and how answers for them become a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import POSITIONS, Cells
from patchclamp.core.errors import WrongAxis, WrongPrompt
from patchclamp.core.grid import by_stars
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.model.inputs import Inputs


@dataclass(frozen=True, eq=False)
class Spread:
    """The places of a pattern, over a run that kept them."""

    run: Run
    inputs: Inputs
    site: Site
    paths: tuple[str, ...]

    @cached_property
    def entries(self) -> dict[str, list[int]]:
        """For every starred axis of the index the numbers it goes through."""
        value, axes, windows = self.run.stored(Site.parse(self.paths[0]))
        found = {}
        for axis, span in ((a, v) for a, v in self.site.index if isinstance(v, Span)):
            if axis not in axes:
                raise WrongAxis(f'{self.site} has no axis "{axis}"; its axes are {" ".join(axes)}.')
            if axis in windows and self.inputs.padded:
                raise WrongPrompt(
                    f"{self.site} has a star over positions, but the prompts differ in length; run them pair by pair."
                )
            found[axis] = list(span.of(value.shape[axes.index(axis)]))
        return found

    @cached_property
    def sites(self) -> list[Site]:
        """Every concrete place with its index, in the order of the answer's cells."""
        fixed = {a: v for a, v in self.site.index if not isinstance(v, Span)}
        places = _product(list(self.entries.values()))
        return [Site.parse(p).at(**fixed, **dict(zip(self.entries, place))) for p in self.paths for place in places]

    def around(self, site: Site, window: int) -> list[Site]:
        """The same place in the layers around it: a window of them, fewer at the ends."""
        if window == 1:
            return [site]
        if site.layer is None:
            raise WrongAxis(f"a window is of layers, and {site} lies in none.")
        middle = self.paths.index(site.path)
        first = max(middle - (window - 1) // 2, 0)
        return [Site(Site.parse(p).parts, site.index) for p in self.paths[first : middle + window // 2 + 1]]

    def shaped(self, each: Float[Tensor, "batch cell"]) -> tuple[Cells, tuple[str, ...], dict[str, list[str]]]:
        """One number for every site, with the pattern's axes: paths become their stars, positions and heads their labels."""
        sizes = [len(self.paths), *map(len, self.entries.values())]
        made, axes, labels = by_stars(self.site, self.paths, each.reshape(each.shape[0], *sizes))
        return made, axes, labels | {axis: self._words(axis, entries) for axis, entries in self.entries.items()}

    def _words(self, axis: str, entries: list[int]) -> list[str]:
        """The numbers of the entries; beside them the tokens, where that is what the axis counts."""
        value, axes, _ = self.run.stored(Site.parse(self.paths[0]))
        ids = self.inputs.ids(self.paths[0], axis) if axis in POSITIONS else []
        if len(ids) != value.shape[axes.index(axis)]:
            return [str(i) for i in entries]
        words = self.run.reader.words(ids)
        return [f"{i} {words[i].strip() or repr(words[i])}" for i in entries]


def _product(shape: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    return [(i, *rest) for i in shape[0] for rest in _product(shape[1:])] if shape else [()]
