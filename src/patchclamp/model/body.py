"""Body: the module, tokenizer and anatomy that a model and all its edited versions share.

The anatomy is read on first need, by watching one small pass, and checked by a second one through the taps: what a block
adds must add up to what it returns. A place that fails is refused; nothing is served that was not seen to be right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from patchclamp.core.errors import NotAModel, Unserved
from patchclamp.core.site import Site, Span
from patchclamp.model.anatomy import Anatomy, Block
from patchclamp.model.example import BATCH, example
from patchclamp.model.forward import Forward
from patchclamp.model.inputs import padding, takes
from patchclamp.model.norms import normed
from patchclamp.model.stacks import read_anatomy
from patchclamp.model.tokens import Reader, Tokenizer
from patchclamp.model.watch import watch


@dataclass(eq=False)
class Body:
    """One module in memory. Values (`Model`) share it; it changes only by being looked at for the first time."""

    module: nn.Module
    name: str
    find_tokenizer: Callable[[], Tokenizer]
    stack: str = ""
    """For modules of other people's making: the path of the list of blocks, where it cannot be found."""
    inputs: dict[str, Any] | None = None
    """What to watch the model on, where no example can be made up."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __repr__(self) -> str:
        return f"Body({self.name})"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.find_tokenizer()

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.tokenizer)

    @cached_property
    def padding(self) -> str:
        """How prompts of unequal length are laid out so that padding changes nothing; `""` where no way was found."""
        with self.lock:
            return padding(self.module, lambda: self.tokenizer)

    @property
    def anatomy(self) -> Anatomy:
        """The table of places, read on first need."""
        with self.lock:
            return self._anatomy

    @cached_property
    def _anatomy(self) -> Anatomy:
        inputs = self.inputs
        if inputs is not None and takes(self.module, "use_cache"):
            inputs = {"use_cache": False, **inputs}
        if inputs is None:
            try:
                inputs = example(self.module)
            except Exception as error:
                raise NotAModel(
                    f"{self.name}: no example input could be made up to read its anatomy on ({error}); "
                    "load it with pc.load(module, example={...})."
                ) from error
        batch = next((v.shape[0] for v in inputs.values() if isinstance(v, Tensor)), BATCH)
        try:
            recording = watch(self.module, inputs)
        except Exception as error:
            raise Unserved(f"{self.name} could not be run on a small example ({type(error).__name__}: {error}).") from error
        with torch.enable_grad():  # what mixes tokens is told from gradients
            anatomy = read_anatomy(self.module, recording, batch, self.stack)
        return checked(self.module, anatomy, inputs, batch)

    @cached_property
    def expand(self) -> Callable[[Site], tuple[str, ...]]:
        """The concrete places a site or pattern names; remembered, since sweeps ask again and again."""

        @lru_cache(maxsize=4096)
        def expand(site: Site) -> tuple[str, ...]:
            if site.raw:
                return self._raw(site)
            places = self.anatomy.places
            try:
                return tuple(site.expand(list(places), self.name))
            except Exception:
                reason = refusal(self.anatomy, site)
                if reason:
                    raise Unserved(f'"{site.path}" is not served in {self.name}: {reason}.') from None
                raise

        return expand

    def _raw(self, site: Site) -> tuple[str, ...]:
        known = [f"@{path}.{side}" for path, _ in self.module.named_modules() if path for side in ("in", "out")]
        return tuple(site.expand(known, self.name))


def refusal(anatomy: Anatomy, site: Site) -> str:
    """Why a site of the grammar is not served, if that is known."""
    for refused, reason in anatomy.refused.items():
        parts = refused.split(".")
        if len(parts) <= len(site.parts) and all(map(_names, site.parts, parts)):
            return reason
    return ""


def _names(part: str | int | Span, word: str) -> bool:
    """Whether a part of a site may stand for a word of a path."""
    if isinstance(part, Span) or (isinstance(part, int) and part < 0):
        return word.isdigit()
    return str(part) == word


def checked(module: nn.Module, anatomy: Anatomy, inputs: dict[str, Any], batch: int) -> Anatomy:
    """The anatomy without the blocks whose parts, read through the taps, do not add up to what they return."""
    forward = Forward(module, lambda: anatomy, {}, batch)
    for tower in anatomy.towers:
        for block in tower.blocks:
            for path in _parts(anatomy, block):
                forward.keep(path, Site.parse(path))
    with torch.no_grad():
        forward.run(lambda: module(**inputs))
    values = {path: kept.value for path, kept in forward.kept.items()}
    for tower in anatomy.towers:
        for block in tower.blocks:
            gap = identity(module, block, values)
            if gap is not None and not gap < _tolerance(values[f"{block.path}.out"]):
                _withdraw(anatomy, block, f"in plus what is added differs from out by {gap:.1e} (relative)")
    return anatomy


def _parts(anatomy: Anatomy, block: Block) -> list[str]:
    names = ["in", "mid", "out", *(f"{w.name}.out" for w in block.writes)]
    return [p for n in names if (p := f"{block.path}.{n}") in anatomy.places]


@torch.no_grad()
def identity(module: nn.Module, block: Block, values: dict[str, Tensor]) -> float | None:
    """The largest relative gap between a block's output (and mid) and what its steps make of its input."""
    if not block.steps:
        return None
    stream, worst = values[f"{block.path}.in"], 0.0
    for i, step in enumerate(block.steps):
        if step.kind == "write":
            for name in step.writes:
                stream = stream + values[f"{block.path}.{name}.out"].to(stream.dtype)
        elif step.kind == "scale":
            stream = stream * step.factor
        elif step.kind == "shift":
            stream = stream + step.shift
        else:
            stream = normed(module.get_submodule(step.norm), stream) if step.norm else stream
        if i + 1 == block.mid_after and f"{block.path}.mid" in values:
            worst = max(worst, _gap(values[f"{block.path}.mid"], stream))
            stream = values[f"{block.path}.mid"]
    return max(worst, _gap(values[f"{block.path}.out"], stream))


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / a.float().abs().max().clamp(min=1e-6))


def _tolerance(value: Tensor) -> float:
    return 1e-4 if value.dtype in (torch.float32, torch.float64) else 3e-2


def _withdraw(anatomy: Anatomy, block: Block, reason: str) -> None:
    for path in [p for p in anatomy.places if p.startswith(block.path + ".")]:
        del anatomy.places[path]
    for name in ("in", "mid", "out", "attn", "mlp", "mixer"):
        anatomy.refused[f"{block.path}.{name}"] = reason
