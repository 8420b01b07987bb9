"""What the bundled town can be asked, as pairs: its items, with the words that play a role in place of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from random import Random
from typing import Any

from patchclamp.core.pair import END, Pair, Stretch
from patchclamp.specimens.town.item import Item, words
from patchclamp.specimens.town.tasks import TASKS as ITEMS
from patchclamp.specimens.town.world import town

Stream = Callable[..., Iterator[Pair]]


def as_pair(item: Item) -> Pair:
    """The pair of an item. A role of two words, a resident's full name, is the second of them, as it is in the item.

    >>> from patchclamp.specimens.town.gifts import classic
    >>> as_pair(classic()).roles
    {'IO': (5, 9), 'S1': (14, 18), 'S2': (38, 42)}
    """
    roles, corrupt_roles = ({} if text is None else _roles(text, item) for text in (item.clean, item.corrupt))
    return Pair(item.clean, item.corrupt, item.answers, item.wrongs, roles, corrupt_roles, item.kind)


def _roles(text: str, item: Item) -> dict[str, Stretch]:
    stretches, stop = [], 0
    for word in words(text):
        start = text.index(word, stop)
        stop = start + len(word)
        stretches.append((start, stop))
    # Positions count <bos>, which is not in the text. Clean and corrupt have as many words, one by one.
    return {role: stretches[position - 1] for role, position in item.positions.items() if role != END}


def _pairs(task: Callable[..., Iterator[Item]]) -> Stream:
    """The same task, yielding pairs, asked of the town that the bundled model grew up in."""

    @wraps(task)
    def stream(rng: Random, **options: Any) -> Iterator[Pair]:
        return map(as_pair, task(town(0), rng, **options))

    return stream


TASKS: dict[str, Stream] = {f"town/{name}": _pairs(task) for name, task in ITEMS.items()}
"""All of its tasks. `town/topic` alone has no corrupt prompts: a topic is in every word."""
