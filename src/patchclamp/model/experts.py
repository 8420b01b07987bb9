"""What each expert of a mixture adds, with the model's own code: the same module, with every other expert's weight at zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchclamp.model.watch import Slot


def contributions(module: nn.Module, args: tuple, kwargs: dict, slots: tuple[Slot, Slot], experts: int) -> Tensor:
    """(tokens, expert, d_model): they add up to what the module returns, up to rounding.

    `slots` say through which arguments the choice (tokens, chosen) and its weights come in.
    """
    chosen, weights = _slot(args, kwargs, slots[0]), _slot(args, kwargs, slots[1])
    made = []
    for expert in range(experts):
        masked = weights * (chosen == expert)
        made.append(module.forward(*_with(args, slots[1], masked), **_with_named(kwargs, slots[1], masked)))
    return torch.stack(made, dim=-2)


def _slot(args: tuple, kwargs: dict, slot: Slot) -> Tensor:
    return args[slot] if isinstance(slot, int) else kwargs[slot]


def _with(args: tuple, slot: Slot, value: Tensor) -> tuple:
    return (*args[:slot], value, *args[slot + 1 :]) if isinstance(slot, int) else args


def _with_named(kwargs: dict, slot: Slot, value: Tensor) -> dict:
    return {**kwargs, slot: value} if isinstance(slot, str) else kwargs
