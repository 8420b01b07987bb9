"""What shape do activations have, asked without labels: components, clusters, dimension.

    pca, ica     directions: of most variance; of least Gaussian, i.e. most independent, coordinates (FastICA)
    nmf          parts that only add up, for activations that are not negative (neurons after a ReLU)
    kmeans       clusters; `Clusters.agreement` with labels is the adjusted Rand index: 0 for chance, 1 for the same
    two_nn, mle  in how many directions the points vary nearby, whatever the space they lie in

Components are dictionaries, with `encode` and `decode`: they can be spliced into a model (`pc.splice`) and their coordinates
read and edited as places. scikit-learn finds them; the dimensions are a line of arithmetic each.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.picture import Scatter


@dataclass(frozen=True, eq=False)
class Components:
    """`encode` gives coordinates, `decode` goes back; what the components do not span is lost on the way.

    >>> from patchclamp.probe.geometry import pca
    >>> x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 3, 1, 1, 1, 1])
    >>> found = pca(x, 2)
    >>> found.encode(x).shape, bool(found.share[0] > 0.8), isinstance(found, pc.Dictionary)
    (torch.Size([100, 2]), True, True)
    """

    readers: Float[Tensor, "component d"]
    writers: Float[Tensor, "component d"]
    centre: Float[Tensor, " d"]
    share: Float[Tensor, " component"]
    """The share of the variance of the rows that each accounts for."""

    def encode(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows component"]:
        """Coordinates."""
        return (x - self.centre.to(x)) @ self.readers.to(x).T

    def decode(self, latents: Float[Tensor, "*rows component"]) -> Float[Tensor, "*rows d"]:
        """Activations with these coordinates."""
        return latents @ self.writers.to(latents) + self.centre.to(latents)


@dataclass(frozen=True, eq=False)
class Parts:
    """Non-negative parts; `encode` finds the amounts that add up to the activation best."""

    parts: Float[Tensor, "component d"]

    def encode(self, x: Float[Tensor, "*rows d"], steps: int = 500) -> Float[Tensor, "*rows component"]:
        """Amounts, by multiplicative updates (Lee & Seung 2001), which keep what is not negative so."""
        parts, own = self.parts.to(x), x.clamp(min=0)
        inner, square = own @ parts.T, parts @ parts.T
        amounts = inner.clamp(min=1e-6)
        for _ in range(steps):
            amounts = amounts * inner / (amounts @ square).clamp(min=1e-12)
        return amounts

    def decode(self, latents: Float[Tensor, "*rows component"]) -> Float[Tensor, "*rows d"]:
        """Activations made of these amounts."""
        return latents @ self.parts.to(latents)


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which rows go together."""

    centres: Float[Tensor, "cluster d"]
    of: Int[Tensor, " row"]

    def agreement(self, labels: Sequence | Tensor) -> float:
        """The adjusted Rand index against labels: pairs put together or apart alike, less what chance gives."""
        from sklearn.metrics import adjusted_rand_score

        labels = labels.tolist() if isinstance(labels, Tensor) else list(labels)
        return float(adjusted_rand_score([str(v) for v in labels], self.of.numpy()))

    def __call__(self, x: Float[Tensor, "row d"]) -> Int[Tensor, " row"]:
        """The cluster that each row is nearest to."""
        return torch.cdist(x.float(), self.centres).argmin(1)


def pca(x: Float[Tensor, "row d"], count: int) -> Components:
    """The `count` directions of most variance, orthonormal, each with its largest coordinate positive."""
    wide = _matrix(x, count).double()
    centre = wide.mean(0)
    _, s, v = torch.linalg.svd(wide - centre, full_matrices=False)
    v = v[:count]
    v = v * torch.sign(v.gather(1, v.abs().argmax(1, keepdim=True)))
    share = s.square()[:count] / s.square().sum().clamp(min=1e-300)
    return Components(v.float(), v.float(), centre.float(), share.float())


def ica(x: Float[Tensor, "row d"], count: int, seed: int = 0) -> Components:
    """`count` coordinates as independent as can be, of variance 1. Their order means nothing; they are sorted by share."""
    from sklearn.decomposition import FastICA

    x = _matrix(x, count)
    model = FastICA(count, random_state=seed, whiten="unit-variance", max_iter=1000, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x.double().numpy())
    readers, writers = torch.as_tensor(model.components_).float(), torch.as_tensor(model.mixing_).float().T
    share = writers.square().sum(1) / x.var(0, correction=0).sum().clamp(min=1e-30)
    order = share.argsort(descending=True)
    return Components(readers[order], writers[order], torch.as_tensor(model.mean_).float(), share[order])


