"""A product kept as factors is the product: everything it says of itself is what the dense matrix says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.matrix.factored import MOST, Factored, effective_rank, orthogonal

sizes = st.integers(1, 9)


def drawn(rows, inner, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Factored(*(torch.randn(shape, generator=generator).double() for shape in ((rows, inner), (inner, columns))))


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, sizes, sizes, st.integers(0, 100))
def test_algebra_is_that_of_the_dense_matrices(rows, one, middle, other, columns, seed):
    a, b = drawn(rows, one, middle, seed), drawn(middle, other, columns, seed + 1)
    A, B = a.full(), b.full()
    assert torch.allclose((a @ b).full(), A @ B) and (a @ b).rank <= max(min(one, other), 1)
    assert torch.allclose(a.T.full(), A.T) and torch.allclose((2 * a).full(), 2 * A)
    assert torch.allclose((a + a * 3).full(), 4 * A)
    assert torch.allclose((a @ B).full(), A @ B) and torch.allclose(b.after(A).full(), A @ B)
    assert torch.allclose(a.norm(), A.norm())
    assert torch.allclose(a[[0, -1], :2].full(), A[[0, -1], :2]) and torch.allclose(a[0, slice(None)].full(), A[:1])


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, st.integers(0, 100))
def test_singular_values_and_vectors_are_those_of_the_dense_matrix(rows, inner, columns, seed):
    product = drawn(rows, inner, columns, seed)
    svd, dense = product.svd(), torch.linalg.svdvals(product.full())
    n = min(len(svd.S), len(dense))
    assert torch.allclose(svd.S[:n], dense[:n], atol=1e-9) and torch.allclose(product.singular_values(), svd.S, atol=1e-9)
    assert (dense[n:] < 1e-9).all()
    assert torch.allclose(svd.U * svd.S @ svd.V, product.full(), atol=1e-9)
    assert torch.allclose(svd.U.T @ svd.U, torch.eye(len(svd.S)).double(), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 100))
def test_eigenvalues_are_those_of_the_dense_matrix_that_are_not_zero(n, inner, seed):
    product = drawn(n, inner, n, seed)
    dense = torch.linalg.eigvals(product.full())
    dense = dense[dense.abs().argsort(descending=True)][: len(product.eigenvalues())]
    key = lambda v: sorted((round(float(x.real), 5), round(abs(float(x.imag)), 5)) for x in v if abs(x) > 1e-6)  # noqa: E731
    assert torch.tensor(key(product.eigenvalues())).allclose(torch.tensor(key(dense)), atol=1e-4)
    assert torch.allclose(product.trace(), product.full().trace()) and torch.allclose(
        product.diagonal(), product.full().diagonal()
    )


def test_the_strongest_entries_are_found_block_by_block(monkeypatch):
    product = drawn(50, 4, 30)
    monkeypatch.setattr("patchclamp.matrix.factored.BLOCK", 100)  # three rows at a time
    dense = product.full()
    for by, key in (("largest", dense), ("smallest", -dense), ("magnitude", dense.abs())):
        expected = key.flatten().topk(7).indices.tolist()
        assert [(r * 30 + c) for r, c, _ in product.top(7, by)] == expected
        assert all(abs(v - float(dense[r, c])) < 1e-9 for r, c, v in product.top(7, by))
    assert torch.equal(product.argmax(), dense.argmax(1))
    with pytest.raises(ValueError, match='by is "largest"'):
        product.top(1, "best")


def test_what_is_too_large_is_not_multiplied_out_unasked():
    n = int(MOST**0.5) + 1
    large = Factored(torch.ones(n, 1), torch.ones(1, n))
    with pytest.raises(Unserved, match=r"0\.5 GiB; take a part"):
        large.full()
    assert (
        large[:3, [5]].full().tolist() == [[1.0]] * 3
        and float(large.trace()) == n
        and large.singular_values().tolist() == pytest.approx([n])
    )


def test_shapes_must_fit():
    with pytest.raises(ShapeMismatch, match="have no product"):
        Factored(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(ShapeMismatch, match="cannot be added"):
        drawn(2, 1, 3) + drawn(3, 1, 2)
    with pytest.raises(ShapeMismatch, match="no eigenvalues"):
        drawn(2, 1, 3).eigenvalues()


def test_effective_rank_counts_equal_directions():
    assert effective_rank(torch.ones(5)) == pytest.approx(5) and effective_rank(torch.tensor([3.0, 0, 0])) == pytest.approx(1)


def test_random_turns_are_orthonormal_and_have_no_favourite_direction():
    generator = torch.Generator().manual_seed(0)
    frames = torch.stack([orthogonal(6, 2, generator) for _ in range(2000)])
    assert torch.allclose(frames.transpose(1, 2) @ frames, torch.eye(2).expand(2000, 2, 2), atol=1e-5)
    assert frames.mean(0).abs().max() < 0.05 and (frames.square().mean(0) - 1 / 6).abs().max() < 0.02
