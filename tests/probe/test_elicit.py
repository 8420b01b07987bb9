"""Contrast pairs from end to end: splits, signs, shapes; and the figures that are promised for the shipped model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.model.untrained import untrained
from patchclamp.probe import elicit as e
from patchclamp.probe.confound import diagnose, planted
from patchclamp.probe.elicit import Contrast
from patchclamp.specimens.exposures.tasks import contrasts, unasked


@pytest.fixture(scope="module")
def reader():
    """The model that has read each fact so often."""
    return pc.load("specimen:exposures")


@pytest.fixture(scope="module")
def lying():
    return Contrast(**contrasts(160, "lying"))


def test_halves_share_no_content(lying):
    first, second = lying.halves(0.4, seed=3)
    assert not set(first.content) & set(second.content)
    assert len(first) + len(second) == len(lying)
    assert set(zip(first.yes + second.yes, first.no + second.no)) == set(zip(lying.yes, lying.no))
    assert lying.halves(0.4, seed=3)[0].content == first.content
    assert lying.halves(0.4, seed=4)[0].content != first.content


def test_columns_are_of_one_length():
    with pytest.raises(ShapeMismatch, match='entries of "truth"'):
        Contrast(("a", "b"), ("c", "d"), (True,))
    with pytest.raises(ShapeMismatch, match='entries of "said"'):
        Contrast(("a",), ("c",), (True,), features={"said": (True, False)})


def test_a_grid_of_methods_and_layers_comes_back_pair_by_pair(reader, lying):
    grid = e.elicit(reader, lying, methods=["crc", "random"])
    assert grid.shape == {"method": 2, "layer": 4}
    assert torch.allclose(grid.each.mean(0), grid.values)
    assert set(grid.each.unique().tolist()) <= {0.0, 0.5, 1.0}
    assert bool((grid.details["low"] <= grid.values).all() and (grid.values <= grid.details["high"]).all())
    assert isinstance(grid.interval(), Grid)
    assert e.elicit(reader, lying, "blocks.1.out[pos=-1]", ["crc"]).words("layer") == ("1",)


def test_without_labels_the_better_sign_is_reported_and_said_to_be(reader, lying):
    grid = e.elicit(reader, lying, methods=["random", "crc"], labelled=0)
    assert bool((grid.values >= 0.5).all())
    assert "better of both signs" in grid.note
    assert "16 labelled" in e.elicit(reader, lying, methods=["random"]).note


def test_a_supervised_method_is_never_turned_round(reader):
    """With shuffled truth the ceiling is a coin, below one half as often as above."""
    draw = torch.Generator().manual_seed(0)
    pairs = contrasts(160, "lying")
    pairs["truth"] = tuple((torch.rand(160, generator=draw) < 0.5).tolist())
    grid = e.elicit(reader, Contrast(**pairs), methods=["logistic", "mean difference"], labelled=0)
    assert 0.3 < float(grid.values.mean()) < 0.7
    assert float(grid.values.min()) < 0.5


def test_what_cannot_be_asked_is_refused(reader, lying):
    with pytest.raises(WrongPrompt, match='Did you mean "ccs"'):
        e.elicit(reader, lying, methods=["cccs"])
    with pytest.raises(WrongPrompt, match="needed on either side"):
        e.elicit(reader, lying.take(range(4)))
    with pytest.raises(ShapeMismatch, match="one vector there"):
        e.sides_of(reader, lying.take(range(4)), "blocks.1.attn.z[pos=-1]")


def test_truth_is_found_under_speakers_who_lie_and_not_in_an_untrained_model(reader):
    """On people not searched, 20 points and more above its own words, which are wrong. Two draws of pairs.

    Of all pairs, without regard to what the model knows, CCS has 91 % in the three draws of 400 pairs of `bench.belief`.
    """
    blank = untrained(reader)
    found, every, words, nothing = [], [], [], []
    for seed in range(2):
        pairs = Contrast(**contrasts(240, "lying", seed=seed))
        alone = e.zero_shot(reader, replace(pairs, yes=unasked(pairs.yes), no=unasked(pairs.no)))
        known = pairs.take(alone.nonzero()[:, 0].tolist())
        assert len(known) > 0.85 * len(pairs)
        found.append(float(e.elicit(reader, known, "blocks.3.out[pos=-1]", ["ccs"], seed=seed).values))
        every.append(float(e.elicit(reader, pairs, "blocks.3.out[pos=-1]", ["ccs"], seed=seed).values))
        words.append(float(e.zero_shot(reader, pairs).mean()))
        nothing.append(float(e.elicit(blank, pairs, "blocks.3.out[pos=-1]", ["crc"], seed=seed).values))
    assert sum(found) / 2 >= 0.9
    assert sum(every) / 2 >= 0.9
    assert sum(every) / 2 >= sum(words) / 2 + 0.2
    assert 0.38 < sum(nothing) / 2 < 0.62


def test_a_planted_confound_is_found_and_the_diagnosis_says_so(reader):
    pairs = Contrast(**contrasts(240, "lying", suggest=True))
    features = {"truth": pairs.right, "suggested": torch.tensor(pairs.features["suggested"])}
    places = pairs.yes, pairs.no, features["suggested"], "blocks.2.out", "blocks.3.out"
    plain, planted_ = (diagnose(*planted(reader, *places, strength), features) for strength in (0.0, 2.0))
    assert plain.follows == "truth"
    assert planted_.follows == "suggested"
    assert "Not truth" in planted_.verdict
