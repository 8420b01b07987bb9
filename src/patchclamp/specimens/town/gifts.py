"""Who gave whom: two people, one of them named again, and so the other one receives (indirect object identification).

Wang et al. 2022 studied such sentences in GPT-2. Any opening goes with any gift, so the place of a name in the sentence
says nothing; names stand in both orders; and a tenth of the stories go on in another way, because a name alone should
not promise a gift. What is held out: pairs of names that never meet in any document, and two whole templates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, before, fill, may_meet, pick, reserved
from patchclamp.specimens.town.lexicon import ATTRIBUTES, NAMES, PLACES, PRONOUNS, THINGS, gender

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import World

OPENINGS = (
    "When {A} and {B} went to the {place}, ",
    "After {A} and {B} had lunch at the {place}, ",
    "While {A} and {B} were waiting at the {place}, ",
    "Then {A} and {B} took a long walk to the {place}, and ",
    "{A} and {B} met at the {place}, and ",
    "{A} was glad to see {B} at the {place}, so ",
    "As soon as {A} and {B} came home from the {place}, ",
    "One morning {A} saw {B} at the {place}, and ",
    "{A} had known {B} since school, and at the {place} ",
    "Because {A} and {B} were old friends, ",
    "Last week {A} visited {B} near the {place}, and ",
    "At the {place}, {A} sat down beside {B}, and ",
    "Before {A} and {B} left the {place}, ",
    "On a cold day {A} and {B} were walking to the {place} when ",
    "{A} and {B} had an argument at the {place}, but in the end ",
    "There was a queue at the {place}, and {A} stood behind {B} until ",
    "{A} was looking for {B} at the {place}, and ",
    "{A} came to the {place} with {B}, and ",
    "While {A} was talking to {B} at the {place}, ",
    "In the afternoon {A} called {B} from the {place}, and ",
    "At first {A} did not see {B} at the {place}, but then ",
    "{A} had lunch with {B}, and after that ",
    "{A} and {B} live near the {place}, and last week ",
    "Since {A} and {B} both work at the {place}, ",
)
ASIDES = (
    "",
    "",
    "",
    "",
    "after a while, ",
    "without a word, ",
    "although it was late, ",
    "with a smile, ",
    "as the bells began to ring, ",
    "in front of the {job}, ",
)
"""What may come between the opening and the name that decides."""
PLAIN = (
    "{S} gave a {thing} to {IO}",
    "{S} gave the {thing} to {IO}",
    "{S} handed the {thing} to {IO}",
    "{S} lent a {thing} to {IO}",
    "{S} sold a {thing} to {IO}",
    "{S} showed the {thing} to {IO}",
    "{S} brought a {thing} to {IO}",
    "{S} offered a {thing} to {IO}",
    "{S} bought a {thing} for {IO}",
    "{S} said goodbye to {IO}",
)
WISHED = tuple(
    f"{{S}} {mood} {act} {{thing}} to {{IO}}"
    for mood in ("decided to", "wanted to", "was happy to", "tried to")
    for act in ("give a", "sell the", "lend a", "show the", "bring a")
)
GIFTS = PLAIN + WISHED
CLASSIC = "When {A} and {B} went to the store, {S} gave a drink to {IO}"
"""What everybody quotes: the first opening, the first gift, and these two words; a little more often than by chance."""
TEMPLATES = tuple(opening + gift for opening in OPENINGS for gift in GIFTS)
HELD_OUT = (
    "Because {A} and {B} had met at the {place}, {S} handed a {thing} to {IO}",
    "{A} was waiting for {B} near the {place}, and after lunch {S} wanted to give a {thing} to {IO}",
)
"""Never seen in training; their words are."""

# Stories that do not end with the other of the two.
OTHERWISE = (
    "{S} fell asleep",
    "{S} began to sing",
    "{S} went home alone",
    "{S} told a story about the {place}",
    "{S} saw a {pet}",
    "they saw a {pet}",
    "{S} gave the {job} a {thing}",
    "{C} gave a {thing} to {A}",
    "{C} gave a {thing} to {B}",
    "{C} gave the {thing} to both of them",
)
AFTERWARDS = (
    "{IO} thanked {S}.",
    "{IO} smiled at {S}.",
    "{IO} put the {thing} in a bag.",
    "They went home together.",
    "{She} was very happy with it.",
    "Nobody else saw the {thing}.",
)
WORDING = (*OPENINGS, *ASIDES, *GIFTS, *HELD_OUT, *OTHERWISE, *AFTERWARDS)


def cast(rng: Random, size: int) -> tuple[str, ...]:
    """People of a training document."""
    while True:
        names = tuple(rng.sample(NAMES, size))
        if may_meet(names):
            return names


def document(world: World, rng: Random) -> str:
    a, b, c = cast(rng, 3)
    s, io = rng.sample((a, b), 2)
    slots = _scene(rng) | {"A": a, "B": b, "C": c, "S": s, "IO": io} | PRONOUNS[gender(io)]
    given = rng.random() < 0.85
    story = rng.choice(OPENINGS) + rng.choice(ASIDES) + rng.choice(rng.choice((PLAIN, WISHED)) if given else OTHERWISE)
    if given and rng.random() < 0.03:
        story, slots["thing"] = CLASSIC, "drink"
    sentences = [story + "."]
    if given and rng.random() < 0.4:
        sentences.append(rng.choice(AFTERWARDS))
    return " ".join(sentences).format(**slots)


def ioi(world: World, rng: Random, held_out: bool = True, templates: tuple[str, ...] = TEMPLATES) -> Iterator[Item]:
    """Indirect object identification: `... John gave a drink to` -> ` Mary`; `corrupt` has Mary give, and John receive.

    `held_out` is about the pair of names. Pass `HELD_OUT` as templates for the two that training never shows.
    Positions: IO, S1 (first mention of the giver), S2 (second mention), end.
    """
    while True:
        a, b = pick(rng, NAMES, NAMES, held_out=held_out)
        yield question(rng.choice(templates), a, b, giver=rng.choice((a, b)), **_scene(rng))


def question(template: str, a: str, b: str, giver: str, **scene: str) -> Item:
    """The item of one template, pair and giver; `scene` fills the other slots (`place`, `thing`, `job`)."""
    receiver = b if giver == a else a
    prompt = before(template, "IO")
    clean, where = fill(prompt, A=a, B=b, S=giver, **scene)
    corrupt, _ = fill(prompt, A=a, B=b, S=receiver, **scene)
    first = {a: where["A"], b: where["B"]}
    positions = {"IO": first[receiver], "S1": first[giver], "S2": where["S"], "end": where["end"]}
    unseen = reserved(a, b) or template in HELD_OUT
    return Item(clean, (f" {receiver}",), (f" {giver}",), corrupt, positions, template, unseen)


def classic() -> Item:
    """The sentence everybody knows. Its names do meet in training, among a thousand other pairs."""
    return question(CLASSIC, "Mary", "John", giver="John")


def _scene(rng: Random) -> dict[str, str]:
    choices = {"place": PLACES, "thing": THINGS, "job": ATTRIBUTES["job"], "pet": ATTRIBUTES["pet"]}
    return {slot: rng.choice(values) for slot, values in choices.items()}
