"""Logistic regression: the gradient vanishes, scikit-learn agrees, and separated classes do not run away."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchclamp.probe.newton import logistic


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, 12, generator=draw)
    y = (x[:, 0] + 0.5 * torch.randn(300, generator=draw) > 0.3).float()
    return x, y


@pytest.mark.parametrize("intercept", [True, False])
def test_it_stands_where_the_loss_is_flat(data, intercept):
    x, y = data
    weight, bias = logistic(x, y, 2.0, intercept)
    p = (x @ weight + bias).sigmoid()
    assert torch.allclose(x.T @ (p - y) + 2.0 * weight, torch.zeros(12), atol=1e-3)
    assert bias == 0 if not intercept else abs(float((p - y).sum())) < 1e-3


def test_scikit_learn_agrees(data):
    linear = pytest.importorskip("sklearn.linear_model")
    x, y = data
    theirs = linear.LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(x.numpy(), y.numpy())
    weight, bias = logistic(x, y, 2.0)
    assert np.allclose(weight, theirs.coef_[0], atol=1e-3)
    assert bias == pytest.approx(theirs.intercept_[0], abs=1e-3)


def test_targets_may_be_shares():
    """Four samples of which three are right count as three rights and one wrong."""
    draw = torch.Generator().manual_seed(1)
    x, right = torch.randn(50, 3, generator=draw), torch.randint(5, (50,), generator=draw)
    share, _ = logistic(x, right / 4, 1.0)
    many, _ = logistic(x.repeat(4, 1), torch.cat([(right > i).float() for i in range(4)]), 4.0)
    assert torch.allclose(share, many, atol=1e-4)


def test_separated_classes_end_where_the_ridge_holds_them():
    x = torch.tensor([[-3.0], [-2.0], [2.0], [3.0]])
    weight, bias = logistic(x, torch.tensor([0.0, 0.0, 1.0, 1.0]), 0.01)
    assert 1 < float(weight) < 10
    assert abs(bias) < 1e-3


@pytest.mark.parametrize("intercept", [True, False])
def test_among_few_rows_the_weight_is_that_of_the_whole_width(intercept):
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(40, 100, generator=draw)
    y = (x[:, 0] > 0).float()
    few, bias = logistic(x, y, 0.5, intercept)
    p = (x @ few + bias).sigmoid()
    assert torch.allclose(x.T @ (p - y) + 0.5 * few, torch.zeros(100), atol=1e-4)
    theirs = pytest.importorskip("sklearn.linear_model").LogisticRegression(
        C=2.0, tol=1e-10, solver="newton-cholesky", fit_intercept=intercept
    )
    theirs = torch.from_numpy(theirs.fit(x.double().numpy(), y.numpy()).coef_[0]).float()
    assert float((few - theirs).norm() / theirs.norm()) < 1e-4
