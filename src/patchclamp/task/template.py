"""Sentences with slots that remember where each slot landed, and how two of them become a pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter

from patchclamp.core.errors import WrongPrompt, did_you_mean
from patchclamp.core.pair import Pair, Stretch


def fill(template: str, slots: Mapping[str, str]) -> tuple[str, dict[str, Stretch]]:
    """A template with its slots filled, and the characters that each slot became; of a slot met twice, the later ones.

    >>> fill("When {A} went to the {place}", {"A": "Mary", "place": "park"})
    ('When Mary went to the park', {'A': (5, 9), 'place': (22, 26)})
    """
    text, where = "", {}
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot:
            where[slot] = (len(text), len(text) + len(slots[slot]))
            text += slots[slot]
    return text, where


def ask(template: str, clean: Mapping[str, str], corrupt: Mapping[str, str], roles: Mapping[str, str],
        answers: Sequence[str], wrongs: Sequence[str], kind: str) -> Pair:  # fmt: skip
    """The pair of one template filled twice; `roles` names the slot that plays each role.

    Answers and wrongs get the space before them; where one word is among both, it is an answer.

    >>> ask("{A} said that", {"A": "Mary"}, {"A": "John"}, {"name": "A"}, ["she"], ["he"], "she").corrupt
    'John said that'
    """
    (ours, here), (theirs, there) = (fill(template, slots) for slots in (clean, corrupt))
    return Pair(
        clean=ours,
        corrupt=theirs,
        answers=tuple(f" {word}" for word in answers),
        wrongs=tuple(f" {word}" for word in dict.fromkeys(wrongs) if word not in answers),
        roles={role: here[slot] for role, slot in roles.items()},
        corrupt_roles={role: there[slot] for role, slot in roles.items()},
        kind=kind,
    )


def known(option: str, value: str, values: Iterable[str]) -> str:
    """The value of an option, one of a few words; an error that lists them where it is none of them."""
    values = tuple(values)
    if value not in values:
        raise WrongPrompt(f'{option} is one of {", ".join(values)}, not "{value}".{did_you_mean(value, values)}')
    return value
