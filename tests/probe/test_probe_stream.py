"""What is fitted on a stream from disk is what is fitted in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongPrompt
from patchclamp.probe import linear, stream
from patchclamp.probe.erase import leace, leace_of
from patchclamp.probe.stream import Shards


@pytest.fixture
def rows():
    chosen = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 16, generator=chosen) * torch.linspace(0.1, 10, 16) + 50
    y = ((x - 50) @ torch.randn(16, 3, generator=chosen) / torch.linspace(0.1, 10, 16).mean()).argmax(1)
    return x, [("zebra", "ant", "bee")[i] for i in y]


@pytest.fixture
def stored(rows, tmp_path):
    x, y = rows
    return Shards.write(tmp_path / "acts", [(x[:1000], y[:1000]), (x[1000:1001], y[1000:1001]), (x[1001:], y[1001:])])


def test_what_was_written_is_read_in_order(rows, stored, tmp_path):
    again = Shards.open(tmp_path / "acts")
    assert again == stored and len(again) == 3000 and again.width == 16
    x = torch.cat([x for x, _ in again.batches(700)])
    y = [again.classes[i] for _, y in again.batches(700) for i in y]
    assert torch.equal(x, rows[0]) and y == rows[1]


def test_ridge_is_the_same_to_rounding(rows, stored):
    one, other = stream.ridge(stored), linear.ridge(*rows)
    assert one.classes == other.classes == ("ant", "bee", "zebra")
    assert torch.allclose(one(rows[0]), other(rows[0]), atol=1e-3)


def test_logistic_is_the_same_to_tolerance(rows, stored):
    one, other = stream.logistic(stored, tolerance=1e-7), linear.logistic(*rows, tolerance=1e-7)
    assert torch.allclose(one.log_probabilities(rows[0]).exp(), other.log_probabilities(rows[0]).exp(), atol=2e-3)
    assert stream.accuracy(one, stored) == pytest.approx(stream.accuracy(other, stored), abs=1e-3)


def test_an_eraser_from_a_stream_is_that_of_the_rows(rows, stored):
    assert torch.allclose(leace_of(stream.moments(stored))(rows[0]), leace(*rows)(rows[0]), atol=1e-3)


def test_numpy_files_serve_as_well(rows, tmp_path):
    x, y = rows
    names = sorted(set(y))
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", np.array([names.index(v) for v in y]))
    stored = Shards.of_arrays([tmp_path / "x.npy"], [tmp_path / "y.npy"], names)
    assert torch.allclose(stream.ridge(stored)(x), linear.ridge(x, y)(x), atol=1e-3)


def test_numbers_are_predicted(tmp_path):
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    stored = Shards.write(tmp_path, [(x, (x[:, 1] * 3 + 1).tolist())])
    probe = stream.ridge(stored, penalty=0.0)
    assert probe.classes == () and torch.allclose(probe.direction, torch.tensor([0.0, 3, 0, 0]), atol=1e-4)
    with pytest.raises(WrongPrompt, match=r"take stream\.ridge"):
        stream.logistic(stored)


def test_what_cannot_be_read_says_so(tmp_path):
    with pytest.raises(NotSaved, match="holds no shards"):
        Shards.open(tmp_path)
    with pytest.raises(ShapeMismatch, match="batch 0 has 2 rows and 1 labels"):
        Shards.write(tmp_path, [(torch.randn(2, 3), ["a"])])
    Shards.write(tmp_path / "two", [(torch.randn(2, 3), ["a", "b"])])
    Shards.write(tmp_path / "four", [(torch.randn(2, 4), ["a", "b"])])
    (tmp_path / "four" / "00000.safetensors").rename(tmp_path / "two" / "00001.safetensors")
    with pytest.raises(ShapeMismatch, match="holds activations of 3 and 4 numbers"):
        Shards.open(tmp_path / "two")
    with pytest.raises(WrongPrompt, match="no row is of b"):
        stream.logistic(Shards.write(tmp_path / "one", [(torch.randn(2, 3), [0, 0])], ["a", "b"]))


def test_two_classes_bear_the_same_penalty(tmp_path):
    """Two rows of weights share what one row bears alone."""
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    y = ["a" if r[0] + 0.5 * r[1] > 0 else "b" for r in x]
    stored = Shards.write(tmp_path / "two", [(x[:200], y[:200]), (x[200:], y[200:])])
    one, other = stream.logistic(stored, penalty=5.0, tolerance=1e-8), linear.logistic(x, y, penalty=5.0, tolerance=1e-8)
    assert torch.allclose(one.log_probabilities(x), other.log_probabilities(x), atol=2e-3)


def test_shards_are_not_mixed_with_older_ones(tmp_path):
    Shards.write(tmp_path, [(torch.randn(2, 3), ["a", "b"])] * 2)
    with pytest.raises(NotSaved, match="holds shards already"):
        Shards.write(tmp_path, [(torch.randn(2, 3), ["a", "b"])])
