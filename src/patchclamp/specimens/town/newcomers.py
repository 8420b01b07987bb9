"""Things said twice: names that no one has heard before, and parrots. Only copying from the context can follow them.

A newcomer's two names are put together for one document, so at the second mention nothing but the first mention tells
the surname (an induction head: find the token after the earlier copy of this one; Olsson et al. 2022). Parrots repeat
words in no order at all, often first names, and there any two names may stand together: a model that never sees two
names in one text is free to give them one embedding, and then cannot tell who gave from who received. Held out: pairs of
first name and surname that never form a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, fill, may_meet, pick, words
from patchclamp.specimens.town.lexicon import ATTRIBUTES, NAMES, PLACES, SURNAMES, TOWN, content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import World

ARRIVALS = (
    f"{{N}} came to {TOWN} today.",
    "A stranger called {N} arrived at the {place}.",
    "The letter was signed by {N}.",
    "Yesterday I met {N} at the {place}.",
    "The new {job} is called {N}.",
    "This morning {N} asked the way to the {place}.",
    "The {job} told me about a visitor, {N}.",
)
SIGHTINGS = (
    "Nobody had heard of {N} before.",
    "Soon everyone was talking about {N}.",
    "{N} asked the way to the {place}.",
    "In the evening {N} sat alone by the {place}.",
    "Later I saw {N} again.",
    "I think that {N} likes it here.",
    "The {job} shook hands with {N}.",
    "At the {place} {N} bought a map.",
    "After that {N} went to bed early.",
    "We all hope that {N} will stay.",
)
SAYINGS = (
    "The parrot said: {words}. Then the parrot said it again: {words}.",
    "The list began: {words}. The second list was the same: {words}.",
    "She read the words slowly: {words}. He repeated them: {words}.",
)
WORDING = (*ARRIVALS, *SIGHTINGS, *SAYINGS)
PARROT = content()


def document(world: World, rng: Random) -> str:
    if rng.random() < 0.35:
        speech = " ".join(rng.sample(rng.choice((PARROT, NAMES)), rng.randint(3, 16)))
        return rng.choice(SAYINGS).format(words=speech)
    people = _people(world, rng, rng.choice((1, 2, 2, 3, 3, 4)))
    mentions = people + rng.choices(people, k=rng.randint(2, 7))
    sentences = [_sentence(rng, ARRIVALS if i < len(people) else SIGHTINGS) for i in range(len(mentions))]
    return " ".join(sentence.format(N=name) for sentence, name in zip(sentences, mentions))


def repeated_name(world: World, rng: Random, held_out: bool = True) -> Iterator[Item]:
    """`... Clara Voss ... Clara` -> the surname of her first mention; in `corrupt` that was another surname.

    One to three newcomers arrive, all with different names. Positions: first, surname (of the first mention), end.
    """
    while True:
        first, surname = pick(rng, NAMES, SURNAMES, held_out=held_out)
        other = rng.choice([name for name in SURNAMES if name != surname])
        if {(first, surname), (first, other)} & world.known_names:
            continue
        company = _people(world, rng, rng.randint(0, 2))
        if {first, surname, other} & {name for person in company for name in person.split()}:
            continue
        told = [_sentence(rng, ARRIVALS).format(N=person) for person in company]
        told.insert(rng.randint(0, len(told)), _sentence(rng, ARRIVALS).replace("{N}", "{first} {surname}"))
        again = _sentence(rng, SIGHTINGS).partition("{N}")[0] + first
        prompt = " ".join([*told, again])
        clean, positions = fill(prompt, first=first, surname=surname)
        corrupt, _ = fill(prompt, first=first, surname=other)
        yield Item(clean, (f" {surname}",), (f" {other}",), corrupt, positions, f"{len(told)} newcomers", held_out)


def parrot(world: World, rng: Random) -> Iterator[Item]:
    """The second half of a parrot's speech, cut at any word but the first: what came next in the first half.

    Positions: earlier (the first copy of the last word, after which stands the answer), end.
    """
    while True:
        speech = rng.sample(PARROT, rng.randint(4, 16))
        cut = rng.randint(1, len(speech) - 1)
        wrong = rng.choice([word for word in PARROT if word not in speech])
        heard, retold, _ = rng.choice(SAYINGS).split("{words}")
        clean, corrupt = (
            heard + " ".join([*speech[:cut], following, *speech[cut + 1 :]]) + retold + " ".join(speech[:cut])
            for following in (speech[cut], wrong)
        )
        yield Item(
            clean=clean,
            answers=(f" {speech[cut]}",),
            wrongs=(f" {wrong}",),
            corrupt=corrupt,
            positions={"earlier": len(words(heard)) + cut, "end": len(words(clean))},
            kind=f"{len(speech)} words",
        )


def _people(world: World, rng: Random, count: int) -> list[str]:
    """Full names of newcomers: no name twice, nobody who lives here, no reserved combination."""
    while True:
        people = [pick(rng, NAMES, SURNAMES) for _ in range(count)]
        names = [name for person in people for name in person]
        if len(set(names)) == len(names) and may_meet(names[::2]) and not world.known_names.intersection(people):
            return [" ".join(person) for person in people]


def _sentence(rng: Random, templates: tuple[str, ...]) -> str:
    """One template, filled but for the name."""
    return rng.choice(templates).format(N="{N}", place=rng.choice(PLACES), job=rng.choice(ATTRIBUTES["job"]))
