"""Subject and verb: the number of the verb is that of its subject, however many other nouns stand between them.

`The keys to the cabinet` -> ` are` (Linzen et al. 2016; Finlayson et al. 2021 for the causal study). All nouns between,
the attractors, have the number that the subject has not, so the nearest noun is always a trap.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from patchclamp.core.pair import Pair
from patchclamp.task.template import ask
from patchclamp.task.words import NOUNS, PLACES, VERBS

LEADS = ("The", "The", "The", "As usual, the", "In the morning the", "To my surprise, the", "Not far from the {place} the")
BETWEEN = ("near", "behind", "beside", "opposite", "next to", "in front of", "not far from")


def agreement(rng: Random, attractors: int = 1) -> Iterator[Pair]:
    """`The keys near the cabinet` -> ` are`, ` were`, ` have` ... and not ` is`; in `corrupt` the subject has the other number.

    The verb drawn comes first among answers and among wrongs; with it come the other verbs in that number. `kind` is
    "singular" or "plural". Roles: subject, and attractor1, attractor2, ... where there are any.

    >>> next(agreement(Random(0), attractors=2)).clean
    'In the morning the bridges opposite the box opposite the boy'
    """
    subject, traps = "{subject}", [f"attractor{i + 1}" for i in range(attractors)]
    roles = {"subject": "subject"} | {trap: trap for trap in traps}
    while True:
        noun, *others = rng.sample(tuple(NOUNS), attractors + 1)
        plural = rng.random() < 0.5
        template = " ".join([rng.choice(LEADS), subject, *(f"{rng.choice(BETWEEN)} the {{{trap}}}" for trap in traps)])
        slots = {"place": rng.choice(PLACES)} | {trap: one if plural else NOUNS[one] for trap, one in zip(traps, others)}
        clean, corrupt = ({"subject": NOUNS[noun] if many else noun} | slots for many in (plural, not plural))
        first = rng.choice(tuple(VERBS))
        verbs = (first, *(verb for verb in VERBS if verb != first))
        right, wrong = ([VERBS[verb] if many else verb for verb in verbs] for many in (plural, not plural))
        yield ask(template, clean, corrupt, roles, right, wrong, "plural" if plural else "singular")
