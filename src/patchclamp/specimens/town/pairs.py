"""Lists of word pairs: `cat: kitten, dog: puppy, hen:` and the list itself says which relation is meant.

Every kind of cue has two or three relations (an animal's plural or its young; a verb's past or its other form; a
resident's job, home or instrument), so the cue alone never tells. Made for function vectors (Todd et al. 2024). Held
out: which two cues stand side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.item import Item, may_meet, reserved, words
from patchclamp.specimens.town.lexicon import ANIMALS, DOING, MORE, OPPOSITE, PAST, YOUNG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import World

WORDING = (":", ",", ".")


def relations(world: World) -> dict[str, dict[str, dict[str, str]]]:
    """Kind of cue -> relation -> the pairs."""
    residents = world.residents
    return {
        "animals": {"plural": ANIMALS, "young": YOUNG},
        "verbs": {"past": PAST, "doing": DOING},
        "adjectives": {"opposite": OPPOSITE, "more": MORE},
        "residents": {
            "job": {one.name: one.job for one in residents},
            "home": {one.name: one.home for one in residents},
            "instrument": {one.name: one.instrument for one in residents},
        },
    }


def document(world: World, rng: Random) -> str:
    kinds = relations(world)
    table = rng.choice(tuple(kinds[rng.choice(tuple(kinds))].values()))
    cues = _cues(tuple(table), rng.randint(3, 9), rng)
    return ", ".join(f"{cue}: {table[cue]}" for cue in cues) + "."


def word_pairs(world: World, rng: Random, held_out: bool = True, shots: int = 4) -> Iterator[Item]:
    """A list of `shots` pairs and one more cue -> its partner; `corrupt` lists the same cues under another relation.

    The wrong answer is the partner under that other relation. `kind` is the relation. Positions: cue, end.
    """
    kinds = relations(world)
    while True:
        tables = kinds[rng.choice(tuple(kinds))]
        name, other = rng.sample(tuple(tables), 2)
        common = [cue for cue in tables[name] if cue in tables[other]]
        cues = _cues(common, shots, rng)
        last = [cue for cue in common if cue not in cues and reserved(cues[-1], cue) == held_out]
        if not last or shots != len(cues):
            continue
        cue = rng.choice(last)
        right, wrong = tables[name][cue], tables[other][cue]
        if right == wrong:
            continue
        clean, corrupt = (
            ", ".join(f"{cue}: {table[cue]}" for cue in cues) + f", {cue}:" for table in (tables[name], tables[other])
        )
        end = len(words(clean))
        yield Item(clean, (f" {right}",), (f" {wrong}",), corrupt, {"cue": end - 1, "end": end}, name, held_out)


def _cues(cues: tuple[str, ...] | list[str], count: int, rng: Random) -> list[str]:
    """Different cues in a row, no two neighbours reserved; residents' first names may all meet."""
    chosen = [rng.choice(cues)]
    for cue in rng.sample(cues, min(len(cues), 3 * count)):
        firsts = [one.split()[0] for one in (*chosen, cue) if " " in one]
        if len(chosen) < count and cue not in chosen and not reserved(chosen[-1], cue) and may_meet(firsts):
            chosen.append(cue)
    return chosen
