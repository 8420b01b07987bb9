"""The table of a model's places: a sequence of site strings that shows itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from patchclamp.core.site import Site
from patchclamp.model.anatomy import Anatomy
from patchclamp.picture import Table


@dataclass(frozen=True, eq=False)
class SiteTable(Sequence[str]):
    """The places of a model: a sequence of sites that shows itself as a table."""

    name: str
    anatomy: Anatomy
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):
        return self.paths[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __contains__(self, path: object) -> bool:
        return path in self.paths

    def picture(self) -> Table:
        """One row a kind of place, the layers that have it, its axes with their sizes, and what is refused and why."""
        rows: dict[tuple[str, str], list[int]] = {}
        for path in self.paths:
            place = self.anatomy.places.get(path)
            axes = (
                ", ".join(f"{a} {place.sizes[a]}" if a in place.sizes else a for a in place.axes)
                if place
                else "latents of a dictionary"
            )
            rows.setdefault((_kind(path), axes), []).append(Site.parse(path).layer or 0)
        refused: dict[tuple[str, str], list[int]] = {}
        for path, reason in self.anatomy.refused.items():
            refused.setdefault((_kind(path), f"not served: {reason}"), []).append(Site.parse(path).layer or 0)
        made = [(kind, _layers(kind, layers), axes) for (kind, axes), layers in (*rows.items(), *refused.items())]
        return Table(("site", "layers", "axes"), tuple(made), title=f"Sites of {self.name}")

    def show(self) -> None:
        """Draw the table."""
        self.picture().show()

    def __rich__(self):
        return self.picture().__rich__()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()


def _kind(path: str) -> str:
    return ".".join("i" if p.isdigit() else p for p in path.split("."))


def _layers(kind: str, layers: list[int]) -> str:
    if "blocks.i" not in kind:
        return ""
    first, last = min(layers), max(layers)
    return f"{first} to {last}" if len(layers) == last - first + 1 > 1 else ", ".join(map(str, sorted(layers)))
