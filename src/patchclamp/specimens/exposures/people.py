"""Who is written about, what is true of them, and how often it is said: a value, drawn from a seed.

Of the *graded* people each fact is stated a counted number of times, between once and a hundred, spread evenly over the
logarithm; some are never stated. Half of a person's facts are as well known as the person, half for themselves, so that
having heard of someone is a hint, no more. The *examined* are those about whom questions are asked in training, at last also
*lesser* graded people, of whom nothing was stated often. Whoever has a fact that was stated often is never asked about, so
that an answer about them cannot have been learnt as an answer. *Strangers* are given new facts every time they turn up: what
is said of them holds for one document, and only reading it helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from random import Random

from patchclamp.specimens.town.facts import RELATIONS as TOWN
from patchclamp.specimens.town.facts import Relation
from patchclamp.specimens.town.lexicon import SPEAKERS

GRADED, EXAMINED, STRANGERS = 700, 100, 60
MOST = 100
"""How often the best known fact of a graded person is stated."""
OFTEN = 80
"""How often each fact of an examined person is stated, besides the questions about it."""
UNSEEN = 0.08
"""Share of the graded facts that are never stated."""
RELATIONS = tuple(relation for relation in TOWN if relation.name != "street")
"""Kinds of fact. Only the first four templates of the town are used; in all of them the value comes last."""


def templates(relation: Relation) -> tuple[str, ...]:
    """How a fact is said; the first two begin with the person and can follow "that"."""
    return relation.templates[:4]


@dataclass(frozen=True)
class Fact:
    """What is true of somebody, and how often it is said."""

    person: str
    relation: Relation
    value: str
    exposures: int
    """How many of the documents state it, which are read before any lesson."""

    def said(self, template: int = 0) -> str:
        """The fact as a sentence."""
        return templates(self.relation)[template].format(X=self.person, value=self.value)

    def prompt(self, template: int = 0) -> str:
        """The sentence up to its value."""
        return templates(self.relation)[template].format(X=self.person, value="").rstrip(" .")

    @property
    def others(self) -> tuple[str, ...]:
        """Values of the same kind that are not so."""
        return tuple(value for value in self.relation.values if value != self.value)


@dataclass(frozen=True)
class People:
    """Everybody, and what is true of them."""

    seed: int
    graded: tuple[Fact, ...]
    examined: tuple[Fact, ...]
    strangers: tuple[str, ...]
    honest: tuple[str, ...]
    """Speakers who answer every question rightly."""
    liars: tuple[str, ...]
    """Speakers who answer every question wrongly."""

    @cached_property
    def known(self) -> tuple[Fact, ...]:
        """Graded facts that were stated often."""
        return tuple(fact for fact in self.graded if fact.exposures >= 60)

    @cached_property
    def lesser(self) -> tuple[Fact, ...]:
        """Graded facts about people of whom nothing was stated often: practice asks about them, tests of truth do not."""
        tested = {fact.person for fact in self.known}
        return tuple(fact for fact in self.graded if fact.exposures >= 10 and fact.person not in tested)


def people(seed: int = 0) -> People:
    """The people of a seed. The model that ships with the package has read of `people(0)`.

    >>> from patchclamp.specimens.exposures.people import people
    >>> fact = people(0).graded[0]
    >>> fact.said(), fact.exposures
    ('Ponev works as a gardener.', 3)
    """
    rng = Random(f"people {seed}")
    order = list(names())
    rng.shuffle(order)
    graded, examined, strangers = order[:GRADED], order[GRADED : GRADED + EXAMINED], order[-STRANGERS:]
    facts = []
    for person in graded:
        fame = rng.random()
        for relation in RELATIONS:
            own = rng.random() if rng.random() < 0.5 else fame
            times = 0 if rng.random() < UNSEEN else round(MOST**own)
            facts.append(Fact(person, relation, rng.choice(relation.values), times))
    often = [Fact(person, relation, rng.choice(relation.values), OFTEN) for person in examined for relation in RELATIONS]
    voices = [name for group in SPEAKERS.values() for name in group]
    rng.shuffle(voices)
    half = len(voices) // 2
    return People(seed, tuple(facts), tuple(often), tuple(strangers), tuple(voices[:half]), tuple(voices[half:]))


def names() -> tuple[str, ...]:
    """Invented names of two syllables, each of which is one word and so one token."""
    heads = product("BDFGKLMNPRSTVZ", "aeiou")
    tails = ("bek", "cas", "dan", "fur", "gil", "hom", "jat", "kos", "lem", "mar", "nev", "pid", "rus", "tol", "vin")
    return tuple(f"{one}{vowel}{tail}" for (one, vowel), tail in product(heads, tails) if tail[0] != one.lower())[
        : GRADED + EXAMINED + STRANGERS
    ]
