"""A probe is a value: it says what it reads, remembers how, and comes back from disk as it was."""

from __future__ import annotations

import json

import pytest
import torch

from patchclamp.core.errors import NotSaved, ShapeMismatch, Unserved, WrongPrompt
from patchclamp.probe.fitted import Probe, Rows, coded
from patchclamp.probe.linear import logistic, mlp, ridge


@pytest.fixture
def planted():
    """Two hundred rows whose class is the sign of their third number."""
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1, 5, 1, 1, 100.0]) + 7
    return x, ["up" if row[2] > 7 else "down" for row in x]


def test_a_direction_is_in_the_places_own_coordinates(planted):
    x, y = planted
    probe = logistic(x, y)
    step = probe(x[:1] + probe.direction) - probe(x[:1])
    assert float(step[0, 1] - step[0, 0]) == pytest.approx(float(probe.direction.square().sum()), rel=1e-4)
    assert int((probe.direction * x.std(0)).abs().argmax()) == 2 and probe.direction[2] > 0  # from "down" to "up"


@pytest.mark.parametrize("fit", [logistic, mlp], ids=lambda f: f.__name__)
def test_a_probe_comes_back_from_disk_as_it_was(planted, tmp_path, fit):
    probe = fit(*planted)
    again = Probe.load(probe.save(tmp_path / "probe"))
    assert torch.equal(again(planted[0]), probe(planted[0]))
    assert (again.classes, dict(again.fitted)) == (probe.classes, dict(probe.fitted)) and again.fitted["rows"] == 200


def test_no_pickle_and_no_other_noun_is_read(tmp_path):
    with pytest.raises(NotSaved, match=r"holds no readable card\.json"):
        Probe.load(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({"noun": "Grid"}))
    with pytest.raises(NotSaved, match="holds a Grid, not a Probe"):
        Probe.load(tmp_path)


def test_probabilities_add_up_to_one(planted):
    assert torch.allclose(logistic(*planted).log_probabilities(planted[0]).exp().sum(1), torch.ones(200))


def test_a_constant_coordinate_breaks_nothing():
    x = torch.cat([torch.randn(50, 1, generator=torch.Generator().manual_seed(0)), torch.full((50, 1), 3.0)], 1)
    probe = logistic(x, [int(v > 0) for v in x[:, 0]])
    assert probe(x).isfinite().all() and probe.predict(x)[0] in ("0", "1")


def test_numbers_are_predicted_and_words_are_classes():
    assert coded(torch.tensor([2, 0, 2]))[1] == ("0", "2")
    assert coded([1.0, 2.0])[1] == ()
    assert coded([True, False])[1] == ("False", "True")


def test_what_cannot_be_fitted_says_so(planted):
    x, y = planted
    with pytest.raises(WrongPrompt, match="every row has the label up"):
        logistic(x, ["up"] * 200)
    with pytest.raises(ShapeMismatch, match=r"got \[200, 6\] and 3 labels"):
        logistic(x, y[:3])
    with pytest.raises(ShapeMismatch, match="infinite or not a number"):
        Rows.of(x / 0, y)
    with pytest.raises(ShapeMismatch, match="reads 6 numbers and was given 5"):
        logistic(x, y)(x[:, :5])
    with pytest.raises(Unserved, match="take the gradient"):
        _ = mlp(x, y).direction
    with pytest.raises(Unserved, match="has no classes"):
        ridge(x, x[:, 0].tolist()).log_probabilities(x)
