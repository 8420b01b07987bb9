"""Doors: the doorway into attention, for the layers somebody asks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from patchclamp.model.attention import Softmax, additive
from patchclamp.model.ops import Operations, Passing
from patchclamp.model.place import Place
from patchclamp.model.watch import Slot


class Doors:
    """The doorway into attention, for the layers somebody asks about."""

    def __init__(self, module: nn.Module, places: Sequence[Place], passing: Passing, operations: Operations,
                 counts: Mapping[str, int]) -> None:  # fmt: skip
        self.passing, self.operations, self.counts = passing, operations, counts
        self.paths: dict[int, str] = {}
        self.places: dict[tuple[str, int], dict[Slot, Place]] = {}
        for place in places:
            path = place.modules[0]
            self.paths[id(module.get_submodule(path))] = path
            self.places.setdefault((path, place.call), {})[place.slot] = place

    def through(self, *args, **kwargs):
        """What happens behind the door is not counted among the calls of the module that knocks."""
        self.operations.enter(None)
        try:
            return self._attend(*args, **kwargs)
        finally:
            self.operations.leave()

    def _attend(self, kernel, eager, module, query, key, value, attention_mask, **kwargs):
        path = self.paths.get(id(module), "")
        here = self.places.get((path, self.counts[path] - 1), {})
        query, key, value = (
            self.passing(here[name], raw) if name in here else raw for name, raw in (("q", query), ("k", key), ("v", value))
        )
        if not here.keys() & {"scores", "pattern"}:
            return kernel(module, query, key, value, attention_mask, **kwargs)
        mask = attention_mask
        if kernel is not eager:
            mask = additive(mask, module, query, key, kwargs.get("is_causal"))
        keys = key.shape[2]

        def scores(raw: Tensor) -> Tensor:
            return self._front(here.get("scores"), raw, keys, raw.dtype)

        def pattern(raw: Tensor) -> Tensor:
            return self._front(here.get("pattern"), raw, keys, query.dtype)

        with Softmax(scores, pattern):
            return eager(module, query, key, value, mask, **kwargs)

    def _front(self, place: Place | None, raw: Tensor, keys: int, dtype: torch.dtype) -> Tensor:
        """The columns that belong to keys go by the tap; a sink's column stays as it is."""
        if place is None:
            return raw
        front = raw[..., :keys] if raw.shape[-1] != keys else raw
        value = front.to(dtype)
        new = self.passing(place, value)
        if new is value and (value is raw or not value.requires_grad):
            return raw  # a gradient asked of what was kept needs the model to go on with that, not with what it came from
        new = new.to(raw.dtype)
        return new if front is raw else torch.cat([new, raw[..., keys:]], dim=-1)
