"""K-th smallest: sorting gives the answer, in the clean prompt and in the corrupt one."""

import re
from itertools import islice
from random import Random

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.task.smallest import CORRUPTIONS, kth_smallest

RANKS = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "sixth": 5, "seventh": 6, "eighth": 7}


def solve(text):
    numbers, rank = re.search(r"numbers ([\d ]+), .* the (\w+) is$", text).groups()
    return f" {sorted(map(int, numbers.split()))[RANKS[rank]]}"


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("numbers", [2, 5, 8])
def test_sorting_gives_the_answer_in_both_prompts(numbers, corruption):
    for pair in islice(kth_smallest(Random(0), numbers, corruption=corruption), 300):
        assert pair.answers == (solve(pair.clean),)
        assert pair.wrong == solve(pair.corrupt)
        assert f" {pair.clean[slice(*pair.roles['number'])]}" == pair.answer
        assert pair.clean[slice(*pair.roles["rank"])] == pair.kind
        assert len(set(pair.wrongs)) == len(pair.wrongs) == numbers - (corruption == "rank")


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_one_thing_changes(corruption):
    for pair in islice(kth_smallest(Random(1), corruption=corruption), 100):
        a, b = pair.roles[corruption]
        assert pair.clean[:a] == pair.corrupt[:a] and pair.corrupt.endswith(pair.clean[b:])


def test_the_rank_can_be_fixed():
    assert {pair.kind for pair in islice(kth_smallest(Random(2), k=3), 50)} == {"third"}
    assert {pair.kind for pair in islice(kth_smallest(Random(2), 4), 100)} == {"first", "second", "third", "fourth"}


@pytest.mark.parametrize(("numbers", "k"), [(1, None), (9, None), (5, 6), (5, 0)])
def test_what_is_no_rank_is_refused(numbers, k):
    with pytest.raises(WrongPrompt, match=f"not {numbers} and {k}"):
        next(kth_smallest(Random(0), numbers, k))
