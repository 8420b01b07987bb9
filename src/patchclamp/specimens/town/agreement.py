"""Subject and verb: the number of the verb is that of its subject, however many other nouns stand between them.

`The keys to the old cabinet near the window are ...` (Linzen et al. 2016). In training the nouns between have any
number; in test items all of them have the other one, so the nearest noun is always a trap. Held out: combinations of a
subject and a verb, which never meet in any sentence of this kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, fill, pick
from patchclamp.specimens.town.lexicon import ATTRIBUTES, LOOKS, NOUNS, PLACES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import World

VERBS = {
    "is": ("are", "{look}."),
    "was": ("were", "{look}."),
    "has": ("have", "been there for years."),
    "looks": ("look", "{look}."),
    "seems": ("seem", "{look} today."),
    "needs": ("need", "some care."),
    "belongs": ("belong", "to the {job}."),
    "stays": ("stay", "in the same place."),
}
"""Singular form: the plural form, and how the sentence can go on."""
LEADS = (
    "",
    "",
    "",
    "In the morning, ",
    "As usual, ",
    "At the {place}, ",
    "As everyone knows, ",
    "To my surprise, ",
    "Not far from the {place}, ",
    "According to the {job}, ",
)
BETWEEN = ("near", "behind", "beside", "under", "above", "opposite", "next to", "in front of")
OWN = {"key": "to", "road": "to", "gate": "to", "door": "to", "picture": "of", "box": "of"}
"""What some nouns go with: the keys *to* the cabinets."""
WORDING = (*VERBS, *(word for forms in VERBS.values() for word in forms), *LEADS, *BETWEEN, *OWN.values(), "The the")


def document(world: World, rng: Random) -> str:
    return " ".join(sentence(rng) for _ in range(rng.choice((1, 1, 2, 3))))


def sentence(rng: Random) -> str:
    """One sentence with up to three nouns between subject and verb, each of either number."""
    noun, verb = pick(rng, tuple(NOUNS), tuple(VERBS))
    attractors = rng.choice((0, 0, 1, 1, 2, 2, 2, 3))
    plural, *others = (rng.random() < 0.5 for _ in range(attractors + 1))
    other_form, rest = VERBS[verb]
    text = " ".join([_subject(rng, noun, others), other_form if plural else verb, rest])
    return text.format(noun=NOUNS[noun] if plural else noun, **_scene(rng, noun))


def agreement(world: World, rng: Random, held_out: bool = True, attractors: int = 2) -> Iterator[Item]:
    """`The keys to the cabinet near the window` -> ` are`; in `corrupt` the subject has the other number.

    All `attractors` have the number that the subject has not. Positions: subject, end.
    """
    while True:
        noun, verb = pick(rng, tuple(NOUNS), tuple(VERBS), held_out=held_out)
        plural = rng.random() < 0.5
        template = _subject(rng, noun, [not plural] * attractors)
        scene = _scene(rng, noun)
        forms = (NOUNS[noun], noun) if plural else (noun, NOUNS[noun])
        verbs = (VERBS[verb][0], verb) if plural else (verb, VERBS[verb][0])
        clean, where = fill(template, noun=forms[0], **scene)
        corrupt, _ = fill(template, noun=forms[1], **scene)
        positions = {"subject": where["noun"], "end": where["end"]}
        kind = "plural" if plural else "singular"
        yield Item(clean, (f" {verbs[0]}",), (f" {verbs[1]}",), corrupt, positions, kind, held_out)


def _subject(rng: Random, subject: str, others: list[bool]) -> str:
    """Everything before the verb; `others` says of each noun between whether it is plural."""
    lead = rng.choice(LEADS)
    text = lead + ("the" if lead else "The") + (" {look}" if rng.random() < 0.2 else "") + " {noun}"
    nouns = rng.sample([noun for noun in NOUNS if noun != subject], len(others))
    for i, (noun, plural) in enumerate(zip(nouns, others)):
        link = "{own}" if i == 0 and rng.random() < 0.5 else rng.choice(BETWEEN)
        look = f" {rng.choice(LOOKS)}" if rng.random() < 0.4 else ""
        text += f" {link} the{look} {NOUNS[noun] if plural else noun}"
    return text


def _scene(rng: Random, noun: str) -> dict[str, str]:
    return {
        "look": rng.choice(LOOKS),
        "own": OWN.get(noun, "near"),
        "place": rng.choice(PLACES),
        "job": rng.choice(ATTRIBUTES["job"]),
    }
