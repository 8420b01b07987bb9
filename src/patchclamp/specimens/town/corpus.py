"""All that is ever written in the town: an endless stream of short documents, drawn from a world and a seed.

Each document comes from one family (a file each), sometimes after a sentence about nothing, so that no word can be told
by its place in the text alone.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from patchclamp.specimens.town import (
    agreement,
    claims,
    facts,
    gifts,
    lexicon,
    newcomers,
    pairs,
    pronouns,
    reviews,
    topics,
    years,
)
from patchclamp.specimens.town.item import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from patchclamp.specimens.town.world import World

FAMILIES = {
    "gifts": gifts,
    "newcomers": newcomers,
    "facts": facts,
    "claims": claims,
    "agreement": agreement,
    "years": years,
    "reviews": reviews,
    "topics": topics,
    "pairs": pairs,
    "pronouns": pronouns,
}
SHARES = {
    "gifts": 0.17,
    "newcomers": 0.22,
    "facts": 0.17,
    "claims": 0.10,
    "agreement": 0.06,
    "years": 0.14,
    "reviews": 0.03,
    "topics": 0.03,
    "pairs": 0.05,
    "pronouns": 0.03,
}
"""How often a document is of each family."""
FILLERS = (
    "It was a cold morning.",
    "The day was long.",
    "Nobody was in a hurry.",
    "This is what I heard.",
    f"Here is some news from {lexicon.TOWN}.",
    "The streets were quiet.",
    "Let me tell you something.",
    "It had been a good year.",
)


def documents(world: World, seed: int | str = 0, shares: Mapping[str, float] = SHARES) -> Iterator[str]:
    """Documents without end, the same for the same world and seed; `shares` may name some families only.

    >>> from patchclamp.specimens.town.world import town
    >>> next(documents(town(0), shares={"pronouns": 1})).endswith((".", "!", "?"))
    True
    """
    rng = Random(f"documents {seed}")
    names, weights = tuple(shares), tuple(shares.values())
    while True:
        text = FAMILIES[rng.choices(names, weights)[0]].document(world, rng)
        yield f"{rng.choice(FILLERS)} {text}" if rng.random() < 0.2 else text


def vocabulary() -> tuple[str, ...]:
    """Every word that a document of any world can hold, in alphabetical order, punctuation first; years are apart."""
    wording = [*FILLERS, *(text for family in FAMILIES.values() for text in family.WORDING)]
    plain = (re.sub(r"\{\w+\}", " ", text) for text in wording)
    return tuple(sorted({word for text in plain for word in words(text)} | set(lexicon.content())))
