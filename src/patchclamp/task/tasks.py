"""The tasks by name: pairs drawn without end from a seed, and only those that a tokenizer cuts as they need to be cut.

>>> pairs = draw("town/ioi", 20, seed=1, tokenizer=model.tokenizer)
>>> len(pairs), sorted(pairs[0].roles)
(20, ['IO', 'S1', 'S2'])
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from patchclamp.core.errors import PatchclampError, WrongPrompt, did_you_mean
from patchclamp.core.pair import Pair, Tokenizer, counted, misfit
from patchclamp.task import town
from patchclamp.task.agreement import agreement
from patchclamp.task.brackets import brackets
from patchclamp.task.docstring import docstring
from patchclamp.task.facts import capitals, facts
from patchclamp.task.greater_than import greater_than
from patchclamp.task.induction import induction
from patchclamp.task.ioi import ioi
from patchclamp.task.pronouns import pronouns
from patchclamp.task.smallest import kth_smallest

TASKS: dict[str, town.Stream] = {
    "ioi": ioi,
    "greater_than": greater_than,
    "docstring": docstring,
    "pronouns": pronouns,
    "agreement": agreement,
    "capitals": capitals,
    "facts": facts,
    "brackets": brackets,
    "kth_smallest": kth_smallest,
    "induction": induction,
    **town.TASKS,
}
PATIENCE = 1000
"""How many draws in a row may bring nothing new before a task counts as exhausted."""


class UnknownTask(PatchclampError):
    """A name that no task has, or an option that a task does not have."""


def draw(name: str, count: int, seed: int = 0, tokenizer: Tokenizer | None = None, **options: Any) -> list[Pair]:
    """`count` different pairs of one task, the same ones for the same seed; `options` are the task's own.

    With a `tokenizer`, pairs that it does not cut as they need to be cut (see `fitting`) are passed over, and drawing goes on.
    Where a task has fewer than `count`, an error says how many, and what was passed over.

    >>> draw("ioi", 1, seed=0, corruption="third")[0].answer
    ' Martha'
    """
    stream = _stream(name, seed, options)
    found: dict[tuple, Pair] = {}
    left_out: Counter[str] = Counter()
    seen, idle = set(), 0
    while len(found) < count:
        pair = next(stream)
        key = (pair.clean, pair.corrupt)
        why = "" if key in seen or tokenizer is None else misfit(pair, tokenizer)
        if key not in seen and not why:
            found[key], idle = pair, -1
        elif why:
            left_out[why] += 1
        seen.add(key)
        idle += 1
        if idle > PATIENCE:
            told = f" that fit this tokenizer, leaving out {counted(left_out)}" if left_out else ""
            raise WrongPrompt(f"{name} has only {len(found)} different pairs{told}; ask for that many, or change its options.")
    return list(found.values())


def _stream(name: str, seed: int, options: dict[str, Any]) -> Iterator[Pair]:
    if name not in TASKS:
        raise UnknownTask(f'there is no task "{name}".{did_you_mean(name, TASKS)} The tasks are {", ".join(TASKS)}.')
    known = [option for option in inspect.signature(TASKS[name]).parameters if option not in ("world", "rng")]
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise UnknownTask(f'{name} has no option "{option}"; {has}.{did_you_mean(option, known)}')
    return TASKS[name](Random(f"{name} {seed}"), **options)
