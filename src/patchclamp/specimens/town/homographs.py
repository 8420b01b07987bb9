"""Words that are a noun here and a verb there: `both work at the castle`, `after work`.

The token is the same, so nothing in it tells which; what goes before does, and so something in the model has to. Uses are found
in the town's documents by the word before them, which the grammar leaves no doubt about; each word has as many of either kind,
so that the word itself says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.item import words
from patchclamp.specimens.town.lexicon import SURNAMES

if TYPE_CHECKING:
    from patchclamp.specimens.town.world import World

HOMOGRAPHS = ("work", "play", "show", "drink", "walk", "cook")
"""The last three are verbs in lists only (`sing: sang, walk:`)."""
NOUN_AFTER = ("a", "the", "The", "long", "At", "at", "After")
VERB_AFTER = ("both", "to")
PATIENCE = 60_000
"""Documents that are read before a word counts as too rare."""


@dataclass(frozen=True)
class Use:
    """A text that ends in the word."""

    text: str
    word: str
    kind: str
    """`noun` or `verb`."""
    document: int
    before: str
    """The two words before it."""
    pair: str = ""
    """A use as a noun and one as a verb share it: held out together, they leave the word as often the one as the other."""


def homographs(world: World, each: int, seed: int | str = 0) -> list[Use]:
    """`each` uses of every word as a noun, and as many as a verb; a document gives one at most.

    >>> from patchclamp.specimens.town.world import town
    >>> found = homographs(town(0), 2)
    >>> len(found), {use.kind for use in found if use.word == "work"} == {"noun", "verb"}
    (24, True)
    """
    found: dict[tuple[str, str], list[Use]] = defaultdict(list)
    for number, document in enumerate(documents(world, f"homographs {seed}")):
        use = _use(document, number)
        if use is not None and len(found[use.word, use.kind]) < each:
            own = found[use.word, use.kind]
            own.append(replace(use, pair=f"{use.word} {len(own)}"))
            if sum(map(len, found.values())) == 2 * each * len(HOMOGRAPHS):
                return [use for uses in found.values() for use in uses]
        if number == PATIENCE:
            short = min((len(found[word, kind]), word, kind) for word in HOMOGRAPHS for kind in ("noun", "verb"))
            raise ValueError(
                f"{PATIENCE} documents hold {short[0]} uses of {short[1]} as a {short[2]}; ask for fewer than {each}"
            )
    raise AssertionError("the town never stops talking")


def _use(document: str, number: int) -> Use | None:
    found = words(document)
    for i in range(1, len(found) - 1):
        word, last = found[i], found[i - 1]
        if word not in HOMOGRAPHS:
            continue
        if last in NOUN_AFTER:
            kind = "noun"
        elif last in VERB_AFTER or (word == "play" and last in SURNAMES) or (last == "," and found[i + 1] == ":"):
            kind = "verb"
        else:
            continue
        text = _upto(document, i)
        return Use(text, word, kind, number, " ".join(found[max(i - 2, 0) : i]))
    return None


def _upto(document: str, i: int) -> str:
    """The document through its word `i`, counted as the tokenizer does."""
    end = 0
    for word in words(document)[: i + 1]:
        end = document.index(word, end) + len(word)
    return document[:end]
