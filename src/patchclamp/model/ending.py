"""Ending: one pass of a model, and its own end as a function of the stream, which gradients can pass.

What stands between the last block and the logits (norms, scalings, soft-caps, a head with layers of its own) is the model's:
every block is replaced by handing on, the last one by the stream that is given. `unembed` reads many streams out that way;
this is for what is trained through the end, such as a tuned lens, where one pass gives the streams, the logits and the end.

Tokens are read one by one, whatever prompt they come from. Whether a model's end does that is tried on the batch itself.
Where it is a norm and a matrix and nothing else, as it mostly is, that is found out too, and the matrix is at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from patchclamp.core.errors import Unserved
from patchclamp.model.inputs import Inputs
from patchclamp.model.norms import normed
from patchclamp.model.unembed import End

if TYPE_CHECKING:
    from patchclamp.model.model import Model

Rows = Float[Tensor, "token d_model"]
"""The stream at some tokens."""
Read = Float[Tensor, "token vocab"]
"""The logits of some tokens."""


@dataclass(frozen=True, eq=False)
class Tail:
    """An end that is a norm and a matrix."""

    norm: Callable[[Tensor], Tensor]
    weight: Float[Tensor, "vocab d_model"]
    bias: Float[Tensor, " vocab"] | None


@dataclass(frozen=True, eq=False)
class Ending:
    """What every block read, the logits, and what the model makes of other streams in the place of the last block's.

    >>> from patchclamp.model.ending import Ending
    >>> passed = Ending.of(model, model.inputs([clean, "Mary"]))
    >>> passed.streams[0].shape, passed.read(passed.last).shape
    (torch.Size([17, 128]), torch.Size([17, 1097]))
    """

    end: End

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, inputs: Inputs) -> Ending:
        """Run a batch once."""
        if "" not in inputs.windows:
            raise Unserved(f"{model.name} reads no tokens, so it has no stream of tokens to read out.")
        blocks = model.anatomy.main.blocks
        made = cls(End.of(model, inputs, [*(f"{b.path}.in" for b in blocks), f"{blocks[-1].path}.out"]))
        made._check()
        return made

    @cached_property
    def tokens(self) -> Bool[Tensor, "batch pos"]:
        """Which places hold a token rather than padding."""
        window, shape = self.end.inputs.windows[""], self.end.run.logits.shape[:2]
        made = torch.zeros(shape, dtype=torch.bool, device=self.end.run.logits.device)
        for row in range(shape[0]):
            made[row, list(window.tokens(row))] = True
        return made

    @cached_property
    def streams(self) -> list[Rows]:
        """The input of every block at every token, prompt by prompt."""
        return [self._by_token(self.end.run.kept[f"{b.path}.in"].value) for b in self.end.blocks]

    @cached_property
    def last(self) -> Rows:
        """The output of the last block."""
        return self._by_token(self.end.run.kept[f"{self.end.blocks[-1].path}.out"].value)

    @cached_property
    def logits(self) -> Read:
        """The model's logits, token by token."""
        return self._by_token(self.end.run.logits)

    def _by_token(self, value: Tensor) -> Tensor:
        return value[self.tokens] if self.end.inputs.padded else value.flatten(0, 1)

    @cached_property
    def tail(self) -> Tail | None:
        """The norm and the matrix, if the end is no more than those."""
        model = self.end.model
        head = model.hf.get_output_embeddings() if hasattr(model.hf, "get_output_embeddings") else None  # type: ignore[operator]
        place = model.anatomy.places.get("norm.out")
        if model.edits or not isinstance(head, torch.nn.Linear) or place is None or not place.modules:
            return None
        module = model.hf.get_submodule(place.modules[0])
        made = Tail(lambda x: normed(module, x), head.weight, head.bias)
        few = slice(0, 64)
        with torch.no_grad():
            said = F.linear(made.norm(self.last[few]), made.weight, made.bias)
        return made if _same(said, self.logits[few]) else None

    def read(self, stream: Rows) -> Read:
        """The logits of a stream at any number of tokens, with gradients where the stream asks for them."""
        with torch.set_grad_enabled(stream.requires_grad):
            if self.tail is not None:
                return F.linear(self.tail.norm(stream), self.tail.weight, self.tail.bias)
            return self.end.read(stream[None])[0]

    def _check(self) -> None:
        """The last block's own output, token by token, has to give the logits."""
        if self.tail is None:
            few = slice(0, 64)
            try:
                alike = _same(self.end.read(self.last[few][None])[0], self.logits[few])
            except (RuntimeError, ValueError, IndexError):
                alike = False
            if not alike:
                raise Unserved(
                    f"the end of {self.end.model.name} does not read tokens one by one, so no stream can be read out."
                )


def _same(one: Tensor, other: Tensor) -> bool:
    finite = other.isfinite()
    near = 1e-4 if other.dtype == torch.float32 else 2e-2
    scale = float(other[finite].abs().max()) if bool(finite.any()) else 1.0
    return one.shape == other.shape and bool(((one - other)[finite].abs() <= near * scale).all())
