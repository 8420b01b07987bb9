"""Illusion: a neuron with a meaning in each corpus is found out, one with the same in both is not, a random one is unclear."""

import pytest

import planted_neurons as planted
from patchclamp.model.activating import Example, activating
from patchclamp.model.illusion import Check, Shared, _chance, illusion, senses, shared

SITE = "blocks.0.mlp.act[neuron=*]"


@pytest.fixture(scope="module")
def model():
    return planted.model()


@pytest.fixture(scope="module")
def corpora(model):
    """By name: a corpus of the one pair, another of the other, one of both, one of neither."""
    kinds = {"one": [planted.BIGRAM], "two": [planted.OTHER], "both": [planted.BIGRAM, planted.OTHER], "none": []}
    return {name: activating(model, SITE, planted.texts(300, pairs, seed)) for seed, (name, pairs) in enumerate(kinds.items())}


@pytest.mark.parametrize(
    ("unit", "second", "verdict"),
    [
        (1, "two", "illusion"),
        (0, "two", "silent"),
        (0, "both", "holds"),
        (2, "two", "holds"),
        (1, "none", "silent"),
        (5, "two", "unclear"),
    ],
)
def test_verdicts_on_planted_neurons(model, corpora, unit, second, verdict):
    check = illusion(model, unit, corpora["one"], corpora[second])
    assert check.verdict == verdict


def test_an_illusion_says_what_is_there_instead(model, corpora):
    check = illusion(model, 1, corpora["one"], corpora["two"])
    assert check.first.trait in ((0, "9"), (-1, "7")) and check.held == 1 and check.second <= 0.1
    assert check.instead.trait in ((0, "22"), (-1, "21")) and check.loudness == pytest.approx(1, abs=1e-3)


def test_what_chance_explains_is_no_illusion():
    rest = {"first": Shared((0, "a"), 0.6, 0.0), "instead": Shared(None, 0.0, 0.0), "loudness": 1.0}
    assert (
        Check(0, held=0.6, second=0.3, chance=_chance([True] * 6 + [False] * 4, [True] * 6 + [False] * 14), **rest).verdict
        == "unclear"
    )
    assert (
        Check(0, held=0.9, second=0.1, chance=_chance([True] * 9 + [False], [True] * 2 + [False] * 18), **rest).verdict
        == "illusion"
    )
    # by hand: C(11, 9) C(19, 1) / C(30, 10), and one term more
    from math import comb

    expected = (comb(11, 9) * comb(19, 1) + comb(11, 10) * comb(19, 0)) / comb(30, 10)
    assert _chance([True] * 9 + [False], [True] * 2 + [False] * 18) == pytest.approx(expected)


def test_senses_are_counted(model, corpora):
    one, both = (senses(corpora[name].examples(model, 1)) for name in ("one", "both"))
    assert one == pytest.approx(1) and both == pytest.approx(2, abs=0.15)
    assert senses(corpora["none"].examples(model, 5)) > 2


def test_traits_may_be_anything():
    months = [Example((i,), (name,), (1.0,), 0, i) for i, name in enumerate((" March", " May", " June", " July"))]
    assert senses(months) == pytest.approx(4) and senses(months, lambda e: ["month"]) == pytest.approx(1)
    assert shared(months, months, lambda e: ["month"]).usual == 1.0
    assert shared([]).trait is None and senses([]) == 0
