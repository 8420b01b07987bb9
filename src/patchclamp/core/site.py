"""Site: one place in a forward pass, and the small grammar that names it. A star makes it a pattern.

    path  := part ("." part)*                 part  := name | int | a:b | *
    index := axis "=" (int | a:b | * | int("|"int)+)     site := path [ "[" index ("," index)* "]" ]

    "blocks.9.attn.z[head=6, pos=-1]"         one head at the newest token
    "blocks.*.out[pos=*]"                     every layer and position: a pattern with two axes
    "blocks.9.out[pos=10|12]"                 each prompt at a token of its own: 10 in the first, 12 in the second
    "@model.layers.3.self_attn.q_norm.out"    what a raw module returns (or reads, with ".in")

Every star is an axis of the answer; `a:b` is a star cut to a range. Knows strings only: which places a model has is the
anatomy's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patchclamp.core.errors import UnknownSite, WrongAxis, did_you_mean

_PART = re.compile(r"\*|-?\d+|(?:-?\d+)?:(?:-?\d+)?|[A-Za-z_][A-Za-z_0-9]*")
_INDEX = re.compile(r"\s*([A-Za-z_]+)\s*=\s*(\*|(?:-?\d+)?:(?:-?\d+)?|-?\d+(?:\|-?\d+)*)\s*")


@dataclass(frozen=True)
class Span:
    """`a:b`, or `*` when both ends are open."""

    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        if self.start is None and self.stop is None:
            return "*"
        return f"{'' if self.start is None else self.start}:{'' if self.stop is None else self.stop}"

    def of(self, n: int) -> range:
        """The numbers it stands for among `n`."""
        return range(*slice(self.start, self.stop).indices(n))


Part = str | int | Span
Entry = int | Span | tuple[int, ...]
"""What an axis is indexed with: one entry, a star or range of them, or one for each prompt."""


@dataclass(frozen=True)
class Site:
    """One place, or a pattern of places. `Site.parse` reads the grammar; `str` writes it back.

    >>> str(Site.parse("blocks.9.attn.z[ head = 6 ]"))
    'blocks.9.attn.z[head=6]'
    >>> Site.parse("blocks.*.attn.z[head=*]").stars
    ('layer', 'head')
    """

    parts: tuple[Part, ...]
    index: tuple[tuple[str, Entry], ...] = ()
    raw: bool = False
    """True for `@module.path.out`: a module of the model itself, outside the canonical names."""

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read a site string; an `UnknownSite` says which part is not in the grammar."""
        if isinstance(text, Site):
            return text
        if not isinstance(text, str):
            raise UnknownSite(f"a site is a string such as 'blocks.3.out', not {type(text).__name__}.")
        path, bracket, rest = text.strip().partition("[")
        raw = path.startswith("@")
        parts = tuple(_part(p, text) for p in path.strip().removeprefix("@").split("."))
        if raw and parts[-1] not in ("in", "out"):
            raise UnknownSite(f'"{text}" names a raw module: end it with ".in" or ".out".')
        return cls(parts, _index(rest, text) if bracket else (), raw)

    def __str__(self) -> str:
        index = ", ".join(f"{axis}={written(value)}" for axis, value in self.index)
        return self.path + (f"[{index}]" if index else "")

    @property
    def path(self) -> str:
        """The site without its index."""
        return ("@" if self.raw else "") + ".".join(str(p) for p in self.parts)

    @property
    def stars(self) -> tuple[str, ...]:
        """The axes that this pattern spans, path first."""
        return tuple(name for name, _ in self._path_stars()) + tuple(a for a, v in self.index if isinstance(v, Span))

    @property
    def layer(self) -> int | None:
        """The block it lies in, where it lies in one and is no pattern over blocks."""
        for before, part in zip(self.parts, self.parts[1:]):
            if before == "blocks" and isinstance(part, int):
                return part
        return None

    def at(self, **index: Entry) -> Site:
        """The same place with further indices; an axis already indexed is replaced.

        >>> str(Site.parse("blocks.3.out").at(pos=-1))
        'blocks.3.out[pos=-1]'
        """
        kept = tuple((a, v) for a, v in self.index if a not in index)
        return Site(self.parts, kept + tuple(index.items()), self.raw)

    def bare(self) -> Site:
        """The same place without its index."""
        return Site(self.parts, (), self.raw)

    def expand(self, paths: Sequence[str], where: str = "this model") -> list[str]:
        """The concrete paths, among those a model has, that this site or pattern names, in the model's order."""
        mine = [p for p in paths if p.startswith("@") == self.raw]
        depth = _depths(mine)
        found = [p for p in mine if self._matches(_split(p), depth)]
        if not found:
            raise UnknownSite(f'no site "{self.path}" in {where}.{_nearest(self, paths)}')
        return found

    def star_values(self, path: str) -> tuple[str | int, ...]:
        """What the path's stars stand for in one of the paths it expands to.

        >>> Site.parse("blocks.*.mlp.out").star_values("blocks.4.mlp.out")
        (4,)
        """
        parts = _split(path)
        return tuple(parts[i] for _, i in self._path_stars())

    def _path_stars(self) -> list[tuple[str, int]]:
        stars = [i for i, p in enumerate(self.parts) if isinstance(p, Span)]
        return [("layer" if i and self.parts[i - 1] == "blocks" else "component", i) for i in stars]

    def _matches(self, parts: tuple[str | int, ...], depth: dict[tuple, int]) -> bool:
        if len(parts) != len(self.parts):
            return False
        return all(_fits(mine, parts[i], depth.get(parts[:i], 0)) for i, mine in enumerate(self.parts))

    @classmethod
    def from_transformer_lens(cls, name: str) -> Site:
        """The site that a TransformerLens hook name means; for people who migrate, never a second spelling.

        >>> str(Site.from_transformer_lens("blocks.3.attn.hook_z"))
        'blocks.3.attn.z'
        """
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        table, key = (_TL_BLOCK, block[2]) if block else (_TL, name)
        if key not in table:
            raise UnknownSite(f'"{name}" is no TransformerLens hook we know.{did_you_mean(key, table)}')
        return cls.parse(f"blocks.{block[1]}.{table[key]}" if block else table[key])


