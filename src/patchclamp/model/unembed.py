"""Unembedding: what the model's own end makes of any stream, by replacing every block with handing on.

Whatever stands between the last block and the logits (norms, scalings, soft-caps, a head with layers of its own) is the
model's. One pass over a prompt says what blocks return and keeps what is to be read; after that each reading costs the end
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.core.run import Run
from patchclamp.model.anatomy import Block
from patchclamp.model.inputs import Inputs, find_logits, logits_of
from patchclamp.model.ride import handing_on, noting

if TYPE_CHECKING:
    from patchclamp.model.model import Model, Sites

LOGITS = 1 << 26
"""How many logits are held at a time while many streams are unembedded: a quarter of a gigabyte."""


@dataclass(frozen=True, eq=False)
class End:
    """The end of a model on one prompt, and the run that showed it: `end(streams)` are logits.

    >>> from patchclamp.model.unembed import End
    >>> end = End.of(model, model.inputs(clean), "blocks.*.out")
    >>> torch.equal(end(end.run["blocks.3.out"][None])[0], end.run.logits)
    True
    """

    model: Model
    inputs: Inputs
    run: Run
    shapes: list[Any]
    """What each block returned as a whole, to be imitated where it is skipped."""

    @classmethod
    def of(cls, model: Model, inputs: Inputs, keep: Sites = ()) -> End:
        """One pass, with whatever places are to be kept."""
        blocks = model.anatomy.main.blocks
        forward = model.forward(inputs, keep)
        shapes: list[Any] = []
        for path in dict.fromkeys(b.module for b in blocks):
            forward.taps.add_after(path, noting(shapes))
        with torch.no_grad():
            output = find_logits(forward.run(lambda: model.call(inputs)))
        if output is None:
            raise Unserved(f"{model.name} returns no logits, so there is nothing to read a stream out into.")
        return cls(model, inputs, model.result(inputs, forward, output), shapes)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks that are skipped."""
        return self.model.anatomy.main.blocks

    @property
    def room(self) -> int:
        """How many streams are unembedded at a time, so that no more than `LOGITS` numbers are held."""
        return max(LOGITS // max(self.run.logits.numel(), 1), 1)

    def __call__(self, streams: Float[Tensor, "streams batch place d_model"]) -> Float[Tensor, "streams batch pos vocab"]:
        """The logits of some streams at once. A gradient passes where the streams have one."""
        return self.read(streams.flatten(0, 1)).unflatten(0, (-1, self.inputs.batch))

    def read(self, rows: Float[Tensor, "row place d_model"]) -> Float[Tensor, "row pos vocab"]:
        """The logits of any number of rows, whatever prompts they come from."""
        layout = self.model.anatomy.places[f"{self.blocks[-1].path}.out"].layout
        rows = rows.transpose(0, 1) if layout.steps else rows  # XLNet keeps tokens first
        forward = self.model.forward(self.inputs, strict=False)
        calls = iter(range(len(self.blocks)))
        for module in dict.fromkeys(b.module for b in self.blocks):
            forward.taps.instead[module] = self._handing(calls, rows)
        grad = rows.requires_grad
        with torch.set_grad_enabled(grad):
            return logits_of(forward.run(lambda: self.model.call(self.inputs, grad)))

    def each(self, streams: Float[Tensor, "streams batch place d_model"]) -> Iterator[Float[Tensor, "some batch pos vocab"]]:
        """The logits of many streams, some of them at a time."""
        for first in range(0, streams.shape[0], self.room):
            yield self(streams[first : first + self.room])

    def _handing(self, calls: Iterator[int], streams: Tensor):
        def forward(*args: Any, **kwargs: Any) -> Any:
            i = next(calls)
            return handing_on(self, i, streams if i + 1 == len(self.blocks) else None)(*args, **kwargs)

        return forward
