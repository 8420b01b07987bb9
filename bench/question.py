"""A patching question put to every contender alike, and how far their answers lie apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import patchclamp as pc
from bench import models
from bench.clock import Spread
from bench.table import Line


@dataclass(frozen=True)
class Question:
    """Two prompts of 15 tokens that differ in token 4, and a metric: the two tokens whose logits they move apart most."""

    module: nn.Module
    clean: Tensor
    corrupt: Tensor
    up: int
    down: int
    first: int = 4

    @classmethod
    def on(cls, module: nn.Module) -> Question:
        """A question for this model."""
        clean = models.prompt(module, 1, 15)
        corrupt = clean.clone()
        corrupt[0, cls.first] = (clean[0, cls.first] + 7) % module.config.vocab_size
        apart = (forward(module, clean).logits - forward(module, corrupt).logits)[0, -1]
        return cls(module, clean, corrupt, int(apart.argmax()), int(apart.argmin()))

    @property
    def gap(self) -> float:
        """How far the metric of the clean run lies above that of the corrupt one."""
        both = (self.measure(forward(self.module, ids).logits) for ids in (self.clean, self.corrupt))
        clean, corrupt = (float(value) for value in both)
        return clean - corrupt

    def measure(self, logits: Tensor) -> Tensor:
        """The metric, as a user of any library would write it."""
        return logits[:, -1, self.up] - logits[:, -1, self.down]

    def effects(self, sites: str, **options: Any) -> Tensor:
        """Patchclamp's answer."""
        metric = pc.logit_diff(self.up, self.down)
        return pc.effects(opened(self.module), self.clean, self.corrupt, sites, metric, **options).values

    def agreement(self, what: str, answers: Mapping[str, Tensor], truth: Tensor) -> Iterator[Line]:
        """How far each answer is from that of plain hooks, in parts of the gap; ours must be within 1e-5."""
        for name, answer in answers.items():
            error = Spread.of([float((answer - truth).abs().max()) / abs(self.gap)])
            target = "<= 1e-5" if name == "Patchclamp" else ""
            yield Line(f"{what}, greatest error", f"|{name} - plain hooks| / gap", error, target, "", answer=True)


@cache
def opened(module: nn.Module) -> pc.Model:
    """The model in Patchclamp, its anatomy read: that is done once a model (the row `load` says what it costs)."""
    model = pc.load(module)
    assert model.anatomy.places
    return model


@torch.no_grad()
def forward(module: nn.Module, ids: Tensor, use_cache: bool = False, **more: Any) -> Any:
    """Plain Hugging Face."""
    return module(ids, use_cache=use_cache, **more)
