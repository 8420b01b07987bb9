"""K-th smallest: a list of numbers, and which of them is the third in order of size?

Hou et al. 2023, "Towards a mechanistic interpretation of multi-step reasoning capabilities of language models", where
choosing the k smallest and sorting them are done in different layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from patchclamp.core.errors import WrongPrompt
from patchclamp.core.pair import Pair
from patchclamp.task.template import ask, known
from patchclamp.task.words import ORDINALS

CORRUPTIONS = ("number", "rank")
NUMBERS = range(10, 100)
"""Two digits each, so that size cannot be read off the length."""


def kth_smallest(rng: Random, numbers: int = 5, k: int | None = None, corruption: str = "number") -> Iterator[Pair]:
    """`Of the numbers 42 17 88 23 65, counted from the smallest, the third is` -> ` 42`; wrong are the other numbers.

    In `corrupt`, by `corruption`: "number", another number of the same rank stands in the place of the answer; "rank", another
    rank is asked for. What is right there is the first wrong. `k` is drawn where it is not given. Roles: number (where the
    answer stands), rank. `kind` is the ordinal.

    >>> pair = next(kth_smallest(Random(0), numbers=3, k=1))
    >>> pair.clean, pair.answer
    ('Of the numbers 59 63 15, counted from the smallest, the first is', ' 15')
    """
    known("corruption", corruption, CORRUPTIONS)
    if not 2 <= numbers <= len(ORDINALS) or (k is not None and not 1 <= k <= numbers):
        raise WrongPrompt(f"numbers is 2 to {len(ORDINALS)} and k one of 1 to {numbers}, not {numbers} and {k}.")
    slots = [f"n{i}" for i in range(numbers)]
    template = f"Of the numbers {' '.join('{' + slot + '}' for slot in slots)}, counted from the smallest, the {{rank}} is"
    while True:
        drawn = rng.sample(NUMBERS, numbers)
        ordered = sorted(drawn)
        rank = (rng.randint(1, numbers) if k is None else k) - 1
        answer = ordered[rank]
        clean = {slot: str(n) for slot, n in zip(slots, drawn)} | {"rank": ORDINALS[rank]}
        place = slots[drawn.index(answer)]
        if corruption == "number":
            least, most = ([NUMBERS[0] - 1, *ordered][rank], [*ordered, NUMBERS[-1] + 1][rank + 1])
            between = [n for n in range(least + 1, most) if n != answer]
            if not between:
                continue
            other = rng.choice(between)
            corrupt = clean | {place: str(other)}
        else:
            there = rng.choice([i for i in range(numbers) if i != rank])
            other, corrupt = ordered[there], clean | {"rank": ORDINALS[there]}
        wrongs = [other, *(n for n in drawn if n != answer)]
        yield ask(
            template, clean, corrupt, {"number": place, "rank": "rank"}, [str(answer)], list(map(str, wrongs)), ORDINALS[rank]
        )
