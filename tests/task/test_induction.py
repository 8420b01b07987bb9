"""Induction: what followed the earlier copy follows again, in words and in ids."""

from itertools import islice
from random import Random

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.core.pair import role_tokens
from patchclamp.task.induction import CORRUPTIONS, induction


def after_the_earlier_copy(tokens):
    return next((tokens[i + 1] for i in range(len(tokens) - 1) if tokens[i] == tokens[-1]), None)


@pytest.mark.parametrize("bos", [None, 0])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_ids_go_on_as_they_did(corruption, bos):
    for pair in islice(induction(Random(0), 6, range(40), corruption, bos), 200):
        assert pair.answers == (after_the_earlier_copy(pair.clean),)
        assert (pair.clean[0] == 0) if bos == 0 else True
        at = role_tokens(pair, None)
        assert pair.clean[at["earlier"]] == pair.clean[at["end"]] and pair.clean[at["answer"]] == pair.answer
        assert at["answer"] == at["earlier"] + 1
        copied = after_the_earlier_copy(pair.corrupt)
        assert copied == (pair.wrong if corruption == "answer" else None)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_words_go_on_as_they_did(corruption):
    for pair in islice(induction(Random(1), corruption=corruption), 200):
        clean, corrupt = pair.clean.split(" ")[1:], pair.corrupt.split(" ")[1:]
        assert pair.answers == (f" {after_the_earlier_copy(clean)}",)
        assert pair.clean[slice(*pair.roles["earlier"])] == clean[-1]
        assert f" {pair.clean[slice(*pair.roles['answer'])]}" == pair.answer
        assert sum(a != b for a, b in zip(clean, corrupt)) == (1 if corruption == "answer" else 10)
        assert f" {corrupt[clean.index(clean[-1]) + 1]}" == pair.wrong


def test_bos_comes_first_and_never_again():
    for pair in islice(induction(Random(2), 4, range(9), bos=3), 100):
        assert pair.clean[0] == pair.corrupt[0] == 3 and pair.clean.count(3) == pair.corrupt.count(3) == 1


def test_every_cut_comes():
    assert {len(pair.clean) for pair in islice(induction(Random(3), 5, range(20)), 100)} == {6, 7, 8, 9}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"corruption": "answers"}, 'not "answers". Did you mean "answer"'),
        ({"length": 1}, "length is 2 or more"),
        ({"vocab": range(7), "length": 4}, "4 of 7 cannot be drawn"),
        ({"vocab": ["a", 1]}, "not of int and str"),
        ({"vocab": []}, "not of nothing"),
        ({"bos": 0}, "leave bos to sequences of ids"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, says):
    with pytest.raises(WrongPrompt, match=says):
        next(induction(Random(0), **options))
