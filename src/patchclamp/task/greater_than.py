"""Greater-than: what began in 1732 did not end before 1733, so any larger pair of digits may follow.

Hanna et al. 2023, "How does GPT-2 compute greater-than?". A year has to be two tokens, the century and two digits. GPT-2 cuts
many in another way (1861 is one token, 1503 is 150 and 3); the two centuries here are those in which only the round year is
not cut so, and therefore `wrongs` begin at 01.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from patchclamp.core.pair import Pair
from patchclamp.specimens.town.item import before
from patchclamp.specimens.town.lexicon import TWO_DIGITS
from patchclamp.task.template import fill
from patchclamp.task.words import EVENTS

TEMPLATES = (
    "The {event} lasted from the year {century}{start} to the year {century}{finish}",
    "The {event} began in the year {century}{start} and ended in the year {century}{finish}",
    "The {event} of {century}{start} was not over before {century}{finish}",
    "From {century}{start} until {century}{finish}",
    "It was {century}{start} when the {event} began, and when it ended it was {century}{finish}",
    "Nobody thought in {century}{start} that the {event} would go on until {century}{finish}",
)
CENTURIES = ("16", "17")


def greater_than(rng: Random, templates: Sequence[str] = TEMPLATES, centuries: Sequence[str] = CENTURIES) -> Iterator[Pair]:
    """`The war lasted from the year 1732 to the year 17` -> `33`, `34`, ... `99`; wrong are `32`, `31`, ... `01`.

    `corrupt` begins in the year 01, as in the paper, so that nearly everything may follow. Role: start (the two digits).

    >>> pair = next(greater_than(Random(0)))
    >>> pair.clean[slice(*pair.roles["start"])] < min(pair.answers), pair.wrong == pair.clean[slice(*pair.roles["start"])]
    (True, True)
    """
    while True:
        start, template = rng.randrange(2, 99), rng.choice(templates)
        slots = {"event": rng.choice(EVENTS), "century": rng.choice(centuries)}
        prompt = before(template, "finish")
        (clean, where), (corrupt, _) = (fill(prompt, slots | {"start": digits}) for digits in (TWO_DIGITS[start], "01"))
        later, earlier = TWO_DIGITS[start + 1 :], TWO_DIGITS[1 : start + 1]
        yield Pair(clean, corrupt, later, earlier[::-1], {"start": where["start"]}, kind=template)
