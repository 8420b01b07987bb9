"""Templates: a slot is where its words are, in the clean prompt and in the corrupt one."""

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.task.template import ask, fill, known


def test_a_slot_is_where_its_words_are():
    text, where = fill("{A}, {B} and {A}", {"A": "Ann", "B": "Robert"})
    assert text == "Ann, Robert and Ann"
    assert {slot: text[slice(*at)] for slot, at in where.items()} == {"A": "Ann", "B": "Robert"}
    assert where["A"] == (16, 19), "the later of two"


def test_words_of_different_length_move_what_follows():
    pair = ask(
        "{A} met {B} at",
        {"A": "Ann", "B": "Bob"},
        {"A": "Elizabeth", "B": "Bob"},
        {"other": "B"},
        ["noon"],
        ["one", "noon", "one"],
        "met",
    )
    assert pair.clean[slice(*pair.roles["other"])] == pair.corrupt[slice(*pair.corrupt_roles["other"])] == "Bob"
    assert pair.roles != pair.corrupt_roles
    assert (pair.answers, pair.wrongs, pair.kind) == ((" noon",), (" one",), "met")


def test_an_option_of_another_value_is_met_with_the_nearest():
    assert known("corruption", "swap", ["swap", "third"]) == "swap"
    with pytest.raises(WrongPrompt, match='corruption is one of swap, third, not "swop". Did you mean "swap"'):
        known("corruption", "swop", ["swap", "third"])
