"""The tasks of the town by name: what it can be asked, as items drawn without end from a world and a seed.

>>> from patchclamp.specimens.town.world import town
>>> len(draw("agreement", town(0), 50, attractors=3))
50
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from patchclamp.specimens.town.agreement import agreement
from patchclamp.specimens.town.claims import claims, verdicts
from patchclamp.specimens.town.facts import facts
from patchclamp.specimens.town.gifts import ioi
from patchclamp.specimens.town.newcomers import parrot, repeated_name
from patchclamp.specimens.town.pairs import word_pairs
from patchclamp.specimens.town.pronouns import pronouns
from patchclamp.specimens.town.reviews import sentiment
from patchclamp.specimens.town.topics import topic
from patchclamp.specimens.town.years import greater_than

if TYPE_CHECKING:
    from typing import Any

    from patchclamp.specimens.town.item import Item
    from patchclamp.specimens.town.world import World

TASKS = {
    "ioi": ioi,
    "repeated_name": repeated_name,
    "parrot": parrot,
    "facts": facts,
    "claims": claims,
    "verdicts": verdicts,
    "agreement": agreement,
    "greater_than": greater_than,
    "sentiment": sentiment,
    "topic": topic,
    "word_pairs": word_pairs,
    "pronouns": pronouns,
}
PATIENCE = 200
"""How many draws a new item is worth before a task counts as exhausted."""


def draw(task: str, world: World, count: int, seed: int = 0, **options: Any) -> list[Item]:
    """Different items of one task; `options` are its own (`held_out`, `attractors`, `templates`, `shots`).

    Fewer than `count` come back where the task has no more, as with the verbs that one subject never meets.
    """
    rng = Random(f"{task} {seed}")
    items: dict[str, Item] = {}
    stream = TASKS[task](world, rng, **options)
    for tries, item in enumerate(stream):
        items.setdefault(item.clean, item)
        if len(items) == count or tries > PATIENCE * count:
            break
    return list(items.values())
