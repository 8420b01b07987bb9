"""Least squares as streams go by is least squares; what was written is read back."""

import numpy as np
import pytest
import torch

from patchclamp.core.errors import NotSaved, ShapeMismatch
from patchclamp.lenses import affine
from patchclamp.lenses.affine import Affine, Sums


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator) + 3
    return x, x @ torch.randn(5, 2, generator=generator) + 1 + 0.3 * torch.randn(400, 2, generator=generator)


def test_it_is_numpys_least_squares():
    x, y = data()
    design = np.concatenate([x.numpy(), np.ones((400, 1))], 1)
    theirs = design @ np.linalg.lstsq(design, y.numpy(), rcond=None)[0]
    assert np.allclose(Affine.fit(x, y)(x).numpy(), theirs, atol=1e-4)


def test_it_does_not_matter_in_what_portions_rows_come():
    x, y = data()
    sums = Sums()
    for part in range(0, 400, 37):
        sums.add(x[part : part + 37], y[part : part + 37])
    assert torch.allclose(sums.solve().weight, Affine.fit(x, y).weight, atol=1e-5)


def test_a_direction_that_is_never_used_is_left_at_zero():
    x, y = data()
    x[:, 3] = 0
    assert torch.equal(Affine.fit(x, y).weight[3], torch.zeros(2))


def test_what_was_written_is_read(tmp_path):
    x, y = data()
    one = Affine.fit(x, y)
    maps, card = affine.read(affine.write(tmp_path / "maps", "Maps", {"blocks.0.out": one}, {"model": "m"}), "Maps")
    assert torch.equal(maps["blocks.0.out"].weight, one.weight) and torch.equal(maps["blocks.0.out"].bias, one.bias)
    assert card["model"] == "m"
    with pytest.raises(NotSaved, match="holds a Maps, not a Lens"):
        affine.read(tmp_path / "maps", "Lens")
    with pytest.raises(NotSaved, match="no readable card"):
        affine.read(tmp_path, "Maps")


def test_what_does_not_fit_is_said():
    x, y = data()
    with pytest.raises(ShapeMismatch, match="takes vectors of 5 numbers"):
        Affine.fit(x, y)(y)
    with pytest.raises(ShapeMismatch, match="no rows at all"):
        Sums().solve()
