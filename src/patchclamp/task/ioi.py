"""Indirect object identification: two people, one of them named again, and so the other one receives.

Wang et al. 2022, "Interpretability in the wild". Any opening goes with any gift. No sentence begins with a name, which
would be another token there than inside a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from patchclamp.core.pair import Pair
from patchclamp.specimens.town.item import before
from patchclamp.task.template import ask, known
from patchclamp.task.words import NAMES, PLACES, THINGS

OPENINGS = (
    "When {A} and {B} went to the {place}, ",
    "After {A} and {B} had lunch at the {place}, ",
    "While {A} and {B} were waiting at the {place}, ",
    "Then, {A} and {B} took a long walk to the {place}, and ",
    "Because {A} and {B} were old friends, ",
    "As soon as {A} and {B} came home from the {place}, ",
    "One morning {A} saw {B} at the {place}, and ",
    "At the {place}, {A} sat down next to {B}, and ",
    "Before {A} and {B} left the {place}, ",
    "Last week {A} visited {B} near the {place}, and ",
    "Since {A} and {B} both work at the {place}, ",
    "On the way to the {place}, {A} and {B} had an argument, but in the end ",
)
GIFTS = (
    "{S} gave a {thing} to {IO}",
    "{S} gave the {thing} to {IO}",
    "{S} handed the {thing} to {IO}",
    "{S} sold a {thing} to {IO}",
    "{S} showed the {thing} to {IO}",
    "{S} brought a {thing} to {IO}",
    "{S} decided to give the {thing} to {IO}",
    "{S} wanted to give a {thing} to {IO}",
    "{S} bought a {thing} for {IO}",
    "{S} said goodbye to {IO}",
)
TEMPLATES = tuple(opening + gift for opening in OPENINGS for gift in GIFTS)
ORDERS = ("ABBA", "BABA")
"""Whether the receiver (A) or the giver (B) is named first."""
CORRUPTIONS = ("swap", "third", "names")


def ioi(
    rng: Random, corruption: str = "swap", orders: Sequence[str] = ORDERS, templates: Sequence[str] = TEMPLATES
) -> Iterator[Pair]:
    """`When Mary and John went to the store, John gave a drink to` -> ` Mary`, and not ` John`.

    In `corrupt`, by `corruption`: "swap", the receiver gives, so that the answers change places; "third", someone else gives,
    so that both are as good; "names", three other people. Roles: IO, S1 (first mention of the giver), S2 (second mention).

    >>> pair = next(ioi(Random(0), orders=["BABA"]))
    >>> pair.roles["S1"] < pair.roles["IO"] < pair.roles["S2"]
    True
    """
    known("corruption", corruption, CORRUPTIONS)
    for order in orders:
        known("orders", order, ORDERS)
    while True:
        receiver, giver, *others = rng.sample(NAMES, 5)
        template, first = rng.choice(templates), rng.choice(orders)[0] == "A"
        scene = {"place": rng.choice(PLACES), "thing": rng.choice(THINGS)}
        names = {
            "swap": (receiver, giver, receiver),
            "third": (receiver, giver, others[2]),
            "names": tuple(others),
        }[corruption]
        slots = {"IO": "A" if first else "B", "S1": "B" if first else "A", "S2": "S"}
        clean, corrupt = (scene | dict(zip(slots.values(), cast)) for cast in ((receiver, giver, giver), names))
        yield ask(before(template, "IO"), clean, corrupt, slots, [receiver], [giver], template)
