"""Sums from a stream are those of the matrix."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.moments import Moments, concept, in_batches


def test_moments_of_a_stream_are_those_of_the_matrix_even_far_from_zero():
    chosen = torch.Generator().manual_seed(0)
    x, z = torch.randn(1000, 7, generator=chosen) + 1e4, torch.randn(1000, 2, generator=chosen)
    found = Moments.of(in_batches(x, z, 77))
    both = torch.cat([x.double(), z.double()], 1)
    cov = torch.cov(both.T, correction=0)
    assert (
        torch.allclose(found.xx, cov[:7, :7])
        and torch.allclose(found.xz, cov[:7, 7:])
        and torch.allclose(found.zz, cov[7:, 7:])
    )
    assert torch.allclose(found.mean_x, x.double().mean(0)) and found.n == 1000


def test_a_concept_is_a_column_a_class_or_the_numbers_themselves():
    assert concept([2, 0, 2]).tolist() == [[0, 1], [1, 0], [0, 1]]
    assert concept([0.5, 1.5]).tolist() == [[0.5], [1.5]]
    both = torch.randn(4, 3)
    assert concept(both) is not None and torch.equal(concept(both), both)


def test_what_has_no_moments_says_so():
    with pytest.raises(WrongPrompt, match="two rows at least"):
        Moments.of([])
    with pytest.raises(ShapeMismatch, match="3 rows and 2 labels"):
        Moments.of([(torch.randn(3, 2), torch.randn(2, 1))])
