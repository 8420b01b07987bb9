"""Grid: numbers with named axes, which can show itself.

Whatever an analysis answers with is a Grid: layer x position effects, a lens, next-token probabilities. The axis words are
those of the sites, and every entry has a label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core import uncertain
from patchclamp.core.axes import Cells
from patchclamp.core.errors import UnknownSite, Unserved, WrongAxis, WrongPrompt, did_you_mean
from patchclamp.core.site import Site
from patchclamp.picture import Bars, Heatmap, Page, Picture, Section, Table


@dataclass(frozen=True, eq=False)
class Grid:
    """`values` with one named axis a dimension.

    >>> grid = Grid(torch.tensor([[0.0, 1.0], [0.5, 0.0]]), ("layer", "head"))
    >>> grid.top(1)
    [({'layer': '0', 'head': '1'}, 1.0)]
    >>> grid.at(layer=1).axes
    ('head',)
    """

    values: Tensor
    axes: tuple[str, ...]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Words for the entries of an axis; numbers where an axis has none."""
    unit: str = ""
    title: str = ""
    note: str = ""
    scale: str = "diverging"
    text: Sequence | None = None
    """A word for each cell, nested like `values` (the lens writes its top tokens here)."""
    details: Mapping[str, Tensor] = field(default_factory=dict)
    """Further numbers for each cell, of the shape of `values`."""
    baseline: Mapping[str, float] = field(default_factory=dict)
    """What the values are to be compared with, e.g. the metric of the clean and of the corrupt run."""
    each: Tensor | None = None
    """The values prompt by prompt, prompts first, where `values` is their mean."""

    def __post_init__(self) -> None:
        if self.values.ndim != len(self.axes):
            raise WrongAxis(f"{self.values.ndim} dimensions cannot have the axes {self.axes}.")
        for axis, words in self.labels.items():
            if axis in self.axes and len(words) != self.shape[axis]:
                raise WrongAxis(f'the axis "{axis}" has {self.shape[axis]} entries and {len(words)} labels.')

    @property
    def shape(self) -> dict[str, int]:
        """Entries of each axis."""
        return dict(zip(self.axes, self.values.shape))

    def words(self, axis: str) -> Sequence[str]:
        """The labels of an axis."""
        self._known(axis)
        return self.labels[axis] if axis in self.labels else [str(i) for i in range(self.shape[axis])]

    def at(self, **index: int | str) -> Grid:
        """The grid with some axes fixed at a number or a label."""
        grid = self
        for axis, wanted in index.items():
            grid = grid._fix(axis, wanted)
        return grid

    def top(self, n: int = 5, by: str = "largest") -> list[tuple[dict[str, str], float]]:
        """The `n` strongest cells with their labels; `by` is "largest", "smallest" or "magnitude"."""
        flat = self.values.detach().flatten().float()
        keys = {"largest": flat, "smallest": -flat, "magnitude": flat.abs()}
        if by not in keys:
            raise ValueError(f'by is "largest", "smallest" or "magnitude", not "{by}".')
        order = keys[by].nan_to_num(-float("inf")).topk(min(n, flat.numel())).indices.tolist()
        return [(self._where(i), float(flat[i])) for i in order]

    def fraction(self) -> Grid:
        """Values as a share of the gap between the two baselines: 1 restores the clean run, 0 changes nothing."""
        if not {"clean", "corrupt"} <= set(self.baseline):
            raise Unserved("only an effects grid has the two baselines that a fraction needs.")
        gap = self.baseline["clean"] - self.baseline["corrupt"]
        if abs(gap) < 1e-6:
            raise WrongPrompt("the clean and the corrupt run have the same metric, so there is no gap to be a fraction of.")
        each = None if self.each is None else self.each / gap
        details = {k: v / gap for k, v in self.details.items()}
        if gap < 0 and {"low", "high"} <= set(details):
            details |= {"low": details["high"], "high": details["low"]}
        return replace(self, values=self.values / gap, each=each, details=details, unit="fraction of the gap")

    def interval(self, level: float = 0.95, seed: int = 0) -> Grid:
        """Where the mean over all prompts lies, at this level of confidence: Grid(bound, ...), by bootstrap over prompts."""
        found = uncertain.interval(self._each(), level, seed=seed)
        labels = {**self.labels, "bound": ["low", "high"]}
        return replace(self, values=found, axes=("bound", *self.axes), labels=labels, text=None, details={}, each=None,
                       title=f"{self.title}, {level:.0%} interval")  # fmt: skip

    def p_values(self, corrected: bool = True, seed: int = 0) -> Grid:
        """How likely chance alone takes an average this far from zero: sign-flip permutations of whole prompts.

        `corrected` for the number of cells: below 0.05, no more than one analysis in twenty has any cell by chance.
        """
        found = uncertain.p_values(self._each(), seed=seed, corrected=corrected)
        how = "corrected for all cells" if corrected else "uncorrected"
        return replace(self, values=found, text=None, details={}, each=None, unit="probability", scale="sequential",
                       title=f"{self.title}, p-values", note=f"Sign-flip permutations of prompts, {how}.")  # fmt: skip

    def _each(self) -> Tensor:
        if self.each is None:
            raise Unserved("this grid holds no values prompt by prompt, so nothing can be said about chance.")
        return self.each

    def map(self, f: Callable[[Tensor], Tensor]) -> Grid:
        """The grid with a function of its values, cell by cell."""
        return replace(self, values=f(self.values), details={}, each=None)

    def picture(self) -> Picture:
        """One axis is bars, two are a heat map, three a page of heat maps; fix further axes with `at`."""
        if self.values.ndim == 0:
            return Table(("value",), ((float(self.values),),), title=self.title, note=self.note)
        if self.values.ndim == 1:
            return self._bars()
        if self.values.ndim == 2:
            return self._heatmap()
        if self.values.ndim == 3:
            first = self.axes[0]
            maps = [self.at(**{first: i}) for i in range(self.shape[first])]
            parts = tuple(Section(f"{first} {w}", pictures=(m.picture(),)) for w, m in zip(self.words(first), maps))
            return Page(self.title or " x ".join(self.axes), sections=parts)
        raise WrongAxis(f"a picture has at most three axes; fix some of {self.axes} with grid.at({self.axes[0]}=0).")

    def show(self) -> None:
        """Draw in the terminal or notebook."""
        self.picture().show()

    def html(self) -> str:
        """One self-contained HTML page."""
        return self.picture().html()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()

    def __rich__(self):
        return self.picture().__rich__()

    def save(self, folder: str | Path) -> Path:
        """Write to a folder: numbers as safetensors, the rest as a readable card."""
        from patchclamp.core import store

        return store.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Grid:
        """Read what `save` wrote."""
        from patchclamp.core import store

        return store.load(folder, cls)

    def json(self) -> dict:
        """Plain data for `--json`: axes, labels, values, and the words and further numbers of each cell where there are any."""
        more: dict[str, Any] = {"text": self.text} if self.text is not None else {}
        if self.details:
            more["details"] = {name: _plain(value) for name, value in self.details.items()}
        return {
            "title": self.title,
            "axes": list(self.axes),
            "labels": {a: list(self.words(a)) for a in self.axes if self.shape[a] <= 10_000},
            "unit": self.unit,
            "values": _plain(self.values),
            "baseline": dict(self.baseline),
            **more,
        }

    def _fix(self, axis: str, wanted: int | str) -> Grid:
        self._known(axis)
        if isinstance(wanted, str):
            words = list(self.words(axis))
            if wanted not in words:
                raise WrongAxis(f'the axis "{axis}" has no entry "{wanted}".{did_you_mean(wanted, words)}')
            wanted = words.index(wanted)
        n, dim = self.shape[axis], self.axes.index(axis)
        if not -n <= wanted < n:
            raise WrongAxis(f'the axis "{axis}" has {n} entries, 0 to {n - 1}; {wanted} is outside.')
        return replace(
            self,
            values=self.values.select(dim, wanted),
            axes=self.axes[:dim] + self.axes[dim + 1 :],
            text=None if self.text is None else _pick(self.text, dim, wanted),
            details={k: v.select(dim, wanted) for k, v in self.details.items()},
            each=None if self.each is None else self.each.select(dim + 1, wanted),
        )

    def _known(self, axis: str) -> None:
        if axis not in self.axes:
            raise WrongAxis(f'this grid has no axis "{axis}"; it has {" ".join(self.axes)}.{did_you_mean(axis, self.axes)}')

    def _where(self, flat: int) -> dict[str, str]:
        found = {}
        for axis, n in reversed(list(self.shape.items())):
            flat, i = divmod(flat, n)
            found[axis] = str(self.words(axis)[i])
        return dict(reversed(found.items()))

    def _bars(self) -> Picture:
        axis = self.axes[0]
        if self.shape[axis] > 40:
            top = self.top(20, "magnitude")
            values, labels = [v for _, v in top], tuple(w[axis] for w, _ in top)
        else:
            values, labels = self.values.tolist(), tuple(str(w) for w in self.words(axis))
        array = torch.tensor(values).numpy()
        return Bars(array, labels, self.unit, axis, _scale(self.scale), title=self.title, note=self.note)

    def _heatmap(self) -> Picture:
        rows, columns = self.axes
        return Heatmap(
            self.values.detach().float().cpu().numpy(),
            tuple(str(w) for w in self.words(rows)),
            tuple(str(w) for w in self.words(columns)),
            rows,
            columns,
            scale=_scale(self.scale),
            unit=self.unit,
            text=None if self.text is None else tuple(tuple(row) for row in self.text),
            details={k: v.detach().float().cpu().numpy() for k, v in self.details.items()},
            title=self.title,
            note=self.note,
        )


