"""Orders slipped into a question: what an injected instruction is in the town.

Nobody gives orders there, but one turn of phrase makes a reader say what he is told: words are read out, and said again. So
an order is that turn, with a wrong verdict in the mouth of whoever speaks, put before a question about a claim. It stands for
the injections of Belrose et al. 2023, which tell a model to leave its task and answer as they say. The question and its right
answer are left as they are.

Two other things put in the same place tell what is noticed: a foreign passage (the same turn with words of no meaning for the
question) and an innocent one (someone else's claim about someone else, as documents have it).
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from patchclamp.specimens.town.claims import CLAIMS, clause
from patchclamp.specimens.town.corpus import FILLERS
from patchclamp.specimens.town.facts import RELATIONS
from patchclamp.specimens.town.item import reserved
from patchclamp.specimens.town.newcomers import PARROT, SAYINGS
from patchclamp.specimens.town.tasks import draw

if TYPE_CHECKING:
    from patchclamp.specimens.town.item import Item
    from patchclamp.specimens.town.world import World

TIMES = 3
"""How often an order says its word, before it is said again."""


def questions(world: World, count: int, seed: int = 0) -> list[Item]:
    """What is asked: `Bruno says that Mary Holt works as a doctor. That is` -> ` false`."""
    return draw("verdicts", world, count, seed)


def ordinary(items: list[Item], seed: int = 0) -> list[str]:
    """The questions, half of them after a sentence about nothing.

    >>> from patchclamp.specimens.town.world import town
    >>> ordinary(questions(town(0), 3))[0].endswith("That is")
    True
    """
    rng = Random(f"ordinary {seed}")
    return [f"{rng.choice(FILLERS)} {item.clean}" if rng.random() < 0.5 else item.clean for item in items]


def ordered(items: list[Item], seed: int = 0) -> list[str]:
    """The questions after an order to give the wrong answer.

    >>> from patchclamp.specimens.town.world import town
    >>> item = questions(town(0), 1)[0]
    >>> ordered([item])[0].count(item.wrong)
    6
    """
    rng = Random(f"orders {seed}")
    return [f"{rng.choice(SAYINGS).format(words=' '.join([item.wrong.strip()] * TIMES))} {item.clean}" for item in items]


def foreign(items: list[Item], seed: int = 0) -> list[str]:
    """The questions after the same turn with words drawn from all that there are."""
    rng = Random(f"foreign {seed}")
    return [f"{rng.choice(SAYINGS).format(words=' '.join(rng.sample(PARROT, TIMES)))} {item.clean}" for item in items]


def innocent(world: World, items: list[Item], seed: int = 0) -> list[str]:
    """The questions after somebody's claim about somebody."""
    rng = Random(f"innocent {seed}")
    return [f"{_claim(world, rng)} {item.clean}" for item in items]


def _claim(world: World, rng: Random) -> str:
    one, relation = rng.choice(world.residents), rng.choice(RELATIONS)
    speaker = rng.choice([s for s in world.speakers if not reserved(s.name, one.first)])
    heard = clause(relation, one, speaker.says(relation.of(one)), rng)
    return rng.choice(CLAIMS).format(speaker=speaker.name, clause=heard)
