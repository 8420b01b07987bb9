"""Shapes that were planted are found, and components are dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.geometry import ica, kmeans, mle, nmf, pca, scatter, two_nn


@pytest.fixture
def chosen():
    return torch.Generator().manual_seed(0)


def test_planted_clusters_are_found(chosen):
    truth = torch.randint(6, (600,), generator=chosen)
    x = torch.randn(600, 64, generator=chosen) + 2 * torch.randn(6, 64, generator=chosen)[truth]
    found = kmeans(x, 6)
    assert found.agreement(truth) > 0.95 and torch.equal(found(x), found.of)
    assert abs(found.agreement(truth[torch.randperm(600, generator=chosen)])) < 0.05


def test_components_are_those_of_scikit_learn(chosen):
    from sklearn.decomposition import PCA

    x = torch.randn(200, 10, generator=chosen) @ torch.randn(10, 10, generator=chosen)
    own, theirs = pca(x, 3), PCA(3).fit(x.numpy())
    assert np.allclose(np.abs(own.readers.numpy() @ theirs.components_.T), np.eye(3), atol=1e-3)
    assert torch.allclose(own.share, torch.tensor(theirs.explained_variance_ratio_), atol=1e-5)
    assert torch.allclose(pca(x, 10).decode(pca(x, 10).encode(x)), x, atol=1e-3)


def test_independent_sources_are_unmixed(chosen):
    sources = torch.rand(2000, 3, generator=chosen) - 0.5
    x = sources @ torch.randn(3, 8, generator=chosen)
    found = ica(x, 3)
    match = torch.corrcoef(torch.cat([found.encode(x), sources], 1).T)[:3, 3:].abs()
    assert (match.amax(1) > 0.99).all() and torch.allclose(found.decode(found.encode(x)), x, atol=1e-2)
    plain = torch.corrcoef(torch.cat([pca(x, 3).encode(x), sources], 1).T)[:3, 3:].abs()
    assert plain.amax(1).min() < 0.95  # directions of variance are not the sources


def test_parts_that_only_add_up_are_found(chosen):
    parts = torch.rand(3, 20, generator=chosen) * (torch.rand(3, 20, generator=chosen) > 0.5)
    x = torch.rand(300, 3, generator=chosen) @ parts
    found = nmf(x, 3)
    assert (torch.cosine_similarity(found.parts[:, None], parts, dim=-1).amax(0) > 0.99).all()
    assert (found.decode(found.encode(x)) - x).abs().max() < 0.05 and found.encode(x).min() >= 0


@pytest.mark.parametrize("dimension", [2, 5])
def test_a_planted_dimension_is_found_in_a_larger_space(chosen, dimension):
    x = torch.randn(1500, dimension, generator=chosen) @ torch.randn(dimension, 40, generator=chosen)
    assert two_nn(x) == pytest.approx(dimension, rel=0.1) and mle(x) == pytest.approx(dimension, rel=0.1)
    assert two_nn(torch.cat([x, x])) == pytest.approx(two_nn(x))


def test_components_are_dictionaries_that_can_be_spliced(town, ids):
    from patchclamp.model.gather import every

    found = pca(every(town, "blocks.1.out", ["Mary and John went to the store", "Anna saw a boat at the park"]).value, 4)
    opened = town.edit(pc.splice("blocks.1.out", found))
    run = opened.run("Mary went home", keep="blocks.1.out.latents")
    assert run["blocks.1.out.latents"].shape[-1] == 4


def test_a_scatter_draws_itself():
    picture = scatter(torch.randn(20, 5), ["noun"] * 10 + ["verb"] * 10, title="nouns and verbs")
    assert "of the variance" in picture.x_axis and "<svg" in picture.html()


def test_what_cannot_be_is_refused():
    with pytest.raises(WrongPrompt, match="take pca or ica"):
        nmf(-torch.rand(5, 4), 2)
    with pytest.raises(WrongPrompt, match="9 components of 5 rows"):
        pca(torch.rand(5, 4), 9)
    with pytest.raises(ShapeMismatch, match="flatten it first"):
        pca(torch.rand(2, 5, 4), 1)
    with pytest.raises(WrongPrompt, match="too few"):
        two_nn(torch.ones(50, 3))
    with pytest.raises(WrongPrompt, match="7 clusters of 5 rows"):
        kmeans(torch.rand(5, 4), 7)
