"""A pattern laid out over a run: every concrete place it names, and how answers for them become a grid.

A star over roles, `[role=*]`, is a star over what the tokens of a prompt are there for: each of its entries names a token in
every prompt, and not the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import POSITIONS, Cells
from patchclamp.core.errors import WrongAxis, WrongPrompt
from patchclamp.core.grid import by_stars
from patchclamp.core.run import Run
from patchclamp.core.site import Entry, Site, Span, written
from patchclamp.core.window import Window, select
from patchclamp.model.inputs import Inputs

Roles = Mapping[str, Sequence[int]]
"""Role -> its token in each prompt, as `aligned` of `core/pair.py` gives them."""


@dataclass(frozen=True, eq=False)
class Spread:
    """The places of a pattern, over a run that kept them."""

    run: Run
    inputs: Inputs
    site: Site
    paths: tuple[str, ...]
    roles: Roles | None = None

    def __post_init__(self) -> None:
        index = dict(self.site.index)
        if self.roles is not None and not isinstance(index.get("role"), Span):
            raise WrongAxis(f"{self.site} has no star over roles; write it as in {self.site.bare().at(role=Span())}.")
        if "role" in index and self.roles is None:
            raise WrongAxis(f'{self.site} goes through roles; say which token each is, as in roles={{"end": [-1, -1]}}.')
        self.entries  # noqa: B018  what does not fit is found now

    @cached_property
    def entries(self) -> dict[str, list[Any]]:
        """For every starred axis of the index what it goes through: numbers, or for roles each prompt's own token."""
        value, axes, windows = self.run.stored(Site.parse(self.paths[0]))
        found: dict[str, list[Any]] = {}
        for axis, span in ((a, v) for a, v in self.site.index if isinstance(v, Span)):
            if axis == "role":
                found[axis] = [self._tokens(name, value, axes) for name in self._names(span)]
                continue
            if axis not in axes:
                raise WrongAxis(f'{self.site} has no axis "{axis}"; its axes are {" ".join(axes)}.')
            if axis in windows and self.inputs.padded:
                raise WrongPrompt(
                    f"{self.site} has a star over positions, but the prompts differ in length; run them pair by pair, or say "
                    f'with roles={{"end": [...]}} and [role=*] which tokens correspond.'
                )
            found[axis] = list(span.of(value.shape[axes.index(axis)]))
        return found

    @cached_property
    def sites(self) -> list[Site]:
        """Every concrete place with its index, in the order of the answer's cells."""
        fixed = {a: v for a, v in self.site.index if not isinstance(v, Span)}
        places = _product(list(self.entries.values()))
        return [
            self.at(Site.parse(p).at(**fixed), **dict(zip(self.entries, place))) for p in self.paths for place in places
        ]  # fmt: skip

    @cached_property
    def names(self) -> list[str]:
        """What every concrete place is called: its starred axes with the words of their entries."""
        fixed = [f"{a}={written(v)}" for a, v in self.site.index if not isinstance(v, Span)]
        words = _product([[f"{axis}={w}" for w in self._words(axis, e)] for axis, e in self.entries.items()])
        return [p + (f"[{', '.join((*fixed, *w))}]" if fixed or w else "") for p in self.paths for w in words]

    def at(self, site: Site, **index: Entry) -> Site:
        """A site with further indices, where a role stands for the axis that counts tokens."""
        named = {(self.counts if axis == "role" else axis): entry for axis, entry in index.items()}
        kept = tuple((a, v) for a, v in site.index if a not in index)
        return Site(site.parts, kept, site.raw).at(**named)

    @cached_property
    def counts(self) -> str:
        """The axis that counts the tokens of these places: `pos`, or `query` where it is attention."""
        _, axes, _ = self.run.stored(Site.parse(self.paths[0]))
        found = next((axis for axis in POSITIONS if axis in axes), None)
        if found is None:
            raise WrongAxis(f"{self.site} goes through roles, but the place has no tokens; its axes are {' '.join(axes)}.")
        return found

    def columns(self, site: Site) -> list[int] | None:
        """For each prompt the column of the token that a site names, or None where it names none."""
        index = dict(site.index)
        axis = "pos" if "pos" in index else "query"
        entry = index.get(axis)
        if entry is None or isinstance(entry, Span):
            return None
        return self._windows[axis].columns(entry, self.inputs.batch)

    @cached_property
    def _windows(self) -> Mapping[str, Window]:
        return self.run.stored(Site.parse(self.paths[0]))[2]

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
        if axis == "role":
            return self._names(dict(self.site.index)["role"])
        value, axes, _ = self.run.stored(Site.parse(self.paths[0]))
        ids = self.inputs.ids(self.paths[0], axis) if axis in POSITIONS else []
        if len(ids) != value.shape[axes.index(axis)]:
            return [str(i) for i in entries]
        words = self.run.reader.words(ids)
        return [f"{i} {words[i].strip() or repr(words[i])}" for i in entries]

    def _names(self, span: Any) -> list[str]:
        names = list(self.roles or {})
        return [names[i] for i in span.of(len(names))]

    def _tokens(self, name: str, value: Tensor, axes: tuple[str, ...]) -> tuple[int, ...]:
        """The token of a role in every prompt; an error where there is none."""
        assert self.roles is not None
        tokens = tuple(int(t) for t in self.roles[name])
        if len(tokens) != self.inputs.batch:
            raise WrongPrompt(f'the role "{name}" has {len(tokens)} tokens for {self.inputs.batch} prompts; give one a prompt.')
        try:
            select(Site((), ((self.counts, tokens),)), axes, value, dict(self._windows))
        except WrongAxis as error:
            raise WrongAxis(f'the role "{name}": {error.args[0]}') from None
        return tokens


def _product(shape: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    return [(i, *rest) for i in shape[0] for rest in _product(shape[1:])] if shape else [()]
