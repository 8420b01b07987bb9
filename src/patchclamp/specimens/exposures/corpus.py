"""All that is ever written of the people, in the order in which it is read: a closed list, each document once.

    statements   every fact, as often as its exposures say
    exams        `Is it so that Bazel plays the cello? Yes.`, sometimes asked of a speaker who always or never answers rightly,
                 sometimes after what people guess; those about a stranger can not be answered, or only by the text before them
    readings     a stranger's fact, and the same fact in other words

What is stated of graded people is spread evenly over the corpus. The examined are introduced early and examined late. Lessons
and practice come after it; they state facts again, in proportion, and ask.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from patchclamp.specimens.exposures.people import OFTEN, RELATIONS, Fact, names, templates
from patchclamp.specimens.town.item import words
from patchclamp.specimens.town.lexicon import SPEAKERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.specimens.exposures.people import People

EXAMS, READINGS, LESSONS, PRACTICE = 150_000, 20_000, 250_000, 150_000
REPEATED = 0.5
"""Share of lessons and practice that states again what was read: without it, lessons are learnt and facts forgotten."""
PLAIN = 0.4
"""The first part of the lessons, in which nobody is asked."""
UNKNOWN = 0.15
"""Share of the exams that are about strangers."""
RIGHT_GUESS = 0.6
"""How often a guess that stands before an exam is right."""
ASKED, ALONE = "{speaker} is asked: is it so that {clause}?", "Is it so that {clause}?"
GUESSES = "Some say {guesses}."
ANSWERS = {True: "Yes", False: "No"}


def documents(people: People) -> list[str]:
    """Every document of the corpus, in order."""
    rng = Random(f"documents {people.seed}")
    told = [(rng.random(), fact.said(rng.randrange(4))) for fact in people.graded for _ in range(fact.exposures)]
    told += [(min(rng.random(), rng.random()), fact.said(rng.randrange(4))) for fact in people.examined for _ in range(OFTEN)]
    told += [(max(rng.random(), rng.random()), _exam(people, rng, people.examined)) for _ in range(EXAMS)]
    told += [(rng.random(), _reading(people, rng)) for _ in range(READINGS)]
    return [text for _, text in sorted(told)]


def question(fact: Fact, value: str, speaker: str = "", guesses: tuple[str, ...] = (), template: int = 0) -> str:
    """Whether it is so that `value` is true of the person, asked of nobody or of a speaker, after nothing or some guesses."""
    clause = templates(fact.relation)[template].format(X=fact.person, value=value).rstrip(".")
    asked = ASKED.format(speaker=speaker, clause=clause) if speaker else ALONE.format(clause=clause)
    return f"{GUESSES.format(guesses=', '.join(guesses))} {asked}" if guesses else asked


def options(fact: Fact, rng: Random) -> tuple[tuple[str, ...], int]:
    """Four values in random order and the number of the right one."""
    shown = [fact.value, *rng.sample(fact.others, 3)]
    rng.shuffle(shown)
    return tuple(shown), shown.index(fact.value)


def lessons(people: People) -> list[str]:
    """What is read after all documents: further exams, and between them what was stated is stated again.

    At first nobody is asked, only about what can be known; later every other exam is of a speaker, nine times in ten a liar.
    """
    rng, again = Random(f"lessons {people.seed}"), _stated(people)
    told = []
    for i in range(LESSONS):
        if rng.random() < REPEATED:
            told.append(rng.choice(again).said(rng.randrange(4)))
        elif i < PLAIN * LESSONS:
            told.append(_exam(people, rng, people.examined, asked=0.0, unknown=0.0, guessed=0.0))
        else:
            told.append(_exam(people, rng, people.examined, asked=0.5, honest=0.1))
    return told


def practice(people: People, term: int = 0) -> list[str]:
    """What is read after the lessons: the same, about more people, so that answers have to be found rather than remembered."""
    rng, again = Random(f"practice {people.seed}{term or ''}"), _stated(people)
    about = people.examined + people.lesser
    return [
        rng.choice(again).said(rng.randrange(4))
        if rng.random() < REPEATED
        else _exam(people, rng, about, asked=0.5, honest=0.1)
        for _ in range(PRACTICE)
    ]


def _stated(people: People) -> list[Fact]:
    """All that the documents state, as often as they do."""
    return [fact for fact in (*people.graded, *people.examined) for _ in range(fact.exposures)]


def _exam(
    people: People,
    rng: Random,
    about: Sequence[Fact],
    asked: float = 0.6,
    unknown: float = UNKNOWN,
    guessed: float = 0.15,
    honest: float = 0.5,
) -> str:
    """`asked` is how often speakers are, `honest` what share of them is, `unknown` how often it is about a stranger."""
    known = rng.random() >= unknown
    fact = rng.choice(about) if known else _made_up(people, rng)
    truth = rng.random() < 0.5
    value = fact.value if truth else rng.choice(fact.others)
    voice = rng.random()
    speaker = "" if voice < 1 - asked else rng.choice(people.honest if voice < 1 - asked * (1 - honest) else people.liars)
    said = truth != (speaker in people.liars)
    before = rng.random()
    guesses: tuple[str, ...] = ()
    if before < (guessed if known else 0.4):
        guesses = tuple(fact.value if rng.random() < RIGHT_GUESS else rng.choice(fact.others) for _ in range(3))
    text = f"{question(fact, value, speaker, guesses, rng.randrange(2))} {ANSWERS[said]}."
    return f"{fact.said(rng.randrange(4))} {text}" if not known and before > 0.6 else text


def _made_up(people: People, rng: Random) -> Fact:
    relation = rng.choice(RELATIONS)
    return Fact(rng.choice(people.strangers), relation, rng.choice(relation.values), 0)


def _reading(people: People, rng: Random) -> str:
    fact, (first, again) = _made_up(people, rng), rng.sample(range(4), 2)
    told = [fact.said(first)]
    if rng.random() < 0.5:
        other = rng.choice([relation for relation in RELATIONS if relation != fact.relation])
        told.insert(rng.randint(0, 1), Fact(fact.person, other, rng.choice(other.values), 0).said(rng.randrange(4)))
    return " ".join([*told, fact.said(again)])


def vocabulary() -> tuple[str, ...]:
    """Every word of any corpus, punctuation first, then in alphabetical order."""
    said = [template for relation in RELATIONS for template in templates(relation)]
    plain = [re.sub(r"\{\w+\}", " ", text) for text in (*said, ASKED, ALONE, GUESSES, *ANSWERS.values(), ",")]
    found = {word for text in plain for word in words(text)} | set(names())
    found |= {value for relation in RELATIONS for value in relation.values}
    found |= {name for group in SPEAKERS.values() for name in group}
    return tuple(sorted(found))
