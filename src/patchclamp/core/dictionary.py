"""Dictionary: anything that encodes activations into latents and decodes them back.

A sparse autoencoder, a transcoder, a PCA. The noun is a protocol: two methods, and the number of latents where it is known.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Dictionary(Protocol):
    """`decode(encode(x))` approximates `x` (or, for a transcoder, what a block computes from it).

    `encode` takes (..., d_model) and gives (..., latent); `decode` goes back.

    >>> class Halves:
    ...     def encode(self, x):
    ...         return x / 2
    ...     def decode(self, latents):
    ...         return latents * 2
    >>> isinstance(Halves(), pc.Dictionary)
    True
    """

    def encode(self, x: Tensor, /) -> Tensor:
        """Activations to latents."""
        ...

    def decode(self, latents: Tensor, /) -> Tensor:
        """Latents to activations."""
        ...