_TL = {"hook_embed": "embed.out", "ln_final.hook_normalized": "norm.out", "unembed.hook_out": "logits"}
_TL_BLOCK = {
    "hook_resid_pre": "in",
    "hook_resid_mid": "mid",
    "hook_resid_post": "out",
    "ln1.hook_normalized": "attn.in",
    "attn.hook_q": "attn.q",
    "attn.hook_rot_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_rot_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_attn_scores": "attn.scores",
    "attn.hook_pattern": "attn.pattern",
    "attn.hook_z": "attn.z",
    "hook_attn_out": "attn.out",
    "ln2.hook_normalized": "mlp.in",
    "mlp.hook_pre": "mlp.pre",
    "mlp.hook_pre_linear": "mlp.pre",
    "mlp.hook_post": "mlp.act",
    "hook_mlp_out": "mlp.out",
}


def written(entry: Entry) -> str:
    """An entry of an index as the grammar has it.

    >>> written((10, 12))
    '10|12'
    """
    return "|".join(map(str, entry)) if isinstance(entry, tuple) else str(entry)


def _part(part: str, text: str) -> Part:
    match = _PART.fullmatch(part.strip())
    if match is None:
        raise UnknownSite(f'"{text}" is not a site: "{part}" is neither a name, a number, a range a:b nor *.')
    return _value(match[0])


def _value(word: str) -> Part:
    if word == "*":
        return Span()
    if ":" in word:
        start, stop = word.split(":")
        return Span(int(start) if start else None, int(stop) if stop else None)
    return int(word) if word.lstrip("-").isdigit() else word


def _index(rest: str, text: str) -> tuple[tuple[str, Entry], ...]:
    body, bracket, tail = rest.partition("]")
    if not bracket or tail.strip():
        raise UnknownSite(f'"{text}" is not a site: the index must end the string with one "]".')
    found: dict[str, Entry] = {}
    for item in body.split(","):
        match = _INDEX.fullmatch(item)
        if match is None:
            raise UnknownSite(f'"{text}" is not a site: "{item.strip()}" is not axis=number, axis=a:b or axis=*.')
        if match[1] in found:
            raise WrongAxis(f'"{text}" indexes the axis "{match[1]}" twice.')
        value = tuple(map(int, match[2].split("|"))) if "|" in match[2] else _value(match[2])
        assert not isinstance(value, str)
        found[match[1]] = value
    return tuple(found.items())


def _split(path: str) -> tuple[str | int, ...]:
    return tuple(int(p) if p.lstrip("-").isdigit() else p for p in path.removeprefix("@").split("."))


def _depths(paths: Iterable[str]) -> dict[tuple, int]:
    """How many numbered children each prefix has, so that `blocks.-1` and ranges can be resolved."""
    depth: dict[tuple, int] = {}
    for path in paths:
        parts = _split(path)
        for i, part in enumerate(parts):
            if isinstance(part, int):
                depth[parts[:i]] = max(depth.get(parts[:i], 0), part + 1)
    return depth


def _fits(mine: Part, theirs: str | int, n: int) -> bool:
    if isinstance(mine, Span):
        if isinstance(theirs, str):
            return mine == Span()
        return theirs in mine.of(n)
    if isinstance(mine, int) and mine < 0:
        return theirs == mine + n
    return mine == theirs


def _nearest(site: Site, paths: Sequence[str]) -> str:
    """A suggestion with the user's own layer, and what else there is beside it."""
    if not paths:
        return ""
    layers = _depths(paths).get(("blocks",), 0)
    numbers = [p for p in site.parts if isinstance(p, int)]
    if numbers and layers and "blocks" in site.parts and not any(-layers <= n < layers for n in numbers):
        return f" It has {layers} blocks, numbered 0 to {layers - 1}."
    generic = {re.sub(r"\.\d+\.", ".#.", p): p for p in paths}
    wanted = re.sub(r"\.(\*|-?\d+|-?\d*:-?\d*)\.", ".#.", site.path)
    near = did_you_mean(wanted, generic)
    layer = next((str(p) for p in site.parts if not isinstance(p, str)), "")
    near = near.replace("#", layer)
    parent = wanted.rpartition(".")[0] + "."
    beside = sorted({g.removeprefix(parent) for g in generic if g.startswith(parent) and "." not in g[len(parent) :]})
    return near + (f" Beside it: {' '.join(beside)}." if beside else "")
