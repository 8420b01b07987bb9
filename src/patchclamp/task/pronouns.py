"""Gendered pronouns: a name has a gender, and `she`, `her` and `herself` follow it.

Mathwin et al. 2023, "Identifying a preliminary circuit for predicting gendered pronouns in GPT-2 small"; the first template
has the form of theirs. What a model makes of a name is what its corpus made of it: the pair asks for that, and for no truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from patchclamp.core.pair import Pair
from patchclamp.specimens.town.item import before
from patchclamp.specimens.town.lexicon import PRONOUNS
from patchclamp.task.template import ask
from patchclamp.task.words import FEMALE, MALE, PLACES, THINGS

TEMPLATES = (
    "So {A} is such a good {person}, isn't {she}",
    "Everyone knows that {A} is a great {person}, doesn't {she}",
    "Yesterday {A} stayed at home because {she}",
    "Later {A} said that {she}",
    "I asked {A} whether {she}",
    "When {A} came home from the {place}, {she}",
    "On Monday {A} went to the {place} and lost {her}",
    "At the {place}, {A} forgot {her}",
    "I saw that {A} had left {her}",
    "In the mirror {A} looked at {herself}",
    "Today {A} bought a {thing} for {herself}",
    "The old house was built by {A} all by {herself}",
)
FORMS = ("she", "her", "herself")
PEOPLE = ("friend", "teacher", "doctor", "student", "singer", "driver", "writer", "leader", "artist", "lawyer")


def pronouns(rng: Random, templates: Sequence[str] = TEMPLATES) -> Iterator[Pair]:
    """`So Mary is such a good friend, isn't` -> ` she`, and not ` he`; `corrupt` has a name of the other gender.

    `kind` is the form asked for: "she", "her" or "herself". Role: name.

    >>> pair = next(pronouns(Random(2)))
    >>> pair.clean, pair.answer, pair.wrong
    ("So Carl is such a good lawyer, isn't", ' he', ' she')
    """
    while True:
        template = rng.choice(templates)
        form = next(form for form in FORMS if "{" + form + "}" in template)
        cast = [("female", rng.choice(FEMALE)), ("male", rng.choice(MALE))]
        (gender, name), (contrary, other) = rng.sample(cast, 2)
        right, wrong = PRONOUNS[gender][form], PRONOUNS[contrary][form]
        scene = {"place": rng.choice(PLACES), "thing": rng.choice(THINGS), "person": rng.choice(PEOPLE)}
        prompt = before(template, form)
        yield ask(prompt, scene | {"A": name}, scene | {"A": other}, {"name": "A"}, [right], [wrong], form)
