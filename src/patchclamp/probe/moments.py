"""Moments: the sums that linear probes and erasers are made of, taken from any number of batches.

Means, the covariance of activations, and their covariance with a concept. They are added up in double precision around the
first batch's mean, so a million rows cost what one batch and one (d, d) matrix cost, and a stream gives what the matrix in
memory gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.fitted import coded


@dataclass(frozen=True, eq=False)
class Moments:
    """Of rows `x` (n, d) and what goes with them, `z` (n, k)."""

    n: int
    mean_x: Float[Tensor, " d"]
    mean_z: Float[Tensor, " k"]
    xx: Float[Tensor, "d d"]
    """Covariance (over n)."""
    xz: Float[Tensor, "d k"]
    zz: Float[Tensor, "k k"]

    @classmethod
    def of(cls, batches: Iterable[tuple[Tensor, Tensor]]) -> Moments:
        """Add up batches of (x, z).

        >>> x, z = torch.randn(50, 4), torch.randn(50, 2)
        >>> whole, parts = Moments.of([(x, z)]), Moments.of(zip(x.split(7), z.split(7)))
        >>> torch.allclose(whole.xx, parts.xx), parts.n
        (True, 50)
        """
        n, d, about = 0, 0, None
        total = square = torch.zeros(0)
        for x, z in batches:
            if len(x) != len(z):
                raise ShapeMismatch(f"a batch has {len(x)} rows and {len(z)} labels.")
            both = torch.cat([x.double(), z.double().reshape(len(x), -1)], 1)
            if about is None:
                d, about = x.shape[1], both.mean(0)
                total, square = torch.zeros_like(about), both.new_zeros(len(about), len(about))
            both = both - about
            n, total = n + len(both), total + both.sum(0)
            square = square.addmm_(both.T, both)
        if about is None or n < 2:
            raise WrongPrompt("moments need two rows at least.")
        mean = total / n
        spread = square / n - torch.outer(mean, mean)
        mean = mean + about
        return cls(n, mean[:d], mean[d:], spread[:d, :d], spread[:d, d:], spread[d:, d:])


def concept(z: Sequence | Tensor) -> Float[Tensor, "row k"]:
    """Labels as numbers: one column a class, or the numbers themselves, or a matrix as it is.

    >>> concept(["a", "b", "a"])
    tensor([[1., 0.],
            [0., 1.],
            [1., 0.]])
    """
    if isinstance(z, Tensor) and z.ndim == 2:
        return z.float()
    y, classes = coded(z)
    return torch.nn.functional.one_hot(y, len(classes)).float() if classes else y[:, None]


def in_batches(x: Tensor, z: Tensor, rows: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
    """A matrix in memory, as a stream."""
    return zip(x.split(rows), z.split(rows))
