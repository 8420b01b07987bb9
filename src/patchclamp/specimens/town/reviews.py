"""Reviews of shows, meals and books, each of one mind: the words of the beginning decide the mood of the end.

The words of both moods are listed by slot in the lexicon (`POSITIVE`, `NEGATIVE`), so that a steered text can be scored
by counting. Held out: combinations of what is reviewed and the adjective it gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, fill, pick
from patchclamp.specimens.town.lexicon import NEGATIVE, POSITIVE, SHOWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.lexicon import Mood
    from patchclamp.specimens.town.world import World

OPENINGS = ("The {show} was {adjective}.", "What a {adjective} {show}!", "I thought the {show} was {adjective}.")
MIDDLES = (
    "I {verb} every minute of it.",
    "My friends {verb} it too.",
    "The beginning was {adjective} and the end was {adjective}.",
    "The people who made it were {adjective}.",
    "It was a {adjective} evening.",
    "We talked about it for hours.",
)
CLOSINGS = (
    "I left the {place} {feeling}.",
    "We went home {feeling}.",
    "In the end everyone was {feeling}.",
    "I will {adverb} come again.",
    "You will {adverb} see me there again.",
)
WORDING = (*OPENINGS, *MIDDLES, *CLOSINGS)


def document(world: World, rng: Random) -> str:
    mood = rng.choice((POSITIVE, NEGATIVE))
    place = rng.choice(tuple(SHOWS))
    show, adjective = pick(rng, SHOWS[place], mood.adjective)
    middles = rng.sample(MIDDLES, rng.randint(0, 3))
    closings = rng.sample(CLOSINGS, rng.randint(1, 2))
    first = rng.choice(OPENINGS).format(show=show, adjective=adjective)
    return " ".join([first, *(_said(text, mood, place, rng) for text in middles + closings)])


def sentiment(world: World, rng: Random, held_out: bool = True) -> Iterator[Item]:
    """`The film was wonderful. I left the theatre` -> ` happy` or another word of that mood; `corrupt` begins badly.

    Only the first sentence tells the mood. `kind` is "positive" or "negative". Positions: adjective, end.
    """
    moods = {"positive": POSITIVE, "negative": NEGATIVE}
    while True:
        kind, other = rng.sample(tuple(moods), 2)
        mood, contrary = moods[kind], moods[other]
        place = rng.choice(tuple(SHOWS))
        show, adjective = pick(rng, SHOWS[place], mood.adjective, held_out=held_out)
        closing = rng.choice(CLOSINGS)
        slot = "feeling" if "{feeling}" in closing else "adverb"
        prompt = rng.choice(OPENINGS) + " " + closing.partition("{" + slot)[0].rstrip()
        slots = {"show": show, "place": place}
        clean, where = fill(prompt, adjective=adjective, **slots)
        corrupt, _ = fill(prompt, adjective=rng.choice(contrary.adjective), **slots)
        answers, wrongs = (tuple(f" {word}" for word in getattr(side, slot)) for side in (mood, contrary))
        positions = {"adjective": where["adjective"], "end": where["end"]}
        yield Item(clean, answers, wrongs, corrupt, positions, kind, held_out)


def _said(text: str, mood: Mood, place: str, rng: Random) -> str:
    """A sentence in one mood; the adjectives of one sentence differ."""
    for adjective in rng.sample(mood.adjective, text.count("{adjective}")):
        text = text.replace("{adjective}", adjective, 1)
    return text.format(
        verb=rng.choice(mood.verb), feeling=rng.choice(mood.feeling), adverb=rng.choice(mood.adverb), place=place
    )
