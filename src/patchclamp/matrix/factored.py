"""Factored: a product of two thin matrices that is never multiplied out unless asked.

The full QK or OV circuit of a head is a matrix of vocabulary by vocabulary, billions of numbers made from two factors no
wider than a head (Elhage et al. 2021). Norm, trace, eigenvalues, singular values, parts and the largest entries of the
product all follow from the factors. Rows stand on the left: row `r` of `left @ right` is what comes of input `r`.

Its rank is at most the width of the factors, so half of the singular vectors of a large circuit say nothing, and singular
vectors whose values lie close together are mixed at will.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.core.progress import progress

MOST = 1 << 27
"""How many numbers `full` makes without being asked twice: half a gigabyte."""
BLOCK = 1 << 24
"""How many numbers are held while rows are gone through."""

Index = int | slice | Sequence[int] | Tensor


@dataclass(frozen=True, eq=False)
class SVD:
    """`U * S @ V`: columns of U are what is read, rows of V what is written, strongest first."""

    U: Float[Tensor, "row rank"]
    S: Float[Tensor, " rank"]
    V: Float[Tensor, "rank column"]

    def effective_rank(self) -> float:
        """How many directions carry the product: e to the entropy of the singular values' shares (Roy & Vetterli 2007)."""
        return effective_rank(self.S)


