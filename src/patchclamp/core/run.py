"""Run: what one forward pass left behind. Tokens, logits, the activations asked for, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from patchclamp.core.axes import Logits, PerPrompt, Tokens
from patchclamp.core.errors import NotKept, ShapeMismatch, Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site, written
from patchclamp.core.window import Window, select


@runtime_checkable
class Reader(Protocol):
    """Turns ids back into what people read."""

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        """One text a token."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The whole as text."""
        ...

    def vocabulary(self, size: int) -> Sequence[str]:
        """The words of all tokens."""
        ...


@dataclass(frozen=True)
class Remembered:
    """A reader that knows the tokens of one run, for runs read from disk."""

    known: Mapping[int, str] = field(default_factory=dict)

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(self.known.get(int(i), str(int(i))) for i in ids)

    def text(self, ids: Sequence[int]) -> str:
        return "".join(self.words(ids)) if self.known else " ".join(str(int(i)) for i in ids)

    def vocabulary(self, size: int) -> Sequence[str]:
        return [self.known.get(i, str(i)) for i in range(size)]


@dataclass(frozen=True, eq=False)
class Kept:
    """One activation: the whole value of a place, or the part of it that an index named."""

    value: Tensor
    axes: tuple[str, ...]
    """The axes of the whole place."""
    windows: Mapping[str, Window]
    index: tuple = ()
    """The index it was kept under; empty where the whole place was kept."""


