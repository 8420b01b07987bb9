"""Window: which tokens of each prompt a tensor holds, and the selection that an index means on it.

Positions count a prompt's own tokens, without padding; negative ones count from its newest token. A forward pass may hold
only part of the sequence (the rest is in the key-value cache), and rows of a padded batch begin at different columns.
Selecting gives the part that an edit changes or a run keeps; `Selection.put` writes a changed part back into a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from patchclamp.core.axes import POSITIONS, Part
from patchclamp.core.errors import WrongAxis
from patchclamp.core.site import Entry, Site, Span


@dataclass(frozen=True)
class Window:
    """The columns `start` to `start + length` of a padded batch, and where each prompt lies in it."""

    length: int
    start: int = 0
    """Columns that went before, i.e. that are in the cache."""
    first: tuple[int, ...] | None = None
    """For each row the column of its first token; None where every row begins at 0."""
    end: tuple[int, ...] | None = None
    """For each row the column after its last token; None where every row ends with the window."""

    def columns(self, position: int | tuple[int, ...], rows: int) -> list[int]:
        """For each row the column of a position, or of its own position, counted inside this window; it may lie outside."""
        first, end = self.first or (0,), self.end or (self.start + self.length,)
        each = position if isinstance(position, tuple) else (position,)  # rows beyond are the same prompts again
        at = [(r, each[r % len(each)]) for r in range(rows)]
        return [(first[r % len(first)] if p >= 0 else end[r % len(end)]) + p - self.start for r, p in at]

    def tokens(self, row: int) -> range:
        """The columns, inside this window, that hold tokens of a row rather than padding."""
        first = self.first[row] if self.first else 0
        end = self.end[row] if self.end else self.start + self.length
        return range(max(first - self.start, 0), max(min(end - self.start, self.length), 0))


@dataclass(frozen=True)
class Selection:
    """What an index takes out of one tensor: plain slices, then, in a padded batch, one column a row."""

    slices: tuple[int | slice, ...]
    ragged: tuple[int, list[int], list[int]] | None = None
    """(dimension after slicing, rows, their columns), where rows have their token at different columns."""
    whole: bool = False

    def take(self, value: Tensor) -> Tensor:
        """The selected part: a view where the selection is plain."""
        part = value[self.slices]
        if self.ragged is None:
            return part
        dim, rows, columns = self.ragged
        return part.movedim(dim, 1)[rows, columns]

    def put(self, value: Part, part: Tensor) -> Part:
        """A copy of `value` with the selected part replaced."""
        if self.whole:
            return part
        copy = value.clone()
        if self.ragged is None:
            copy[self.slices] = part
        else:
            dim, rows, columns = self.ragged
            copy[self.slices].movedim(dim, 1)[rows, columns] = part
        return copy


def select(site: Site, axes: Sequence[str], value: Tensor, windows: dict[str, Window], late: bool = False):
    """The selection that a site's index means on a value with these axes, or None where no token of it is in the window.

    `late` permits positions that this window does not hold (they may come with a later token, or went before);
    otherwise they are a `WrongAxis`.
    """
    slices: list[int | slice] = [slice(None)] * len(axes)
    ragged: tuple[int, list[int], list[int]] | None = None
    for axis, wanted in site.index:
        if axis not in axes:
            raise WrongAxis(f'{site} has no axis "{axis}"; its axes are {" ".join(axes)}.')
        dim = list(axes).index(axis)
        size = value.shape[dim]
        if axis in POSITIONS and axis in windows:
            at = _positions(site, axis, wanted, windows[axis], value.shape[0], late)
            if at is None:
                return None
            if isinstance(at, tuple):
                if ragged is not None:
                    raise WrongAxis(f"{site} indexes two position axes in a batch of prompts of unequal length.")
                ragged = (dim, *at)
            else:
                slices[dim] = at
        elif isinstance(wanted, tuple):
            raise WrongAxis(f'{site} has an entry for each prompt, which only tokens have, and "{axis}" counts none.')
        elif isinstance(wanted, Span):
            slices[dim] = slice(wanted.start, wanted.stop)
        elif not -size <= wanted < size:
            raise WrongAxis(f"{site} is outside: the axis {axis} has {size} entries, 0 to {size - 1}.")
        else:
            slices[dim] = wanted
    if ragged is not None:
        dim, rows, columns = ragged
        ragged = (dim - sum(isinstance(s, int) for s in slices[:dim]), rows, columns)
    whole = ragged is None and all(s == slice(None) for s in slices)
    return Selection(tuple(slices), ragged, whole)


def _positions(site: Site, axis: str, wanted: Entry, window: Window, rows: int, late: bool):
    """A slice or column for all rows, or (rows, columns) where they differ, or None where nothing is in the window."""
    if isinstance(wanted, Span):
        return _range(site, wanted, window, rows, late)
    if isinstance(wanted, tuple) and rows % len(wanted):
        raise WrongAxis(f"{site} names a token for each of {len(wanted)} prompts; there are {rows}.")
    columns = window.columns(wanted, rows)
    inside = [r for r, c in enumerate(columns) if c in window.tokens(_row(window, r))]
    if len(inside) < rows and not late:
        row = next(r for r in range(rows) if r not in inside)
        n = len(window.tokens(_row(window, row)))
        raise WrongAxis(f"{site} is outside: prompt {row} has {n} tokens, {axis} 0 to {n - 1}.")
    if not inside:
        return None
    if len(inside) == rows and len(set(columns)) == 1:
        return columns[0]
    return inside, [columns[r] for r in inside]


def _row(window: Window, row: int) -> int:
    """Where a window knows fewer prompts than there are rows, they come again and again; where it knows none, all are alike."""
    return row % len(window.first or window.end or (0,))


def _range(site: Site, wanted: Span, window: Window, rows: int, late: bool) -> slice | None:
    if wanted == Span():
        return slice(None)
    spans = set()
    for row in range(rows):
        first = (window.first[row] if window.first else 0) - window.start
        end = (window.end[row] if window.end else window.start + window.length) - window.start
        chosen = wanted.of(end - first)
        spans.add((max(first + chosen.start, 0), min(first + chosen.stop, window.length)))
    if len(spans) > 1:
        raise WrongAxis(f"{site} takes a range of positions in a batch of prompts of unequal length; run them one by one.")
    start, stop = spans.pop()
    if start >= stop:
        if late:
            return None
        raise WrongAxis(f"{site} holds no token: the prompt has {len(window.tokens(0))}.")
    return slice(start, stop)
