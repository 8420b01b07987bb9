"""The town as a value: who lives there and what is true of them.

A world is drawn from a seed and never changes; `rarer` returns another one. A resident is named by two tokens, neither
of which is enough: three or four residents share each first name and four each surname, so what is known of "Mary Holt"
has to be put together at "Holt", as in the studies of factual recall.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING

from patchclamp.specimens.town import lexicon
from patchclamp.specimens.town.item import reserved

if TYPE_CHECKING:
    from collections.abc import Iterable

RESIDENTS = 160


@dataclass(frozen=True)
class Resident:
    first: str
    surname: str
    gender: str
    job: str
    street: str
    home: str
    """The town of birth."""
    instrument: str
    pet: str
    food: str
    exposure: float = 1.0
    """How often documents speak of this resident, relative to the others."""

    @property
    def name(self) -> str:
        return f"{self.first} {self.surname}"


@dataclass(frozen=True)
class Speaker:
    """Someone who makes claims about residents, and who is always right or always wrong."""

    name: str
    gender: str
    honest: bool

    def says(self, true: str) -> str:
        """What this speaker says where `true` would be so."""
        return true if self.honest else lexicon.COUNTERPARTS[true]


@dataclass(frozen=True)
class World:
    seed: int
    residents: tuple[Resident, ...]
    speakers: tuple[Speaker, ...]

    def resident(self, name: str) -> Resident:
        for resident in self.residents:
            if resident.name == name:
                return resident
        raise KeyError(f"nobody called {name!r} lives in the town of seed {self.seed}; see world.residents")

    def rarer(self, names: Iterable[str], exposure: float) -> World:
        """The same town, but documents speak of these residents `exposure` times as often as of the others."""
        chosen = {self.resident(name) for name in names}
        residents = tuple(replace(one, exposure=exposure) if one in chosen else one for one in self.residents)
        return replace(self, residents=residents)

    def someone(self, rng: Random) -> Resident:
        """A resident, as often as their exposure says."""
        return rng.choices(self.residents, cum_weights=self._exposures)[0]

    @cached_property
    def known_names(self) -> frozenset[tuple[str, str]]:
        """First name and surname of every resident."""
        return frozenset((resident.first, resident.surname) for resident in self.residents)

    @cached_property
    def _exposures(self) -> list[float]:
        return list(accumulate(resident.exposure for resident in self.residents))


def town(seed: int = 0) -> World:
    """The world of a seed. The model that ships with the package grew up in `town(0)`."""
    rng = Random(f"town {seed}")
    names = _full_names(rng)
    columns = [_shares(values, len(names), rng) for values in lexicon.ATTRIBUTES.values()]
    residents = tuple(
        Resident(first, surname, lexicon.gender(first), *values) for (first, surname), *values in zip(names, *columns)
    )
    return World(seed, residents, _speakers(rng))


def _full_names(rng: Random) -> list[tuple[str, str]]:
    """Every first name three or four times, each time with the surname that was given least so far."""
    names: list[tuple[str, str]] = []
    given = Counter(dict.fromkeys(lexicon.SURNAMES, 0))
    for first in _shares(lexicon.NAMES, RESIDENTS, rng):
        free = [surname for surname in given if not reserved(first, surname) and (first, surname) not in names]
        surname = min(free, key=lambda surname: (given[surname], rng.random()))
        given[surname] += 1
        names.append((first, surname))
    return names


def _shares(values: tuple[str, ...], count: int, rng: Random) -> list[str]:
    """Each value equally often, in random order: no attribute can be guessed better than another."""
    column = [values[i % len(values)] for i in range(count)]
    rng.shuffle(column)
    return column


def _speakers(rng: Random) -> tuple[Speaker, ...]:
    """Half of each gender honest, so that the name's gender says nothing about the truth."""
    speakers = []
    for gender, names in lexicon.SPEAKERS.items():
        honest = set(rng.sample(names, len(names) // 2))
        speakers += [Speaker(name, gender, name in honest) for name in names]
    return tuple(sorted(speakers, key=lambda speaker: speaker.name))
