"""Are two places, or two models, alike? Measures that no rotation changes, between activations of the same prompts.

    cka     centred kernel alignment with a linear kernel (Kornblith et al. 2019); unbiased, so that few rows of many numbers
            do not look alike by themselves (Song et al. 2012 for the estimate of HSIC)
    rsa     do the same pairs of prompts lie close together? (Kriegeskorte et al. 2008, "representational similarity analysis")
    cca     the mean canonical correlation: how well each is a linear function of the other, all directions counting alike
    svcca   the same for the directions that hold most of the variance (Raghu et al. 2017)

None of them says that two models compute alike, only that they tell the same prompts apart. `cca` of fewer rows than numbers is
1 whatever they are, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.agreement import rank_correlation
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.gather import gather
from patchclamp.model.model import Model

Measure = Callable[[Tensor, Tensor], float]


def cka(x: Float[Tensor, "row d"], y: Float[Tensor, "row e"]) -> float:
    """Linear CKA, unbiased: 1 for the same up to rotation and scale, about 0 for nothing in common, sometimes a little below.

    >>> x = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    >>> round(cka(x, 3 * x @ torch.linalg.qr(x.T @ x).Q), 4)
    1.0
    """
    _together(x, y)
    if len(x) < 4:
        raise WrongPrompt(f"the unbiased estimate needs four rows, not {len(x)}.")
    a, b = (_kernel(v) for v in (x, y))
    return float(_hsic(a, b) / (_hsic(a, a) * _hsic(b, b)).clamp(min=1e-300).sqrt())


def biased_cka(x: Float[Tensor, "row d"], y: Float[Tensor, "row e"]) -> float:
    """Linear CKA as first written, to compare with papers. With fewer rows than numbers it is near 1 for anything."""
    _together(x, y)
    a, b = (v.double() - v.double().mean(0) for v in (x, y))
    across, own, other = (a.T @ b).square().sum(), (a.T @ a).norm(), (b.T @ b).norm()
    return float(across / (own * other).clamp(min=1e-300))


def rsa(x: Float[Tensor, "row d"], y: Float[Tensor, "row e"], distance: str = "correlation") -> float:
    """The Spearman correlation of the distances between all pairs of rows; `distance` is any of scipy's `pdist`.

    >>> x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    >>> round(rsa(x, 2 * x + 1, "euclidean"), 4)
    1.0
    """
    from scipy.spatial.distance import pdist

    _together(x, y)
    one, other = (pdist(v.double().numpy(), distance) for v in (x, y))  # type: ignore[call-overload]
    return rank_correlation(torch.from_numpy(one), torch.from_numpy(other))


def correlations(x: Float[Tensor, "row d"], y: Float[Tensor, "row e"]) -> Float[Tensor, " n"]:
    """The canonical correlations, largest first: of the best pair of directions, of the best pair beside it, and so on."""
    _together(x, y)
    bases = [_range(v.double() - v.double().mean(0)) for v in (x, y)]
    if sum(b.shape[1] for b in bases) >= len(x):
        raise WrongPrompt(
            f"{len(x)} rows of {x.shape[1]} and {y.shape[1]} numbers are alike by counting; take more rows, or svcca."
        )
    return torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1).float()


def cca(x: Float[Tensor, "row d"], y: Float[Tensor, "row e"]) -> float:
    """The mean canonical correlation. Chance gives about the square root of (numbers / rows); compare with rows shuffled."""
    return float(correlations(x, y).mean())


def svcca(x: Float[Tensor, "row d"], y: Float[Tensor, "row e"], keep: float = 0.99) -> float:
    """CCA of the leading principal components of each, which hold a share `keep` of the variance."""
    return cca(*(_leading(v, keep) for v in (x, y)))


def alike(model: Model, other: Model, site: str | Site, prompts: Sequence, measure: Measure = cka) -> Grid:
    """Each layer of one model against each of another, or of the same: Grid(layer, other layer).

    >>> grid = alike(model, model, "blocks.*.out", ["Mary", "John", "a drink", "the store", "Anna went", "at home"])
    >>> grid.axes, float(grid.values[2, 2].round(decimals=3))
    (('layer', 'other layer'), 1.0)
    """
    site = Site.parse(site)
    if len(site.bare().stars) != 1:
        raise WrongPrompt(f"{site}: layers are compared with layers; write a pattern such as blocks.*.out.")
    one = gather(model, site, prompts).flatten(2)
    two = one if other == model else gather(other, site, prompts).flatten(2)
    values = torch.tensor([[measure(a, b) for b in two] for a in progress(one, total=len(one), label="comparing layers")])
    labels = {
        axis: [str(site.star_values(p)[0]) for p in m.places(site)] for axis, m in (("layer", model), ("other layer", other))
    }
    note = f"{len(prompts)} prompts; {measure.__name__}. 1 is the same up to what the measure does not see."
    return Grid(
        values,
        ("layer", "other layer"),
        labels,
        measure.__name__,
        f"{model.name} and {other.name} at {site}",
        note,
        "sequential",
    )


def _together(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ShapeMismatch(
            f"activations of the same rows are compared, (row, d) each; got {list(x.shape)} and {list(y.shape)}."
        )


def _kernel(x: Tensor) -> Float[Tensor, "row row"]:
    centred = x.double() - x.double().mean(0)
    kernel = centred @ centred.T
    return kernel - torch.diag(kernel.diagonal())


def _hsic(a: Tensor, b: Tensor) -> Tensor:
    """Song et al. 2012, eq. 5; the kernels' diagonals are zero."""
    n = len(a)
    return ((a * b).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * a.sum(0) @ b.sum(0) / (n - 2)) / (n * (n - 3))


def _range(x: Tensor) -> Float[Tensor, "row r"]:
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return u[:, s > 1e-9 * s.max().clamp(min=1e-300)]


def _leading(x: Tensor, keep: float) -> Tensor:
    u, s, _ = torch.linalg.svd(x.double() - x.double().mean(0), full_matrices=False)
    share = s.square().cumsum(0) / s.square().sum().clamp(min=1e-300)
    count = int((share < keep).sum()) + 1
    return u[:, :count] * s[:count]
