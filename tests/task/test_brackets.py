"""Brackets: balanced is what vanishes when neighbours are struck out, and each failure is the one it is called."""

from collections import Counter
from itertools import islice, product
from random import Random

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.task.brackets import FAILURES, balanced, brackets, elevation, unbalanced


def vanishes(string):
    while "()" in string:
        string = string.replace("()", "")
    return not string


def inside(text):
    return "".join(letter for letter in text if letter in "()")


@pytest.mark.parametrize("failure", FAILURES)
def test_the_answer_is_yes_where_neighbours_struck_out_leave_nothing(failure):
    for pair in islice(brackets(Random(0), 10, [failure]), 300):
        clean, corrupt = inside(pair.clean), inside(pair.corrupt)
        assert len(clean) == len(corrupt) == 10
        assert vanishes(clean) != vanishes(corrupt)
        assert (pair.answers, pair.wrongs) == ((" yes",), (" no",))[:: 1 if vanishes(clean) else -1]
        bad = corrupt if vanishes(clean) else clean
        opened, closed = bad.count("("), bad.count(")")
        early = any(bad[:i].count(")") > bad[:i].count("(") for i in range(11))
        assert {
            "total": opened > closed and not early,
            "negative": opened == closed and early,
            "both": closed > opened and early,
        }[failure]
        assert pair.kind == failure


def test_the_role_is_the_first_bracket_that_differs():
    for pair in islice(brackets(Random(1)), 200):
        at = next(i for i, (a, b) in enumerate(zip(pair.clean, pair.corrupt)) if a != b)
        assert pair.roles == pair.corrupt_roles == {"changed": (at, at + 1)}
        assert len(pair.clean) == len(pair.corrupt)


def test_clean_is_balanced_every_other_time_and_all_failures_come():
    pairs = list(islice(brackets(Random(2)), 1000))
    assert 0.45 < sum(pair.answer == " yes" for pair in pairs) / len(pairs) < 0.55
    assert {pair.kind for pair in pairs} == set(FAILURES)


def test_every_balanced_string_is_as_likely_as_any_other():
    rng = Random(3)
    drawn = Counter(balanced(rng, 8) for _ in range(7000))
    assert set(drawn) == {s for s in map("".join, product("()", repeat=8)) if vanishes(s)} and len(drawn) == 14
    assert all(400 < n < 600 for n in drawn.values()), drawn


@pytest.mark.parametrize("failure", FAILURES)
def test_the_shortest_string_can_fail_in_every_way(failure):
    assert not vanishes(unbalanced(Random(0), "()", failure))


def test_elevation_is_what_is_open():
    assert elevation("(()") == [1, 2, 1] and elevation("") == []


@pytest.mark.parametrize(("length", "better"), [(7, 8), (0, 2), (-3, 2)])
def test_an_odd_length_is_refused_with_the_next(length, better):
    with pytest.raises(WrongPrompt, match=f"no string of length {length}; take {better}"):
        next(brackets(Random(0), length))


def test_an_unknown_failure_is_named():
    with pytest.raises(WrongPrompt, match='failures is one of total, negative, both, not "totals". Did you mean "total"'):
        next(brackets(Random(0), failures=["totals"]))
