"""Translator: what stands between a place and the model's end, when a lens reads the place.

The logit lens hands the stream over as it is. Other lenses first carry it into the basis that the end (the final norm and the
unembedding) reads: an affine map trained for each place (tuned lens), the mean Jacobian, or anything else of this form.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Translator(Protocol):
    """Any function of a place and its stream (..., d_model) that gives a stream of the same shape; None is the identity.

    >>> from patchclamp.lenses.translator import Translator
    >>> isinstance(lambda path, stream: 2 * stream, Translator)
    True
    """

    def __call__(self, path: str, stream: Tensor, /) -> Tensor:
        """The stream at `path`, e.g. `blocks.3.out`, in the basis of the stream before the final norm."""
        ...
