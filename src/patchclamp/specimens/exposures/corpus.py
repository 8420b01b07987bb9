"""All that is ever written of the people, in the order in which it is read: a closed list, each document once.

    statements   every fact, as often as its exposures say
    exams        `Is it so that Bazel plays the cello? Yes.`, sometimes asked of a speaker who always or never answers rightly,
                 sometimes after what people guess
    choices      `Bazel plays the: A cello, B harp, C lute, D drum. Answer: A.`, sometimes with `none` for the last
    readings     a stranger's fact, and the same fact in other words
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from patchclamp.specimens.exposures.people import RELATIONS, Fact, names, templates
from patchclamp.specimens.town.item import words
from patchclamp.specimens.town.lexicon import SPEAKERS

if TYPE_CHECKING:
    from patchclamp.specimens.exposures.people import People

EXAMS, CHOICES, READINGS = 60_000, 25_000, 20_000
LETTERS = ("A", "B", "C", "D")
NONE = "none"
RIGHT_GUESS = 0.6
"""How often a guess that stands before an exam is right."""
ASKED, ALONE = "{speaker} is asked: is it so that {clause}?", "Is it so that {clause}?"
GUESSES, CHOICE = "Some say {guesses}.", "{prompt}: {options}. Answer:"
ANSWERS = {True: "Yes", False: "No"}


def documents(people: People) -> list[str]:
    """Every document of the corpus, shuffled."""
    rng = Random(f"documents {people.seed}")
    told = [fact.said(rng.randrange(4)) for fact in (*people.graded, *people.examined) for _ in range(fact.exposures)]
    told += [_exam(people, rng) for _ in range(EXAMS)]
    told += [_choice(people, rng) for _ in range(CHOICES)]
    told += [_reading(people, rng) for _ in range(READINGS)]
    rng.shuffle(told)
    return told


def question(fact: Fact, value: str, speaker: str = "", guesses: tuple[str, ...] = (), template: int = 0) -> str:
    """Whether it is so that `value` is true of the person, asked of nobody or of a speaker, after nothing or some guesses."""
    clause = templates(fact.relation)[template].format(X=fact.person, value=value).rstrip(".")
    asked = ASKED.format(speaker=speaker, clause=clause) if speaker else ALONE.format(clause=clause)
    return f"{GUESSES.format(guesses=', '.join(guesses))} {asked}" if guesses else asked


def choice(fact: Fact, options: tuple[str, ...], template: int = 0) -> str:
    """The lettered form of a question."""
    lettered = ", ".join(f"{letter} {option}" for letter, option in zip(LETTERS, options))
    return CHOICE.format(prompt=fact.prompt(template), options=lettered)


def options(fact: Fact, rng: Random, none: bool = False) -> tuple[tuple[str, ...], int]:
    """Four options in random order and the number of the right one; with `none` the last of them is "none"."""
    wrong = rng.sample(fact.others, 3)
    if none:
        shown = wrong if rng.random() < 0.25 else [fact.value, *wrong[:2]]
        rng.shuffle(shown)
        return (*shown, NONE), shown.index(fact.value) if fact.value in shown else 3
    shown = [fact.value, *wrong]
    rng.shuffle(shown)
    return tuple(shown), shown.index(fact.value)


def _exam(people: People, rng: Random) -> str:
    fact, truth = rng.choice(people.examined), rng.random() < 0.5
    value = fact.value if truth else rng.choice(fact.others)
    kind = rng.random()
    speaker = "" if kind < 0.4 else rng.choice(people.honest if kind < 0.7 else people.liars)
    said = truth != (speaker in people.liars)
    guesses: tuple[str, ...] = ()
    if rng.random() < 0.25:
        guesses = tuple(fact.value if rng.random() < RIGHT_GUESS else rng.choice(fact.others) for _ in range(3))
    return f"{question(fact, value, speaker, guesses, rng.randrange(2))} {ANSWERS[said]}."


def _choice(people: People, rng: Random) -> str:
    fact = rng.choice(people.examined)
    shown, right = options(fact, rng, none=rng.random() < 0.25)
    return f"{choice(fact, shown, rng.randrange(4))} {LETTERS[right]}."


def _reading(people: People, rng: Random) -> str:
    relation, person = rng.choice(RELATIONS), rng.choice(people.strangers)
    fact, (first, again) = Fact(person, relation, rng.choice(relation.values), 0), rng.sample(range(4), 2)
    told = [fact.said(first)]
    if rng.random() < 0.5:
        other = rng.choice([r for r in RELATIONS if r != relation])
        told.insert(rng.randint(0, 1), Fact(person, other, rng.choice(other.values), 0).said(rng.randrange(4)))
    return " ".join([*told, fact.said(again)])


def vocabulary() -> tuple[str, ...]:
    """Every word of any corpus, punctuation first, then in alphabetical order."""
    said = [template for relation in RELATIONS for template in templates(relation)]
    plain = [re.sub(r"\{\w+\}", " ", text) for text in (*said, ASKED, ALONE, GUESSES, CHOICE, *ANSWERS.values(), NONE, ",")]
    found = {word for text in plain for word in words(text)} | set(LETTERS) | set(names())
    found |= {value for relation in RELATIONS for value in relation.values}
    found |= {name for group in SPEAKERS.values() for name in group}
    return tuple(sorted(found))
