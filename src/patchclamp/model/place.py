"""Place: where a site's value passes by in the running model, and how the raw tensor there is laid out.

A place is the input or output of a module call, an operand or result of one function call inside a module, or one of the
tensors at the doorway into attention. `Layout` turns the raw tensor into the site's axes and a changed value back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from patchclamp.model.watch import Slot


@dataclass(frozen=True)
class Layout:
    """A short list of rearrangements, each of which can be undone.

    tokens      (batch*pos, x)       -> (batch, pos, x)
    stack n     (batch*n, ...)       -> (batch, n, ...)
    swap i j    exchange two dimensions
    heads n     (..., n*d)           -> (..., n, d)
    part a b c  (..., x)             -> (..., x[a:b:c])
    """

    steps: tuple[tuple, ...] = ()

    def read(self, raw: Tensor, batch: int) -> Tensor:
        """The raw tensor with the site's axes; a view wherever the layout allows one."""
        for step in self.steps:
            raw = _forth(raw, step, batch)
        return raw

    def write(self, raw: Tensor, value: Tensor, batch: int) -> Tensor:
        """A raw tensor that reads as `value`."""
        levels = [raw]
        for step in self.steps[:-1]:
            levels.append(_forth(levels[-1], step, batch))
        for step, before in zip(reversed(self.steps), reversed(levels)):
            value = _back(before, value, step)
        return value.contiguous() if raw.is_contiguous() else value  # the model may take another view of it


def _forth(raw: Tensor, step: tuple, batch: int) -> Tensor:
    kind, *numbers = step
    if kind == "swap":
        return raw.transpose(*numbers)
    if kind == "heads":
        return raw.unflatten(-1, (numbers[0], -1))
    if kind == "tokens":
        return raw.unflatten(0, (batch, -1))
    if kind == "stack":
        return raw.unflatten(0, (-1, numbers[0]))
    return raw[..., slice(*numbers)]


def _back(before: Tensor, value: Tensor, step: tuple) -> Tensor:
    kind, *numbers = step
    if kind == "swap":
        return value.transpose(*numbers)
    if kind in ("heads", "tokens", "stack"):
        return value.reshape(before.shape)
    whole = before.clone()
    whole[..., slice(*numbers)] = value
    return whole


@dataclass(frozen=True)
class Place:
    """One named place of a model."""

    path: str
    """The site, e.g. `blocks.3.attn.z`."""
    kind: str
    """`input`, `output`, `operand`, `result`, `door`, `eager` or `experts`."""
    modules: tuple[str, ...]
    """The module, or the several that read the same value."""
    call: int = 0
    """Which call of the module in a pass; shared layers are called several times."""
    slot: Slot = None
    """Argument index or name, output index or name, operand number, or the tensor's name at a doorway."""
    op: tuple[str, int] = ("", 0)
    """For `operand` and `result`: the function's name and how many calls of it went before in that module call."""
    axes: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict, hash=False, compare=False)
    """The length of every axis that does not depend on the prompt."""
    layout: Layout = Layout()
    order: int = 0
    """When in a pass it goes by."""
    copy: bool = False
    """The model later changes this tensor in place, so that keeping it means copying it."""
    whole: bool = False
    """Its positions are those of the whole sequence even where only new tokens are computed (keys and values)."""
