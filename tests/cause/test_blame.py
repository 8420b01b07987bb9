"""A planted fault is found and mended at no cost; other parts, drawn by lot, mend nothing; a sound model has nobody to blame."""

import math

import pytest

import flaw
import patchclamp as pc
from patchclamp.cause.blame import accuracy, blame
from patchclamp.core.errors import WrongPrompt


@pytest.fixture(scope="module")
def planted(town):
    """(the flawed model, wrong examples, controls), with token ids as answers."""
    wrong, right = ([(p, town.token(a)) for p, a in some] for some in flaw.examples(town))
    return flaw.plant(town), wrong, right


@pytest.fixture(scope="module")
def found(town):
    return flaw.blamed(town)


def test_the_fault_is_one(town, planted):
    model, wrong, right = planted
    assert accuracy(town, wrong) == accuracy(town, right) == 1
    assert accuracy(model, wrong) == 0 and accuracy(model, right) >= 0.99


def test_the_planted_head_is_to_blame(found):
    (first, gain), (_, second) = found.grid.top(2)
    assert first["part"] == flaw.SITE and gain > 2 * second
    assert found.grid.shape == {"part": 36} and bool((found.grid.details["low"] <= found.grid.values).all())


def test_without_it_all_is_well_at_no_cost(found):
    best = found.best
    assert best.site == flaw.SITE and best.kind == "mean"
    assert best.fixed >= 0.95 and best.cost < 0.01
    assert (found.found, found.held, found.controls) == (10, 10, 20)


def test_other_parts_mend_nothing(found):
    assert len(found.lots) == 3 and all(c.site != flaw.SITE and c.kind == "mean" for c in found.lots)
    assert max(c.fixed for c in found.lots) <= 0.05


def test_the_cure_can_be_kept(found, planted, tmp_path):
    model, wrong, _ = planted
    cured = model.edit(pc.Edit.load(found.best.edit.save(tmp_path)))
    assert accuracy(cured, wrong[1::2]) == found.best.fixed


def test_without_controls_the_cost_is_not_known(planted):
    model, wrong, _ = planted
    found = blame(model, wrong[:4], lots=1)
    assert (found.found, found.held, found.controls) == (4, 4, 0) and math.isnan(found.best.cost)
    assert "as there are no controls" in found.grid.note


def test_resampled_it_is_the_same_head(planted):
    model, wrong, right = planted
    assert blame(model, wrong[:8], right[:8], by="resample", lots=0).grid.top(1)[0][0]["part"] == flaw.SITE


def test_a_sound_model_has_nobody_to_blame(town, planted):
    with pytest.raises(WrongPrompt, match="answers all 20 examples right; there is nothing to blame anybody for"):
        blame(town, planted[1])
    with pytest.raises(WrongPrompt, match="there are no wrong examples"):
        blame(town, [])
    with pytest.raises(ValueError, match='"mean" or "resample"'):
        blame(town, planted[1], by="zero")


def test_examples_that_are_answered_right_are_left_out(planted):
    model, wrong, right = planted
    found = blame(model, [*wrong[:2], *right[:3]], lots=0)
    assert found.left_out == 3 and found.found == 2