@dataclass(frozen=True, eq=False)
class Factored:
    """`left @ right`, kept as it is.

    >>> from patchclamp.matrix.factored import Factored
    >>> product = Factored(torch.randn(5000, 8), torch.randn(8, 5000))
    >>> product, product.T.shape, product[3, [7, 9]].shape
    (Factored(5000 x 5000 through 8), (5000, 5000), (1, 2))
    >>> bool((product.eigenvalues().sum().real - product.trace()).abs() < 1e-2)
    True
    """

    left: Float[Tensor, "row inner"]
    right: Float[Tensor, "inner column"]

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            raise ShapeMismatch(f"factors {list(self.left.shape)} and {list(self.right.shape)} have no product.")

    def __repr__(self) -> str:
        return f"Factored({self.shape[0]} x {self.shape[1]} through {self.rank})"

    @property
    def shape(self) -> tuple[int, int]:
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """The width of the factors; the product's rank is that or less."""
        return self.left.shape[1]

    @property
    def T(self) -> Factored:
        """The transpose."""
        return Factored(self.right.T, self.left.T)

    def __matmul__(self, other: Factored | Tensor) -> Factored:
        """The product with another, through whichever of the two is thinner."""
        if isinstance(other, Tensor):
            return Factored(self.left, self.right @ other)
        middle = self.right @ other.left
        if self.rank <= other.rank:
            return Factored(self.left, middle @ other.right)
        return Factored(self.left @ middle, other.right)

    def after(self, matrix: Float[Tensor, "other row"]) -> Factored:
        """`matrix @ self`."""
        return Factored(matrix @ self.left, self.right)

    def __mul__(self, factor: float | Tensor) -> Factored:
        return Factored(self.left * factor, self.right)

    __rmul__ = __mul__

    def __add__(self, other: Factored) -> Factored:
        """The sum; its factors are side by side, so it is as wide as both."""
        if self.shape != other.shape:
            raise ShapeMismatch(f"{self} and {other} cannot be added.")
        return Factored(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 0))

    def __getitem__(self, index: tuple[Index, Index]) -> Factored:
        """Some rows and columns, still factored."""
        rows, columns = index
        return Factored(_taken(self.left, rows), _taken(self.right.T, columns).T)

    def double(self) -> Factored:
        """In float64, on the CPU: a trace may be a small sum of large numbers."""
        return Factored(self.left.cpu().double(), self.right.cpu().double())

    def full(self, anyway: bool = False) -> Float[Tensor, "row column"]:
        """Multiplied out; above half a gigabyte only `anyway`."""
        if self.shape[0] * self.shape[1] > MOST and not anyway:
            raise Unserved(
                f"{self} multiplied out takes {self.shape[0] * self.shape[1] * 4 / 2**30:.1f} GiB; take a part of it, "
                "product[rows, columns], or full(anyway=True)."
            )
        return self.left @ self.right

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "some column"]]]:
        """The product some rows at a time, each with the number of its first row."""
        step = max(BLOCK // self.shape[1], 1)
        starts = range(0, self.shape[0], step)
        for first in progress(starts, len(starts), "rows"):
            yield first, self.left[first : first + step] @ self.right

    def norm(self) -> Tensor:
        """The Frobenius norm."""
        one, other = self.left.T @ self.left, self.right @ self.right.T
        return (one * other).sum().clamp(min=0).sqrt()

    def trace(self) -> Tensor:
        """The sum of the diagonal, which is that of the eigenvalues."""
        self._square("trace")
        return (self.left * self.right.T).sum()

    def diagonal(self) -> Float[Tensor, " row"]:
        """The entries at which row and column are the same."""
        self._square("diagonal")
        return (self.left * self.right.T).sum(1)

    def eigenvalues(self) -> Complex[Tensor, " inner"]:
        """All eigenvalues that can differ from zero, largest magnitude first: those of the factors the other way round."""
        self._square("eigenvalues")
        small = self.right @ self.left if self.rank <= self.shape[0] else self.left @ self.right
        found = torch.linalg.eigvals(small)
        return found[found.abs().argsort(descending=True)]

    def svd(self) -> SVD:
        """Singular values and vectors by way of the factors (at most as many as the factors are wide)."""
        q_left, r_left = torch.linalg.qr(self.left)
        q_right, r_right = torch.linalg.qr(self.right.T)
        U, S, V = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
        return SVD(q_left @ U, S, V @ q_right.T)

    def singular_values(self) -> Float[Tensor, " rank"]:
        """Strongest first."""
        r_left, r_right = (torch.linalg.qr(f, mode="r")[1] for f in (self.left, self.right.T))
        return torch.linalg.svdvals(r_left @ r_right.T)

    def top(self, n: int = 10, by: str = "largest") -> list[tuple[int, int, float]]:
        """The strongest entries as (row, column, value); `by` is "largest", "smallest" or "magnitude"."""
        best, where = self.left.new_empty(0), torch.empty(0, dtype=torch.long, device=self.left.device)
        for first, block in self.blocks():
            flat = block.flatten()
            keys = _key(flat, by)
            if len(best) == n:  # nearly all entries are below the n-th best so far, and need no sorting
                found = (keys > _key(best, by).min()).nonzero()[:, 0]
            else:
                found = keys.topk(min(n, flat.numel())).indices
            values, places = torch.cat([best, flat[found]]), torch.cat([where, found + first * self.shape[1]])
            kept = _key(values, by).topk(min(n, values.numel())).indices
            best, where = values[kept], places[kept]
        return [(int(i) // self.shape[1], int(i) % self.shape[1], float(v)) for i, v in zip(where, best)]

    def argmax(self) -> Int[Tensor, " row"]:
        """For each row the column of its largest entry."""
        return torch.cat([block.argmax(1) for _, block in self.blocks()])

    def _square(self, what: str) -> None:
        if self.shape[0] != self.shape[1]:
            raise ShapeMismatch(f"{self} is not square, so it has no {what}.")


def effective_rank(values: Float[Tensor, " rank"]) -> float:
    """e to the entropy of singular values' shares: `n` for `n` equal ones, 1 for one alone.

    >>> from patchclamp.matrix.factored import effective_rank
    >>> round(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])), 3)
    3.0
    """
    shares = values / values.sum().clamp(min=1e-30)
    return float(torch.special.entr(shares).sum().exp())


def orthogonal(rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
    """Columns drawn evenly among all orthonormal sets of vectors: the turn of a random matrix."""
    q, r = torch.linalg.qr(torch.randn(rows, columns, generator=generator))
    return q * r.diagonal().sign()


def _key(values: Tensor, by: str) -> Tensor:
    keys = {"largest": lambda v: v, "smallest": lambda v: -v, "magnitude": lambda v: v.abs()}
    if by not in keys:
        raise ValueError(f'by is "largest", "smallest" or "magnitude", not "{by}".')
    return keys[by](values)


def _taken(matrix: Tensor, index: Index) -> Tensor:
    if isinstance(index, slice):
        return matrix[index]
    chosen = torch.as_tensor([index] if isinstance(index, int) else index, device=matrix.device)
    return matrix[chosen]
