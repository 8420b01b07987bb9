"""Illusion: does a unit mean what its examples on one corpus have in common? A second corpus is asked.

Bolukbasi et al. 2021, "An interpretability illusion for BERT": the texts that activate a neuron most have something in common
in every corpus, and something else in each. So what they share is found on half of a corpus, checked on its other half, and
then on another corpus. `shared` finds the one trait that most examples have; `senses` how many it takes for all of them.

Traits are what two examples can be seen to have in common: by default a word at a place before the active token or at it. What
such words mean is beyond them: a unit for the months looks as if it had twelve senses, unless `traits` is a function that knows
months. Anything may stand there: a lemma, a class, what a language model says an example is about.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchclamp.model.activating import Example

if TYPE_CHECKING:
    from patchclamp.model.activating import Activating
    from patchclamp.model.model import Model

Traits = Callable[[Example], Iterable[Hashable]]
REACH = 3
"""How many tokens before the active one are looked at."""
CLEAR, GONE = 0.6, 0.3
"""The share of examples from which a trait is what they have in common, and below which it is not."""
SURE = 0.01
"""The largest chance at which a trait is said to be gone."""
SILENT = 0.5
"""Of the largest activation on the first corpus: where the second has less, it does not activate the unit."""


def words(example: Example) -> Iterable[tuple[int, str]]:
    """Each of the last tokens up to the active one, with its place.

    >>> from patchclamp.model.activating import Example
    >>> from patchclamp.model.illusion import words
    >>> list(words(Example((1, 2), (" New", " York"), (0.0, 1.0), 1, 0)))
    [(0, 'York'), (-1, 'New')]
    """
    for back in range(min(REACH, example.pos) + 1):
        yield -back, example.words[example.pos - back].strip()


@dataclass(frozen=True)
class Shared:
    """The trait that most examples have."""

    trait: Hashable | None
    share: float
    """Of the examples."""
    usual: float
    """Of texts that were not chosen, where there are any to compare with."""


def shared(examples: Sequence[Example], others: Sequence[Example] = (), traits: Traits = words) -> Shared:
    """What most examples have in common that the others have not: the trait with the largest lead in its share.

    >>> from patchclamp.model.activating import Example
    >>> from patchclamp.model.illusion import shared
    >>> new = [Example((1, i), (" New", f" w{i}"), (0.0, 1.0), 1, i) for i in range(4)]
    >>> shared(new).trait
    (-1, 'New')
    """
    here, there = _counted(examples, traits), _counted(others, traits)
    if not here:
        return Shared(None, 0.0, 0.0)
    best = max(here, key=lambda t: (here[t] - there.get(t, 0.0), here[t], str(t)))
    return Shared(best, here[best], there.get(best, 0.0))


def senses(examples: Sequence[Example], traits: Traits = words) -> float:
    """How many things a unit stands for, by its examples: 1 where one trait covers all, as many as examples where none does.

    Traits are taken one after another, the one that covers most of what is left; the number is the exponential of the entropy
    of their shares, so that a trait of few examples counts for little.

    >>> from patchclamp.model.activating import Example
    >>> from patchclamp.model.illusion import senses
    >>> two = [Example((i,), (" cat" if i % 2 else " car",), (1.0,), 0, i) for i in range(8)]
    >>> round(senses(two), 3)
    2.0
    """
    left, parts = [set(traits(e)) for e in examples], list[int]()
    while left:
        counts = Counter(t for one in left for t in one)
        trait, n = max(counts.items(), key=lambda item: (item[1], str(item[0]))) if counts else (None, 1)
        parts.append(n if n > 1 else 1)
        left = [one for one in left if trait not in one] if n > 1 else left[1:]
    total = sum(parts)
    return math.exp(-sum(n / total * math.log(n / total) for n in parts)) if parts else 0.0


@dataclass(frozen=True)
class Check:
    """What a unit's examples have in common on one corpus, and whether they have it on another."""

    unit: int
    first: Shared
    """On half of the examples of the first corpus."""
    held: float
    """The share of the other half that has it, too: as much as could be hoped for elsewhere."""
    second: float
    """The share of the second corpus' examples that have it."""
    instead: Shared
    """What these have in common."""
    loudness: float
    """The largest activation on the second corpus, as a share of that on the first."""
    chance: float
    """How often so many more of the held-out examples have it by chance (Fisher's exact test)."""

    @property
    def verdict(self) -> str:
        """`holds`; `illusion`: clear on the first corpus and gone on the second; `silent` there; `unclear`.

        Unclear is what too few examples of the first corpus share, and what is rarer on the second by no more than chance.
        """
        if self.held < CLEAR or self.first.share < CLEAR:
            return "unclear"
        if self.second > GONE:
            return "holds"
        if self.loudness < SILENT:
            return "silent"
        return "illusion" if self.chance <= SURE else "unclear"


def illusion(model: Model, unit: int, one: Activating, two: Activating, n: int = 20, traits: Traits = words) -> Check:
    """Whether what a unit's examples on one corpus have in common holds on another.

    >>> from patchclamp.model.activating import activating
    >>> from patchclamp.model.illusion import illusion
    >>> site = "blocks.1.mlp.act[neuron=3:5]"
    >>> illusion(model, 0, activating(model, site, [clean] * 4), activating(model, site, [corrupt] * 4)).held
    1.0
    """
    mine, theirs = one.examples(model, unit, n=n), two.examples(model, unit, n=n)
    usual = one.band(model, unit, 0.0, 0.5, n)
    found = shared(mine[::2], usual, traits)
    kept, there = ([found.trait in set(traits(e)) for e in some] for some in (mine[1::2], theirs))
    loud = max((e.value for e in theirs), default=0.0) / max(max((e.value for e in mine), default=0.0), 1e-30)
    instead = shared(theirs, two.band(model, unit, 0.0, 0.5, n), traits)
    return Check(unit, found, _share(kept), _share(there), instead, loud, _chance(kept, there))


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / max(len(hits), 1)


def _chance(kept: Sequence[bool], there: Sequence[bool]) -> float:
    from scipy.stats import fisher_exact

    table = [[sum(kept), len(kept) - sum(kept)], [sum(there), len(there) - sum(there)]]
    return float(fisher_exact(table, alternative="greater").pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def _counted(examples: Sequence[Example], traits: Traits) -> dict[Hashable, float]:
    counts = Counter(t for e in examples for t in set(traits(e)))
    return {t: n / len(examples) for t, n in counts.items()}