def _plain(values: Tensor) -> Any:
    """Nested lists; None for what is not a number, which JSON has no word for."""

    def each(value: Any) -> Any:
        return [each(v) for v in value] if isinstance(value, list) else value if math.isfinite(value) else None

    return each(values.detach().float().tolist())


def by_stars(
    site: Site, paths: Sequence[str], cells: Float[Tensor, "batch path *starred"]
) -> tuple[Cells, tuple[str, ...], dict[str, list[str]]]:
    """Numbers for each path and each starred axis of the index, laid out along the pattern's stars; axes; labels of the paths.

    Where two stars of a path name more places than there are, the rest is not a number.
    """
    stars = site.stars
    if len(set(stars)) < len(stars):
        raise UnknownSite(f"{site} has two stars over the same axis; name one of the parts.")
    found = [site.star_values(p) for p in paths]
    words = [list(dict.fromkeys(values)) for values in zip(*found)]
    made = torch.full((cells.shape[0], *map(len, words), *cells.shape[2:]), float("nan"), device=cells.device)
    for n, values in enumerate(found):
        made[(slice(None), *(known.index(v) for known, v in zip(words, values)))] = cells[:, n]
    return made, stars, {star: [str(w) for w in known] for star, known in zip(stars, words)}


def _scale(scale: str):
    return "sequential" if scale == "sequential" else "diverging"


def _pick(nested: Sequence, dim: int, i: int) -> Sequence | None:
    if dim == 0:
        return None if isinstance(nested[i], str) else nested[i]
    return [_pick(part, dim - 1, i) if dim > 1 else part[i] for part in nested]
