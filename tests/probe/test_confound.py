"""What the diagnosis says where it is known what was found: planted truth, planted confounds, and nothing at all."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.confound import Diagnosis, diagnose

PAIRS, WIDTH = 240, 12


def pairs(seed=0, alike=0.5, **strengths):
    """Activations in which each named feature is written along an axis of its own; `alike` of the second's values are the first's."""
    draw = torch.Generator().manual_seed(seed)
    first = torch.rand(PAIRS, generator=draw) < 0.5
    second = torch.where(torch.rand(PAIRS, generator=draw) < alike, first, ~first)
    features = dict(zip(strengths, (first, second)))
    writes = torch.zeros(PAIRS, WIDTH)
    for axis, (name, strength) in enumerate(strengths.items()):
        writes[:, axis] = torch.where(features[name], 1.0, -1.0) * strength
    yes, no = (torch.randn(PAIRS, WIDTH, generator=draw) * 0.5 + sign * writes for sign in (1, -1))
    return yes, no, features


def test_truth_is_called_truth():
    found = diagnose(*pairs(truth=3.0, said=0.3), restarts=6)
    assert found.sound
    assert found.follows == "truth"
    assert "agrees with truth in 100%" in found.verdict
    assert "also where said would have it otherwise" in found.verdict


@pytest.mark.parametrize("seed", range(3))
def test_a_more_salient_confound_is_found_and_named(seed):
    found = diagnose(*pairs(seed, truth=0.7, said=4.0), restarts=6, seed=seed)
    assert not found.sound
    assert found.follows == "said"
    assert found.verdict.startswith("Not truth: the direction found agrees with said in 100%")
    assert float(found.levelled.at(levelled="said", feature="truth").values) > 0.9, (
        "truth comes to light once it is levelled out"
    )


def test_a_confound_that_mostly_agrees_with_truth_is_told_apart_where_they_part():
    """Agreement alone would pass: said is as truth in nine pairs of ten."""
    found = diagnose(*pairs(alike=0.9, truth=0.4, said=4.0), restarts=6)
    assert float(found.agreement.at(feature="truth").values) > 0.8
    assert float(found.torn.at(feature="said").values) < 0.2
    assert not found.sound


def test_an_exclusive_or_is_among_the_candidates():
    yes, no, features = pairs(truth=0.0, said=0.0)
    both = torch.where(features["truth"] != features["said"], 3.0, -3.0)[:, None] * torch.eye(WIDTH)[4]
    assert diagnose(yes + both, no - both, features, restarts=6).follows == "truth xor said"


def test_two_features_of_equal_strength_are_two_directions():
    found = diagnose(*pairs(truth=4.0, said=4.0), restarts=20)
    agreed = found.starts.values[:, :2]
    assert found.starts.shape["direction"] > 1
    assert (agreed > 0.95).any(0).all(), "one start or another ends at each"
    assert "different directions" in found.verdict


def test_of_nothing_nothing_is_said():
    found = diagnose(*pairs(truth=0.0, said=0.0), restarts=6)
    assert found.follows == ""
    assert "none of the features named" in found.verdict


def test_without_candidates_only_agreement_is_told():
    yes, no, features = pairs(truth=3.0, said=0.0)
    found = diagnose(yes, no, {"truth": features["truth"]}, restarts=6)
    assert found.sound
    assert found.verdict == "The direction found agrees with truth in 100% of held-out pairs."
    assert isinstance(found.html(), str)


def test_it_shows_itself():
    found = diagnose(*pairs(truth=0.7, said=4.0), restarts=6)
    assert isinstance(found, Diagnosis)
    page = found.html()
    assert "Not truth" in page and "levelled out" in page
    assert found._repr_html_()
    found.show()


def test_features_fit_the_pairs():
    yes, no, features = pairs(truth=1.0, said=1.0)
    with pytest.raises(WrongPrompt, match='Did you mean "truth"'):
        diagnose(yes, no, features, claimed="truht")
    with pytest.raises(ShapeMismatch, match='entries of "said"'):
        diagnose(yes, no, {**features, "said": features["said"][:9]})


def test_a_feature_that_never_differs_is_a_doubt():
    yes, no, features = pairs(truth=3.0, said=0.0)
    found = diagnose(yes, no, {"truth": features["truth"], "said": features["truth"].clone()}, restarts=6)
    assert not found.sound and bool(found.torn.at(feature="said").values.isnan())
    assert "No held-out pair tells truth and said apart" in found.verdict
    assert isinstance(found.html(), str)


def test_pairs_whose_truth_alternates_are_not_searched_on_one_side_only():
    yes, no, features = pairs(truth=3.0, said=0.3)
    truth = torch.arange(len(yes)) % 2 == 0
    turn = (truth != features["truth"])[:, None]
    found = diagnose(torch.where(turn, no, yes), torch.where(turn, yes, no), {"truth": truth}, restarts=6)
    assert found.follows == "truth"