@dataclass(frozen=True, eq=False)
class Run:
    """One forward pass. `run["blocks.5.attn.pattern"]` is a tensor; a pattern of sites is stacked, layers first.

    >>> run = model.run(clean, keep="blocks.*.attn.pattern")
    >>> run["blocks.2.attn.pattern[head=0]"].shape, run["blocks.*.attn.pattern"].shape
    (torch.Size([1, 15, 15]), torch.Size([4, 1, 8, 15, 15]))
    >>> run.next().top(1)[0][0]
    {'vocab': ' Mary'}
    """

    tokens: Tokens
    """Token ids, padded where prompts differ in length; empty for a model that reads no tokens."""
    windows: Mapping[str, Window]
    """Where each prompt lies in the padded batch: `""` for the stream that leads to the output, `"encoder."`, ..."""
    kept: Mapping[str, Kept] = field(default_factory=dict)
    output: Logits | None = None
    """The logits, or None where the pass stopped before them."""
    answers: tuple[int, ...] | None = None
    """For each prompt the column that holds its answer, where that is not its last token: a masked one."""
    fresh: int = 0
    """How many tokens were generated."""
    reader: Reader = field(default_factory=Remembered, repr=False)
    model: str = ""

    @cached_property
    def words(self) -> tuple[tuple[str, ...], ...]:
        """The tokens of each prompt as text, without padding."""
        return tuple(self.reader.words(row) for row in self._rows())

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The prompts, with what was generated, as text."""
        return tuple(self.reader.text(row) for row in self._rows())

    @property
    def new(self) -> tuple[str, ...]:
        """What was generated, as text."""
        return tuple(self.reader.text(row[len(row) - self.fresh :]) for row in self._rows())

    def _rows(self) -> list[list[int]]:
        if not self.tokens.numel():
            return [[] for _ in range(self.tokens.shape[0])]
        columns = [list(self.windows[""].tokens(r)) for r in range(self.tokens.shape[0])]
        return [self.tokens[r, c].tolist() for r, c in enumerate(columns)]

    def __str__(self) -> str:
        return "\n".join(self.texts)

    def __repr__(self) -> str:
        batch, length = self.tokens.shape
        what = f"{length} tokens" if batch == 1 else f"{batch} prompts"
        return f"Run({what}, kept {len(self.kept)} places{'' if self.output is None else ', logits'})"

    @property
    def last(self) -> list[int]:
        """The column where each prompt is answered: its last token, or its masked one."""
        if self.answers is not None:
            return list(self.answers)
        if "" not in self.windows:
            raise Unserved("this model reads no tokens, so there is no last one where its answer would stand.")
        return [self.windows[""].tokens(r)[-1] for r in range(self.tokens.shape[0])]

    @property
    def logits(self) -> Logits:
        """What the pass ended with."""
        if self.output is None:
            raise NotKept("this run stopped before the logits (logits=False); run again with logits=True.")
        return self.output

    @property
    def sites(self) -> tuple[str, ...]:
        """The places this run kept."""
        return tuple(self.kept)

    def __contains__(self, site: str | Site) -> bool:
        return Site.parse(site).path in self.kept

    def __getitem__(self, site: str | Site) -> Tensor:
        """The activation at a site, with the site's axes; a pattern over layers is stacked along a new first axis."""
        site = Site.parse(site)
        paths = self._paths(site)
        values = [self._value(site, p) for p in paths]
        if not site._path_stars():
            return values[0]
        if len({v.shape for v in values}) > 1:
            raise ShapeMismatch(f"{site} names places of different shape; take them one by one.")
        return torch.stack(values)

    def stored(self, site: Site) -> tuple[Tensor, tuple[str, ...], Mapping[str, Window]]:
        """The whole value of one place, its axes and windows."""
        path = self._paths(site)[0]
        kept = self.kept[path]
        if kept.index:
            raise NotKept(f'only {path}[{_text(kept.index)}] was kept; run with keep="{path}" to have all of it.')
        return kept.value, kept.axes, kept.windows

    def gradient(self, metric: Callable[[Logits], PerPrompt], retain: bool = False) -> Run:
        """The gradient of a metric (summed over prompts) at every place kept, as a run with the same sites.

        The run must have been made with `grad=True`. `retain` keeps the graph for another metric.
        """
        values = [k.value for k in self.kept.values()]
        if self.output is None or not self.output.requires_grad:
            raise NotKept("this run holds no graph: run with grad=True and keep=... to take gradients.")
        total = metric(self.output).sum()
        if not total.requires_grad:
            name = getattr(metric, "name", "this metric")
            raise Unserved(f"{name} has no gradient; take one that changes smoothly with the logits.")
        found = torch.autograd.grad(total, values, allow_unused=True, retain_graph=retain)
        filled = [torch.zeros_like(v) if g is None else g for g, v in zip(found, values)]
        kept = {path: replace(k, value=g) for (path, k), g in zip(self.kept.items(), filled)}
        return replace(self, kept=kept, output=self.output.detach())

    def next(self) -> Grid:
        """Probabilities at the place of the answer: Grid(vocab), or Grid(prompt, vocab) for several prompts."""
        at = self.logits.detach()[range(len(self.last)), self.last].float().softmax(-1)
        labels: dict[str, Sequence[str]] = {"vocab": self.reader.vocabulary(at.shape[-1])}
        if len(at) > 1:
            labels["prompt"] = self.texts
        values, axes = (at[0], ("vocab",)) if len(at) == 1 else (at, ("prompt", "vocab"))
        return Grid(values, axes, labels, unit="probability", title="Next token", scale="sequential")

    def save(self, folder: str | Path) -> Path:
        """Write to a folder: tokens, logits and activations as safetensors, the rest as a readable card."""
        from patchclamp.core import store

        return store.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read what `save` wrote."""
        from patchclamp.core import store

        return store.load(folder, cls)

    def _paths(self, site: Site) -> list[str]:
        if not self.kept:
            raise NotKept(f'this run kept nothing; run with keep="{site.path}".')
        try:
            return site.expand(list(self.kept), "this run")
        except Exception as error:
            raise NotKept(f'{site.path} was not kept; run with keep="{site.path}". ({error})') from None

    def _value(self, site: Site, path: str) -> Tensor:
        kept = self.kept[path]
        if kept.index == site.index:
            return kept.value
        if kept.index:
            raise NotKept(f"only {path}[{_text(kept.index)}] was kept, not {path}[{_text(site.index)}].")
        chosen = select(site, kept.axes, kept.value, dict(kept.windows))
        if chosen is None:
            raise WrongAxis(f"{site} lies outside this run.")
        return chosen.take(kept.value)


def _text(index: tuple) -> str:
    return ", ".join(f"{a}={written(v)}" for a, v in index)
