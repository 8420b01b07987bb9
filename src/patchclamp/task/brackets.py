"""Brackets: is every one of them closed, and none before it was opened?

A string fails in two ways, which a model can look for apart: by its total elevation (as many closed as opened?) and by
negative elevation (more closed than opened anywhere on the way?). The bracket classifier of the ARENA course is the study
of such a model. Spaces keep brackets apart, since `((` is one token of most tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from patchclamp.core.errors import WrongPrompt
from patchclamp.core.pair import Pair
from patchclamp.task.template import known

FAILURES = ("total", "negative", "both")
BEFORE, AFTER = "Are the brackets", "balanced? Answer:"


def brackets(rng: Random, length: int = 8, failures: Sequence[str] = FAILURES) -> Iterator[Pair]:
    """`Are the brackets ( ( ) ) ( ) balanced? Answer:` -> ` yes`; in half of the pairs `corrupt` is, and ` no` is right.

    They differ in one bracket, or in two that change places. `kind` says how the unbalanced one fails: "total", brackets stay
    open; "negative", one is closed too early though their numbers agree; "both", more are closed than opened. `length` counts
    brackets. Role: changed (the first bracket that differs).

    >>> pair = next(brackets(Random(0), length=6, failures=["negative"]))
    >>> pair.clean, pair.corrupt, pair.answer
    ('Are the brackets ( ( ) ) ( ) balanced? Answer:', 'Are the brackets ( ) ) ( ( ) balanced? Answer:', ' yes')
    """
    if length < 2 or length % 2:
        raise WrongPrompt(
            f"balanced brackets come in twos, so there is no string of length {length}; take {max(2, length + length % 2)}."
        )
    for failure in failures:
        known("failures", failure, FAILURES)
    while True:
        failure = rng.choice(tuple(failures))
        good = balanced(rng, length)
        bad = unbalanced(rng, good, failure)
        changed = next(i for i, (one, other) in enumerate(zip(good, bad)) if one != other)
        sides, verdicts = (good, bad), (" yes", " no")
        if rng.random() < 0.5:
            sides, verdicts = sides[::-1], verdicts[::-1]
        clean, corrupt = (f"{BEFORE} {' '.join(side)} {AFTER}" for side in sides)
        start = len(BEFORE) + 1 + 2 * changed
        yield Pair(clean, corrupt, verdicts[:1], verdicts[1:], {"changed": (start, start + 1)}, kind=failure)


def balanced(rng: Random, length: int) -> str:
    """A balanced string, each as likely as any other.

    >>> balanced(Random(0), 8)
    '(((())))'
    """
    # The cycle lemma: of the rotations of one more opened than closed, one stays above zero; its first bracket is spare.
    signs = [1] * (length // 2 + 1) + [-1] * (length // 2)
    rng.shuffle(signs)
    heights = list(accumulate(signs))
    lowest = max(i for i, height in enumerate(heights) if height == min(heights))
    turned = signs[lowest + 1 :] + signs[: lowest + 1]
    return "".join("(" if sign > 0 else ")" for sign in turned[1:])


def unbalanced(rng: Random, good: str, failure: str) -> str:
    """A balanced string with one bracket turned round, or two exchanged, so that it fails in one of the `FAILURES`.

    >>> unbalanced(Random(0), "()", "both"), unbalanced(Random(0), "()", "total"), unbalanced(Random(0), "()", "negative")
    ('))', '((', ')(')
    """
    places = {bracket: [i for i, one in enumerate(good) if one == bracket] for bracket in "()"}
    if failure == "total":
        return _put(good, {rng.choice(places[")"]): "("})
    if failure == "both":
        return _put(good, {rng.choice(places["("]): ")"})
    exchanges = [(i, j) for i in places["("] for j in places[")"] if i < j]
    dips = [bad for i, j in exchanges if min(elevation(bad := _put(good, {i: ")", j: "("}))) < 0]
    return rng.choice(dips)


def elevation(string: str) -> list[int]:
    """How many brackets are open after each one.

    >>> elevation("())(")
    [1, 0, -1, 0]
    """
    return list(accumulate(1 if bracket == "(" else -1 for bracket in string))


def _put(string: str, changes: dict[int, str]) -> str:
    return "".join(changes.get(i, bracket) for i, bracket in enumerate(string))
