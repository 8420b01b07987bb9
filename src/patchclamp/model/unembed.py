"""Unembedding: what the model's own end makes of any stream, by replacing every block with handing on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.model.inputs import Inputs, logits_of
from patchclamp.model.ride import Base, handing_on

if TYPE_CHECKING:
    from patchclamp.model.model import Model

LOGITS = 1 << 26
"""How many logits are held at a time while many streams are unembedded: a quarter of a gigabyte."""


@torch.no_grad()
def unembed(
    model: Model, inputs: Inputs, streams: Float[Tensor, "streams batch place d_model"]
) -> Iterator[Float[Tensor, "some batch pos vocab"]]:
    """The logits that the model's own end makes of streams, some of them at a time.

    Every block is replaced by handing on, the last one by the streams, so whatever stands between the last block and the
    logits (norms, scalings, soft-caps, a head with layers of its own) is the model's.
    """
    base = Base.of(model, inputs, "prefix")
    layout = model.anatomy.places[f"{base.blocks[-1].path}.out"].layout
    n, room = streams.shape[0], max(LOGITS // max(base.logits.numel(), 1), 1)
    for first in range(0, n, room):
        some = streams[first : first + room].flatten(0, 1)
        some = some.transpose(0, 1) if layout.steps else some  # XLNet keeps tokens first
        forward = model.forward(inputs, strict=False)
        calls = iter(range(len(base.blocks)))
        for module in dict.fromkeys(b.module for b in base.blocks):
            forward.taps.instead[module] = _ending(base, calls, some)
        output = forward.run(lambda forward=forward: model.call(inputs))
        logits = logits_of(output)
        yield logits.unflatten(0, (-1, inputs.batch))


def _ending(base: Base, calls: Iterator[int], streams: Tensor):
    def forward(*args: Any, **kwargs: Any) -> Any:
        i = next(calls)
        return handing_on(base, i, streams if i + 1 == len(base.blocks) else None)(*args, **kwargs)

    return forward
