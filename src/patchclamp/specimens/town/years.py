"""Years: what began in 1732 did not end before 1733 (the greater-than task of Hanna et al. 2023).

A year is two tokens, the century and the two digits after it, so that with the century given again the next token must
be a larger number. Every later year is equally likely. Held out: combinations of a century and a first year, and one
template.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, before, fill, reserved
from patchclamp.specimens.town.lexicon import CENTURIES, EVENTS, TWO_DIGITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import World

TEMPLATES = (
    "The {event} lasted from the year {century}{start} to the year {century}{finish}.",
    "The {event} began in {century}{start} and ended in {century}{finish}.",
    "The {event} of {century}{start} was not over before {century}{finish}.",
    "From {century}{start} until {century}{finish} there was a {event}.",
    "Between {century}{start} and {century}{finish} people spoke of the great {event}.",
    "It was {century}{start} when the {event} began, and {century}{finish} when it ended.",
    "In {century}{start} nobody thought that the {event} would go on until {century}{finish}.",
    "The first {event} was in {century}{start} and the last one in {century}{finish}.",
    "The great {event} of {century}{start} ended in the year {century}{finish}.",
    "In the year {century}{start} there was a {event}, and in the year {century}{finish} there was another.",
    "The old {event} started in {century}{start} and was over by {century}{finish}.",
)
HELD_OUT = ("The great {event} began in the year {century}{start} and was over in the year {century}{finish}.",)
REMARKS = (
    "Few people remember it.",
    "My family still talks about it.",
    "The old books tell us so.",
    "It cost the town a lot of money.",
)
WORDING = (*TEMPLATES, *HELD_OUT, *REMARKS)


def document(world: World, rng: Random) -> str:
    sentences = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        century, start = _beginning(rng, held_out=False)
        finish = rng.choice(TWO_DIGITS[int(start) + 1 :])
        sentences.append(rng.choice(TEMPLATES).format(event=rng.choice(EVENTS), century=century, start=start, finish=finish))
    if rng.random() < 0.4:
        sentences.append(rng.choice(REMARKS))
    return " ".join(sentences)


def greater_than(world: World, rng: Random, held_out: bool = True, templates: tuple[str, ...] = TEMPLATES) -> Iterator[Item]:
    """`The fair lasted from the year 1732 to the year 17` -> any two digits above 32.

    `corrupt` begins in the year 01, as in the paper, so that nearly everything may follow; `wrongs` are the numbers up
    to the first year. `held_out` is about century and year. Positions: start (the two digits), end.
    """
    while True:
        century, start = _beginning(rng, held_out)
        template = rng.choice(templates)
        prompt = before(template, "finish")
        slots = {"event": rng.choice(EVENTS), "century": century}
        clean, where = fill(prompt, start=start, **slots)
        corrupt, _ = fill(prompt, start="01", **slots)
        later, earlier = TWO_DIGITS[int(start) + 1 :], TWO_DIGITS[: int(start) + 1]
        positions = {"start": where["start"], "end": where["end"]}
        unseen = held_out or template in HELD_OUT
        yield Item(clean, later, earlier[::-1], corrupt, positions, template, unseen)


def _beginning(rng: Random, held_out: bool) -> tuple[str, str]:
    """A century and a year of it, 02 to 98 in tests and 00 to 98 in training."""
    while True:
        century, start = rng.choice(CENTURIES), rng.choice(TWO_DIGITS[2 if held_out else 0 : 99])
        if reserved(century, start) == held_out:
            return century, start
