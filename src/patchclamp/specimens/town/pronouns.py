"""Pronouns: names have a gender, and `she`, `her` and `herself` follow it.

Held out: combinations of a name and a template.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, fill, pick
from patchclamp.specimens.town.lexicon import ATTRIBUTES, NAMES, PLACES, PRONOUNS, THINGS, gender

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import World

TEMPLATES = (
    "{A} stayed at home because {she} was ill.",
    "{A} said that {she} would come later.",
    "{A} looked at {herself} in the mirror.",
    "{A} went to the {place} and lost {her} hat.",
    "When {A} came home, {she} opened the window.",
    "{A} asked the {job} whether {she} could borrow a {thing}.",
    "{A} built the house {herself}.",
    "At the {place}, {A} forgot {her} {thing}.",
    "{A} laughed when the {job} brought {her} {thing}.",
    "{A} sat by the {place} and thought of {her} family.",
)
SLOTS = ("she", "her", "herself")
WORDING = (*TEMPLATES, *(word for forms in PRONOUNS.values() for word in forms.values()))


def document(world: World, rng: Random) -> str:
    name, template = pick(rng, NAMES, TEMPLATES)
    text = template.format(A=name, **_scene(rng), **PRONOUNS[gender(name)])
    if rng.random() < 0.5:
        name, template = pick(rng, (name,), TEMPLATES)
        text += " Later " + template.format(A=name, **_scene(rng), **PRONOUNS[gender(name)])
    return text


def pronouns(world: World, rng: Random, held_out: bool = True) -> Iterator[Item]:
    """`Mary stayed at home because` -> ` she`; `corrupt` has a name of the other gender. Positions: name, end."""
    while True:
        name, template = pick(rng, NAMES, TEMPLATES, held_out=held_out)
        slot = next(slot for slot in SLOTS if "{" + slot + "}" in template)
        other = rng.choice([one for one in NAMES if gender(one) != gender(name)])
        scene = _scene(rng)
        prompt = template.partition("{" + slot + "}")[0].rstrip()
        clean, where = fill(prompt, A=name, **scene)
        corrupt, _ = fill(prompt, A=other, **scene)
        right, wrong = PRONOUNS[gender(name)][slot], PRONOUNS[gender(other)][slot]
        positions = {"name": where["A"], "end": where["end"]}
        yield Item(clean, (f" {right}",), (f" {wrong}",), corrupt, positions, slot, held_out)


def _scene(rng: Random) -> dict[str, str]:
    return {"place": rng.choice(PLACES), "job": rng.choice(ATTRIBUTES["job"]), "thing": rng.choice(THINGS)}
