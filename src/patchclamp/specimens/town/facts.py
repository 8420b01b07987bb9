"""What is known of the residents, said in many ways, some of which are only ever used for testing.

A fact is (resident, relation, value), as in the studies of factual recall and of editing (Meng et al. 2022; Geva et al.
2023). Every relation has nine to twelve templates that training uses with all residents, and two that no training document
uses; these are built from words and turns that occur elsewhere, so they can be understood but not have been memorised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, before, fill, may_meet
from patchclamp.specimens.town.lexicon import ATTRIBUTES, PRONOUNS, TOWN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import Resident, World


@dataclass(frozen=True)
class Relation:
    """One kind of fact. In its templates `{X}` is the resident and `{value}` what is true of them."""

    name: str
    """Also the name of the field of `Resident`."""
    templates: tuple[str, ...]
    """The first two can follow "that": they begin with the resident."""
    held_out: tuple[str, ...]
    question: str

    @property
    def values(self) -> tuple[str, ...]:
        return ATTRIBUTES[self.name]

    def of(self, resident: Resident) -> str:
        return getattr(resident, self.name)


RELATIONS = (
    Relation(
        "job",
        (
            "{X} works as a {value}.",
            "{X} earns money as a {value}.",
            "By trade, {X} is a {value}.",
            "The job of {X} is that of a {value}.",
            "{X} has been a {value} for many years.",
            "If you visit {X} at work, you will meet a {value}.",
            "At work, {X} is known as a good {value}.",
            "At work, {X} is a {value}.",
            "By trade, {X} has been a {value} for many years.",
        ),
        ("By trade, {X} works as a {value}.", "At work, {X} earns money as a {value}."),
        "What is the job of {X}? {She} works as a {value}.",
    ),
    Relation(
        "street",
        (
            "{X} lives in {value} Street.",
            "{X} has a house in {value} Street.",
            "The house of {X} stands in {value} Street.",
            "You will find {X} at home in {value} Street.",
            "Letters for {X} go to {value} Street.",
            "After work, {X} walks home to {value} Street.",
            "For many years, the house of {X} has stood in {value} Street.",
            "For many years, {X} has lived in {value} Street.",
            "After work, {X} is at home in {value} Street.",
            "In the evening, you will find {X} at home in {value} Street.",
            "After work, you will meet {X} in {value} Street.",
            "For many years, {X} has walked home to {value} Street.",
        ),
        (
            "After work, you will find {X} at home in {value} Street.",
            "For many years, {X} has had a house in {value} Street.",
        ),
        "Where does {X} live? In {value} Street.",
    ),
    Relation(
        "home",
        (
            "{X} was born in {value}.",
            "{X} comes from {value}.",
            "{X} grew up in {value}.",
            "The home town of {X} is {value}.",
            "As a child, {X} lived in {value}.",
            "The family of {X} comes from {value}.",
            "{X} went to school in {value}.",
            "As a child, {X} grew up in {value}.",
            "As a child, {X} came home from school in {value}.",
            "The family of {X} lived in {value}.",
        ),
        ("As a child, {X} went to school in {value}.", "The family of {X} grew up in {value}."),
        "Where was {X} born? In {value}.",
    ),
    Relation(
        "instrument",
        (
            "{X} plays the {value}.",
            "{X} is learning to play the {value}.",
            "In the evening, {X} plays the {value}.",
            "At home, {X} practises on the {value}.",
            "The instrument of {X} is the {value}.",
            "When there is music, {X} brings the {value}.",
            "Nobody plays the {value} like {X}.",
            "When there is music, {X} plays the {value}.",
            "At home, {X} plays the {value}.",
        ),
        ("When there is music in the evening, {X} plays the {value}.", "In the evening, {X} practises on the {value}."),
        "What does {X} play? The {value}.",
    ),
    Relation(
        "pet",
        (
            "{X} has a pet {value}.",
            "{X} looks after a {value}.",
            "The pet of {X} is a {value}.",
            "At night, {X} feeds the {value}.",
            "In the yard of {X} there is a {value}.",
            "{X} would never sell the {value}.",
            "In the yard, {X} keeps a {value}.",
            "At home, {X} looks after a {value}.",
            "In the yard, {X} feeds the {value}.",
        ),
        ("In the yard, {X} looks after a {value}.", "At home, {X} has a pet {value}."),
        "What kind of pet does {X} have? A {value}.",
    ),
    Relation(
        "food",
        (
            "{X} likes to eat {value}.",
            "{X} never says no to {value}.",
            "The favourite food of {X} is {value}.",
            "For dinner, {X} cooks {value}.",
            "At the market, {X} always buys {value}.",
            "Nothing tastes better to {X} than {value}.",
            "{X} eats a lot of {value}.",
            "For dinner, {X} always buys {value}.",
            "At the market, {X} likes to eat {value}.",
        ),
        ("For dinner, {X} likes to eat {value}.", "At the market, {X} never says no to {value}."),
        "What does {X} like to eat? Mostly {value}.",
    ),
)
PREFACES = (
    f"Everyone in {TOWN} knows that ",
    "People say that ",
    "I have heard that ",
    "The {job} told me that ",
)
WORDING = (
    *(template for relation in RELATIONS for template in (*relation.templates, *relation.held_out, relation.question)),
    *PREFACES,
    "Street",
)


def document(world: World, rng: Random) -> str:
    """A short life of one resident, or facts about several."""
    if rng.random() < 0.5:
        return life(world.someone(rng), rng)
    return " ".join(sentence(one, rng.choice(RELATIONS), rng) for one in company(world, rng, rng.randint(1, 4)))


def life(resident: Resident, rng: Random) -> str:
    """Several facts of one resident in random order; after the first sentence a pronoun may stand for the name."""
    sentences = []
    for relation in rng.sample(RELATIONS, rng.randint(2, 5)):
        text = sentence(resident, relation, rng)
        if sentences and text.startswith(resident.name + " ") and rng.random() < 0.6:
            text = PRONOUNS[resident.gender]["She"] + text.removeprefix(resident.name)
        sentences.append(text)
    return " ".join(sentences)


def sentence(resident: Resident, relation: Relation, rng: Random) -> str:
    """One fact in a training template, sometimes as a question, sometimes as something heard."""
    style = rng.random()
    template = rng.choice(relation.templates)
    if style < 0.15:
        template = relation.question
    elif style < 0.3 and template.startswith("{X}"):
        template = rng.choice(PREFACES).format(job=rng.choice(ATTRIBUTES["job"])) + template
    return template.format(X=resident.name, value=relation.of(resident), **PRONOUNS[resident.gender])


def company(world: World, rng: Random, size: int) -> list[Resident]:
    """Residents whose first names may meet in a training document."""
    while True:
        people = [world.someone(rng) for _ in range(size)]
        if may_meet([one.first for one in people]):
            return people


def facts(world: World, rng: Random, held_out: bool = True) -> Iterator[Item]:
    """`Mary Holt works as a` -> ` doctor`; `corrupt` asks about someone of whom something else is true.

    `held_out` is about the template; every resident is known. Positions: subject (its surname), end.
    """
    while True:
        relation = rng.choice(RELATIONS)
        one, other = rng.sample(world.residents, 2)
        if relation.of(one) == relation.of(other):
            continue
        templates = relation.held_out if held_out else relation.templates
        askable = [template for template in templates if "{X}" in before(template, "value")]
        yield ask(relation, rng.choice(askable), one, other)


def ask(relation: Relation, template: str, one: Resident, other: Resident) -> Item:
    """The item of one template about `one`; what is true of `other` is the wrong answer."""
    prompt = before(template, "value")
    clean, positions = fill(prompt, X=one.name, **PRONOUNS[one.gender])
    corrupt, _ = fill(prompt, X=other.name, **PRONOUNS[other.gender])
    others = [value for value in relation.values if value not in (relation.of(one), relation.of(other))]
    positions = {"subject": positions["X"], "end": positions["end"]}
    return Item(
        clean=clean,
        answers=(f" {relation.of(one)}",),
        wrongs=(f" {relation.of(other)}", *(f" {value}" for value in others)),
        corrupt=corrupt,
        positions=positions,
        kind=relation.name,
        held_out=template in relation.held_out,
    )
