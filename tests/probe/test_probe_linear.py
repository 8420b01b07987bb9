"""Each fit finds what was planted for it, and agrees with its closed form."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.probe.linear import lda, linear, logistic, means, mlp, ridge, sparse

FITS = [means, lda, linear, ridge, logistic, partial(sparse, k=3), mlp]


@pytest.fixture
def three():
    """Three classes around three means, far apart, one of them rare."""
    chosen = torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 100 + [1] * 100 + [2] * 20)
    return torch.randn(220, 8, generator=chosen) + 4 * torch.randn(3, 8, generator=chosen)[y], y


@pytest.mark.parametrize("fit", FITS, ids=lambda f: getattr(f, "__name__", "sparse"))
def test_every_fit_tells_three_planted_classes_apart(three, fit):
    x, y = three
    probe = fit(x, y)
    assert probe.classes == ("0", "1", "2")
    assert sum(int(a) == b for a, b in zip(probe.predict(x), y.tolist())) > 0.98 * len(y)


def test_means_is_the_nearest_mean(three):
    x, y = three
    centres = torch.stack([x[y == c].mean(0) for c in range(3)])
    assert [int(c) for c in means(x, y).predict(x)] == torch.cdist(x, centres).argmin(1).tolist()


def test_the_direction_of_means_is_their_difference(three):
    x, y = three
    x, y = x[:200], y[:200]
    assert torch.allclose(means(x, y).direction, x[y == 1].mean(0) - x[y == 0].mean(0), atol=1e-4)


def test_least_squares_finds_a_planted_function():
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    truth = torch.tensor([1.0, -2, 0, 0, 3])
    probe = linear(x, (x @ truth + 4).tolist())
    assert torch.allclose(probe.direction, truth, atol=1e-4) and torch.allclose(probe(x)[:, 0], x @ truth + 4, atol=1e-4)


def test_ridge_is_the_ridge_of_scikit_learn():
    from sklearn.linear_model import Ridge

    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = x[:, 0] * 2 + 1
    probe = ridge(x, y.tolist(), penalty=10.0)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    assert torch.allclose(probe(x)[:, 0], torch.as_tensor(Ridge(10.0).fit(z, y.numpy()).predict(z)).float(), atol=1e-4)


def test_a_sparse_probe_reads_the_planted_neurons_and_no_others():
    x = torch.randn(500, 100, generator=torch.Generator().manual_seed(0))
    y = (x[:, 17] + x[:, 42] - x[:, 80] > 0).long()
    probe = sparse(x, y, k=3)
    assert probe.used.tolist() == [17, 42, 80]


def test_an_mlp_reads_what_no_linear_probe_does():
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long().tolist()  # exclusive or

    def right(probe):
        return sum(int(a) == b for a, b in zip(probe.predict(x), y)) / len(y)

    assert right(mlp(x, y)) > 0.9 and right(logistic(x, y)) < 0.65


def test_an_mlp_predicts_what_no_line_does():
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    y = x[:, 0].square()
    left = (mlp(x, y.tolist())(x)[:, 0] - y).square().mean()
    assert left < 0.1 * y.var() < (ridge(x, y.tolist())(x)[:, 0] - y).square().mean()


def test_a_rare_class_counts_as_much_as_a_common_one():
    """Two classes that overlap, one a tenth of the other: the boundary lies between the means, not at the rare one's."""
    chosen = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(1000, 1, generator=chosen) - 1, torch.randn(100, 1, generator=chosen) + 1])
    y = [0] * 1000 + [1] * 100
    for fit in (means, lda, ridge, logistic):
        zero = torch.linspace(-1.5, 1.5, 301)[:, None]
        boundary = float(zero[[p == "1" for p in fit(x, y).predict(zero)].index(True)])
        assert abs(boundary) < 0.25, fit.__name__


def test_what_a_fit_cannot_do_it_says(three):
    with pytest.raises(Unserved, match="lda tells classes apart, and these labels are numbers"):
        lda(three[0], three[0][:, 0].tolist())
    with pytest.raises(WrongPrompt, match="k is 1 to 8"):
        sparse(*three, k=9)
