"""Indirect object identification: who is named once receives, and each corruption does what its name says."""

from collections import Counter
from itertools import islice
from random import Random

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.task.ioi import CORRUPTIONS, TEMPLATES, ioi
from patchclamp.task.words import NAMES


def names(text):
    return Counter(word for word in text.replace(",", "").split() if word in NAMES)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_name_said_once_is_the_answer(corruption):
    for pair in islice(ioi(Random(0), corruption), 300):
        (giver, twice), (receiver, once) = names(pair.clean).most_common()
        assert (twice, once) == (2, 1)
        assert pair.answers == (f" {receiver}",) and pair.wrongs == (f" {giver}",)
        assert {role: pair.clean[slice(*at)] for role, at in pair.roles.items()} == {"IO": receiver, "S1": giver, "S2": giver}
        assert pair.kind in TEMPLATES


def test_swapped_the_answers_change_places():
    for pair in islice(ioi(Random(1)), 100):
        (giver, _), (receiver, _) = names(pair.corrupt).most_common()
        assert (f" {receiver}",) == pair.wrongs and (f" {giver}",) == pair.answers
        assert pair.corrupt[slice(*pair.corrupt_roles["S2"])] == giver


def test_with_a_third_giver_the_two_are_as_good():
    for pair in islice(ioi(Random(2), "third"), 100):
        assert set(names(pair.corrupt).values()) == {1} and set(names(pair.clean)) < set(names(pair.corrupt))


def test_with_other_names_nobody_is_left():
    for pair in islice(ioi(Random(3), "names"), 100):
        assert set(names(pair.corrupt).values()) == {1} and len(names(pair.corrupt)) == 3
        assert not set(names(pair.clean)) & set(names(pair.corrupt))


@pytest.mark.parametrize("order", ["ABBA", "BABA"])
def test_the_order_says_who_is_named_first(order):
    for pair in islice(ioi(Random(4), orders=[order]), 50):
        assert (pair.roles["IO"] < pair.roles["S1"]) == (order == "ABBA")


def test_both_orders_and_all_templates_come():
    pairs = list(islice(ioi(Random(5)), 2000))
    share = sum(pair.roles["IO"] < pair.roles["S1"] for pair in pairs) / len(pairs)
    assert 0.45 < share < 0.55
    assert len(TEMPLATES) > 100 and {pair.kind for pair in pairs} == set(TEMPLATES)
    assert not any(name == text.split()[0] for name in NAMES for text in (pair.clean for pair in pairs[:50]))


def test_options_of_another_value_are_named():
    with pytest.raises(WrongPrompt, match='corruption is one of swap, third, names, not "swapped"'):
        next(ioi(Random(0), "swapped"))
    with pytest.raises(WrongPrompt, match='orders is one of ABBA, BABA, not "ABAB"'):
        next(ioi(Random(0), orders=["ABAB"]))
