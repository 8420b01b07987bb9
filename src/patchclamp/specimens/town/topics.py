"""Documents that stay with one subject: baking, sailing, music ... , each with words that no other subject uses.

A topic can be read off any document by counting `TOPICS[name].words`; a probe, a feature or a steering vector for it is
scored the same way. Half of the documents name their topic first. Nothing is held out: documents are drawn afresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, words
from patchclamp.specimens.town.lexicon import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import World

TITLE = "A few words about {topic}."
SENTENCES = (
    "The {person} {act} the {object}.",
    "The {person} {act} the {object} near the {thing}.",
    "The {thing} was {adjective}.",
    "Next to the {thing} there was the {other}.",
    "Everyone talked about the {thing}.",
    "The {person} asked for the {thing}.",
    "All day long the {person} {act} the {object}.",
    "Without the {thing} the {person} could do nothing.",
    "The {person} looked at the {adjective} {thing}.",
)
CLOSING = "The {person} asked for the"
WORDING = (TITLE, *SENTENCES)


def document(world: World, rng: Random) -> str:
    return essay(rng.choice(tuple(TOPICS)), rng.random() < 0.5, rng.randint(2, 6), rng)


def essay(topic: str, titled: bool, length: int, rng: Random) -> str:
    """Some sentences on one topic."""
    sentences = [_said(rng.choice(SENTENCES), topic, rng) for _ in range(length)]
    return " ".join([TITLE.format(topic=topic)] * titled + sentences)


def topic(world: World, rng: Random) -> Iterator[Item]:
    """A few sentences and the beginning of another -> any thing of their topic.

    There is no corrupt prompt: a topic is in every word. `kind` is the topic. Positions: end.
    """
    while True:
        name = rng.choice(tuple(TOPICS))
        told = essay(name, rng.random() < 0.5, rng.randint(1, 4), rng)
        closing = CLOSING.format(person=rng.choice(TOPICS[name].people))
        text = f"{told} {closing}"
        answers = tuple(f" {thing}" for thing in TOPICS[name].things)
        wrongs = tuple(f" {thing}" for other in TOPICS if other != name for thing in TOPICS[other].things)
        yield Item(text, answers, wrongs, None, {"end": len(words(text))}, name)


def _said(template: str, topic: str, rng: Random) -> str:
    subject = TOPICS[topic]
    act, thing = rng.choice(tuple(subject.acts.items()))
    things = rng.sample(subject.things, 2)
    return template.format(
        person=rng.choice(subject.people),
        act=act,
        object=thing,
        thing=things[0],
        other=things[1],
        adjective=rng.choice(subject.adjectives),
    )