def nmf(x: Float[Tensor, "row d"], count: int, seed: int = 0) -> Parts:
    """`count` parts that only add up; the activations must not be negative."""
    from sklearn.decomposition import NMF

    x = _matrix(x, count)
    if bool((x < 0).any()):
        raise WrongPrompt("some activations are negative, and parts that only add up cannot make them; take pca or ica.")
    model = NMF(count, random_state=seed, init="nndsvda", max_iter=500)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x.double().numpy())
    return Parts(torch.as_tensor(model.components_).float())


def kmeans(x: Float[Tensor, "row d"], count: int, seed: int = 0, starts: int = 10) -> Clusters:
    """`count` clusters, the best of several starts.

    >>> from patchclamp.probe.geometry import kmeans
    >>> x = torch.cat([torch.randn(30, 4) + 20 * n for n in range(3)])
    >>> kmeans(x, 3).agreement([n // 30 for n in range(90)])
    1.0
    """
    from sklearn.cluster import KMeans

    x = _matrix(x, 1)
    if not 1 <= count <= len(x):
        raise WrongPrompt(f"{count} clusters of {len(x)} rows; there are 1 to {len(x)}.")
    model = KMeans(count, n_init=starts, random_state=seed).fit(x.numpy())  # type: ignore[arg-type]
    return Clusters(torch.as_tensor(model.cluster_centers_), torch.as_tensor(model.labels_).long())


def two_nn(x: Float[Tensor, "row d"], trim: float = 0.1) -> float:
    """Intrinsic dimension from the ratio of the distances to the second and the first neighbour (Facco et al. 2017).

    The ratios follow a law with the dimension as its only parameter, fitted as a line through zero to all but the largest, a
    share `trim` of them. Equal rows count once. It says how many directions there are at the distance of neighbours, noise
    included.
    """
    near = _neighbours(x, 2)
    ratios = (near[:, 1] / near[:, 0]).sort().values
    n = len(ratios)
    kept = max(int(n * (1 - trim)), 2)
    across = ratios[:kept].log()
    up = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64) / n) if kept < n else None
    if up is None:
        raise WrongPrompt("the fit leaves out the largest ratio at least; take more rows or trim more.")
    return float((across @ up) / (across @ across).clamp(min=1e-300))


def mle(x: Float[Tensor, "row d"], neighbours: int = 10) -> float:
    """Intrinsic dimension by maximum likelihood (Levina & Bickel 2004), pooled over points (MacKay & Ghahramani 2005)."""
    near = _neighbours(x, neighbours).log()
    inverse = (near[:, -1:] - near[:, :-1]).sum(1) / (neighbours - 1)
    return float(1 / inverse.mean())


def scatter(x: Float[Tensor, "row d"], groups: Sequence[str], labels: Sequence[str] = (), title: str = "") -> Scatter:
    """The rows along their two directions of most variance, in groups.

    >>> from patchclamp.probe.geometry import scatter
    >>> scatter(torch.randn(4, 5), ["a", "b", "a", "b"]).groups
    ('a', 'b', 'a', 'b')
    """
    found = pca(x, 2)
    at = found.encode(x.float())
    axes = [f"component {n + 1} ({share:.0%} of the variance)" for n, share in enumerate(found.share.tolist())]
    return Scatter(at[:, 0].numpy(), at[:, 1].numpy(), tuple(labels), tuple(map(str, groups)), *axes, title=title)


def _neighbours(x: Tensor, count: int) -> Float[Tensor, "row count"]:
    """Distances to the nearest other rows, nearest first; rows that are equal are one."""
    from sklearn.neighbors import NearestNeighbors

    own = torch.unique(_matrix(x, 1).double(), dim=0)
    if len(own) < count + 3:
        raise WrongPrompt(f"{len(own)} different rows are too few for {count} neighbours each.")
    found, _ = NearestNeighbors(n_neighbors=count + 1).fit(own.numpy()).kneighbors(own.numpy())
    return torch.as_tensor(found[:, 1:]).clamp(min=math.ulp(1.0))


def _matrix(x: Tensor, count: int) -> Tensor:
    x = x.detach().float().cpu()
    if x.ndim != 2:
        raise ShapeMismatch(f"a matrix (row, d) is asked for, and has {x.ndim} dimensions here; flatten it first.")
    if not 1 <= count <= min(x.shape):
        raise WrongPrompt(f"{count} components of {x.shape[0]} rows of {x.shape[1]} numbers; there are 1 to {min(x.shape)}.")
    return x
