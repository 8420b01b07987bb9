"""The grammar of the town's sentences about things, as trees: who depends on whom, as the generator built it.

A sentence of `agreement` is a lead, a subject with a list of links (`near the cabinets`, `behind the wall`), a verb and how it
goes on. The generator draws the links as a list of the subject's, none of them another's; so each hangs on the subject, the
verb too stands one step from it, and the nouns between are further from each other than from either, however near they stand.
That is what makes these trees differ from the order of the words.

The verb is the root; the subject, the lead and what follows hang on it; a preposition hangs on the subject, its noun on the
preposition, articles and adjectives on their noun. Punctuation has no place in the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchclamp.specimens.town.agreement import VERBS, sentence
from patchclamp.specimens.town.item import words
from patchclamp.specimens.town.lexicon import LOOKS, NOUNS

if TYPE_CHECKING:
    from random import Random

SINGULAR = {form: noun for noun, plural in NOUNS.items() for form in (noun, plural)}
FORMS = {form for verb, (other, _) in VERBS.items() for form in (verb, other)}
DETERMINERS = ("the", "some", "same", "my")


@dataclass(frozen=True)
class Parse:
    """A sentence with its tree."""

    words: tuple[str, ...]
    heads: tuple[int | None, ...]
    """For each word the one it hangs on: -1 for the root, None for punctuation."""
    nouns: tuple[int, ...]
    """The subject, then the noun of each link."""

    @property
    def subject(self) -> int:
        return self.nouns[0]

    def distances(self, among: tuple[int, ...] | None = None) -> list[list[float]]:
        """Steps from word to word through the tree, for all words in it or some."""
        among = self.inside if among is None else among
        up = {word: self._up(word) for word in among}
        return [[float(self._apart(up[one], up[other])) for other in among] for one in among]

    @property
    def inside(self) -> tuple[int, ...]:
        """The words that are in the tree."""
        return tuple(i for i, head in enumerate(self.heads) if head is not None)

    def _up(self, word: int) -> list[int]:
        path = [word]
        while (head := self.heads[path[-1]]) != -1:
            assert head is not None
            path.append(head)
        return path

    @staticmethod
    def _apart(one: list[int], other: list[int]) -> int:
        shared = len(set(one) & set(other))
        return len(one) + len(other) - 2 * shared


def parse(text: str) -> Parse:
    """The tree of one sentence of `agreement`.

    >>> found = parse("The keys near the old cabinet behind the wall are red.")
    >>> [found.words[i] for i in found.nouns]
    ['keys', 'cabinet', 'wall']
    >>> found.distances(found.nouns)
    [[0.0, 2.0, 2.0], [2.0, 0.0, 4.0], [2.0, 4.0, 0.0]]
    """
    found = tuple(words(text))
    heads: list[int | None] = [None] * len(found)
    start = found.index(",") + 1 if "," in found else 0
    verb = next(i for i in range(start, len(found)) if found[i] in FORMS)
    nouns = _subject(found, heads, start, verb)
    heads[verb] = -1
    _hang(found, heads, range(start - 1 if start else 0), verb)
    _hang(found, heads, range(verb + 1, len(found) - 1), verb)
    return Parse(found, tuple(heads), nouns)


def nested(rng: Random, links: tuple[int, ...] = (2, 3), before: int = 2) -> tuple[str, Parse, int]:
    """A text that ends in a sentence with that many links, its tree, and the number of words that go before.

    Up to `before` other sentences do, so that the place of a word in the text does not tell what it is in its sentence.
    """
    while True:
        last = sentence(rng)
        if sum(word in SINGULAR for word in words(last)) - 1 in links:
            break
    others = [sentence(rng) for _ in range(rng.randint(0, before))]
    return " ".join([*others, last]), parse(last), sum(len(words(text)) for text in others)


def _subject(found: tuple[str, ...], heads: list[int | None], start: int, verb: int) -> tuple[int, ...]:
    nouns: list[int] = []
    waiting: list[int] = []
    linking: list[int] = []
    for i in range(start, verb):
        if found[i] in SINGULAR:
            for word in waiting:
                heads[word] = i
            heads[i] = linking[0] if nouns else verb
            waiting, linking = [], []
            nouns.append(i)
        elif found[i].lower() == "the" or found[i] in LOOKS:
            waiting.append(i)
        else:  # a preposition; of several words ("in front of") the first one stands for all
            heads[i] = linking[0] if linking else nouns[0]
            linking.append(i)
    return tuple(nouns)


def _hang(found: tuple[str, ...], heads: list[int | None], span: range, root: int) -> None:
    """A lead, or what follows the verb: a chain, each word on the one before, articles on the noun behind them."""
    last = root
    for i in span:
        if found[i].lower() in DETERMINERS:
            heads[i] = next(j for j in span if j > i and found[j].lower() not in DETERMINERS)
        else:
            heads[i] = last
            last = i
