"""What a task yields: a prompt, what should follow it, and where the things that matter stand in it.

Also here: the one rule by which anything is held out. A combination of words (two names that meet, a noun and its verb,
a century and a year ...) is *reserved* or not by a hash of the words alone. Training documents never use a reserved
combination, test items use nothing else, and no list of held-out cases has to be kept anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from itertools import combinations
from string import Formatter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

RESERVED_SHARE = 0.1


@dataclass(frozen=True)
class Item:
    """One question to a model: which word comes next?

    Answers are written as a tokenizer needs them, `" Mary"` with its space, `"45"` (the end of a year) without.
    """

    clean: str
    answers: tuple[str, ...]
    """All continuations that are right; the first one is *the* answer where one is wanted."""
    wrongs: tuple[str, ...]
    """Continuations that are wrong, the tempting one first. After `corrupt` it would be right."""
    corrupt: str | None = None
    """The same prompt with one thing changed and the same number of tokens, or None where no such prompt exists."""
    positions: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Role -> token position in `clean`, `<bos>` being 0; a role of two words is at the second; `end` is the last."""
    kind: str = ""
    """The template, relation or whatever else one may want to group by."""
    held_out: bool = True
    """Whether the combination of words, or the template, never occurs in training."""

    @property
    def answer(self) -> str:
        return self.answers[0]

    @property
    def wrong(self) -> str:
        return self.wrongs[0]


def words(text: str) -> list[str]:
    """The pieces of a text exactly as the tokenizer cuts it, without their spaces.

    >>> words("Mary Holt's fair began in 1732.")
    ['Mary', 'Holt', "'s", 'fair', 'began', 'in', '17', '32', '.']
    """
    return re.findall(r"'s|[A-Za-z]+|[0-9]{2}|[^\w\s]", text)


def fill(template: str, **slots: str) -> tuple[str, dict[str, int]]:
    """A template with its slots filled, and where each slot landed.

    >>> fill("When {A} went home", A="Mary Holt")
    ('When Mary Holt went home', {'A': 3, 'end': 5})
    """
    text, positions = "", {}
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot:
            text += slots[slot]
            positions[slot] = len(words(text))
    return text, positions | {"end": len(words(text))}


def before(template: str, slot: str) -> str:
    """The template up to a slot: a prompt that the slot answers."""
    return template.partition("{" + slot + "}")[0].rstrip()


@cache
def reserved(*combination: str) -> bool:
    """Whether these words are never brought together in training. Their order does not matter."""
    digest = blake2b("|".join(sorted(combination)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < RESERVED_SHARE * 2**32


def may_meet(names: Sequence[str]) -> bool:
    """Whether these names can stand in one training document: no two of them are reserved."""
    return not any(reserved(one, other) for one, other in combinations(names, 2))


def pick(rng: Random, *lists: Sequence[str], held_out: bool = False) -> tuple[str, ...]:
    """One word of each list, all different, whose combination is reserved (for a test) or is not (for training)."""
    while True:
        combination = tuple(rng.choice(words) for words in lists)
        if len(set(combination)) == len(lists) and reserved(*combination) == held_out:
            return combination
