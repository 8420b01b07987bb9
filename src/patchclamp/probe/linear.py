"""Fits of probes, the simplest first: what one matrix can read, and one that reads more.

    means      the class whose mean is nearest; for two classes, the difference of means
    lda        the same, in units of the spread within classes (Fisher 1936), the covariance shrunk
    linear     least squares;  `ridge` with a penalty. Both also predict numbers
    logistic   the best calibrated of them, and what "a linear probe" means unless something else is said
    sparse     logistic on a few coordinates only (Gurnee et al. 2023, "Finding neurons in a haystack")
    mlp        one hidden layer, for comparison: what is there, but in no single direction

All are functions of (activations, labels), standardise by their own rows, and (all but `mlp`) weigh classes alike. scikit-learn
does the fitting where it has one; it is asked for only when a probe is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.probe.fitted import Probe, Rows

Fit = Callable[[Tensor, Sequence], Probe]
"""What makes a probe of activations and labels. Options are given with functools.partial."""


def means(x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Probe:
    """The class whose mean is nearest, in the place's own coordinates: nothing is standardised, nothing is tuned."""
    rows = _classes(x, y, "means")
    centres = torch.stack([(rows.x * rows.scale)[rows.y == c].mean(0) for c in range(len(rows.classes))])
    return rows.probe((centres * rows.scale, -centres.square().sum(1) / 2), method="means")


def lda(x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Probe:
    """Linear discriminant analysis, with the covariance shrunk as far as its own sampling error asks (Ledoit & Wolf 2004)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rows = _classes(x, y, "lda")
    k = len(rows.classes)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[1 / k] * k).fit(rows.x.numpy(), rows.y.numpy())
    return rows.probe(_both(model.coef_, model.intercept_), method="lda")


def linear(x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Probe:
    """Least squares. With more coordinates than rows it fits anything; take `ridge` then."""
    return ridge(x, y, penalty=0.0)


def ridge(x: Float[Tensor, "row d"], y: Sequence | Tensor, penalty: float = 1.0) -> Probe:
    """Least squares with `penalty` times the squared weights added, for numbers or (as 0 and 1) for classes.

    The normal equations are solved in double precision, so that the same answer comes from a stream (`stream.ridge`).
    """
    rows = Rows.of(x, y)
    target = torch.nn.functional.one_hot(rows.y).double() if rows.classes else rows.y[:, None].double()
    weight = torch.ones(len(rows.y), dtype=torch.float64)
    if rows.classes:
        weight = (1 / (torch.bincount(rows.y) * len(rows.classes)).double())[rows.y] * len(rows.y)
    inner = torch.cat([rows.x.double(), torch.ones(len(rows.x), 1, dtype=torch.float64)], 1)
    square = inner.T @ (inner * weight[:, None])
    square[range(inner.shape[1] - 1), range(inner.shape[1] - 1)] += penalty
    found = torch.linalg.lstsq(square, inner.T @ (target * weight[:, None]), driver="gelsd").solution.T
    return rows.probe((found[:, :-1], found[:, -1]), method="ridge", penalty=penalty)


def logistic(x: Float[Tensor, "row d"], y: Sequence | Tensor, penalty: float = 1.0, tolerance: float = 1e-4) -> Probe:
    """Multinomial logistic regression with half of `penalty` times the squared weights added to the summed loss.

    The penalty is scikit-learn's 1/C. Classes weigh the same however many rows they have.
    """
    from sklearn.linear_model import LogisticRegression

    rows = _classes(x, y, "logistic")
    model = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=2000, tol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a probe that has not quite converged is as honest as any: it is scored on other rows
        model.fit(rows.x.numpy(), rows.y.numpy())
    return rows.probe(_both(model.coef_, model.intercept_), method="logistic", penalty=penalty)


def sparse(x: Float[Tensor, "row d"], y: Sequence | Tensor, k: int = 5, penalty: float = 1.0) -> Probe:
    """A logistic probe that reads `k` coordinates only. Which, is found by halving: the weakest half is dropped, and refitted.

    It begins with the 8 k coordinates whose class means lie furthest apart, in units of their spread. A choice of neurons is
    part of the fit, so it has to be made on the training rows alone: hand this function to `probe`, not its result.
    """
    rows = _classes(x, y, "sparse")
    if not 1 <= k <= x.shape[1]:
        raise WrongPrompt(f"k is 1 to {x.shape[1]}, the coordinates there are, not {k}.")
    centres = torch.stack([rows.x[rows.y == c].mean(0) for c in range(len(rows.classes))])
    chosen = centres.var(0).topk(min(8 * k, x.shape[1])).indices
    while True:
        found = logistic(x[:, chosen], y, penalty)
        if len(chosen) == k:
            break
        size = found.layers[0][0].abs().sum(0)
        chosen = chosen[size.topk(max(k, len(chosen) // 2)).indices]
    weight = torch.zeros(len(rows.classes), x.shape[1])
    weight[:, chosen] = found.layers[0][0]
    return rows.probe((weight, found.layers[0][1]), method="sparse", k=k, penalty=penalty)


def mlp(x: Float[Tensor, "row d"], y: Sequence | Tensor, hidden: int = 64, penalty: float = 1e-2, seed: int = 0) -> Probe:
    """One hidden layer. It reads more than a linear probe, and memorises more: look at its selectivity, not at its score."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    rows = Rows.of(x, y)
    kind = MLPClassifier if rows.classes else MLPRegressor
    batch: Any = min(200, len(rows.x))
    model = kind(hidden_layer_sizes=(hidden,), alpha=penalty, random_state=seed, max_iter=200, batch_size=batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows.x.numpy(), rows.y.numpy())
    (first, last), (one, two) = model.coefs_, model.intercepts_
    inner = (torch.as_tensor(first.T), torch.as_tensor(one))
    outer = _both(last.T, two) if rows.classes else (last.T, two)
    return rows.probe(inner, outer, method="mlp", hidden=hidden, penalty=penalty, seed=seed)


def _classes(x: Tensor, y: Sequence | Tensor, what: str) -> Rows:
    rows = Rows.of(x, y)
    if not rows.classes:
        raise Unserved(f"{what} tells classes apart, and these labels are numbers; take ridge, linear or mlp.")
    return rows


def _both(weight, bias) -> tuple[Tensor, Tensor]:
    """One row for each class: scikit-learn has a single one for two classes."""
    weight, bias = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()
    if len(weight) > 1:
        return weight, bias
    return torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
