"""Docstring: the parameters of a function are documented in the order in which they are defined; which one is next?

Heimersheim and Janiak 2023, "A circuit for Python docstrings in a 4-layer attention-only transformer".
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from patchclamp.core.pair import Pair
from patchclamp.task.template import ask, known
from patchclamp.task.words import ARGUMENTS, FILLERS

TEMPLATE = '''
def {name}(self, {x}, {y}, {A_def}, {B_def}, {C_def}, {z}):
    """{one} {two} {three}

    :param {A_doc}: {four} {five}
    :param {B_doc}: {six} {seven}
    :param'''
LETTERS = ("A", "B", "C")
ROLES = ("A_def", "B_def", "C_def", "A_doc", "B_doc")
CORRUPTIONS = {
    "answer": ("C_def",),
    "def": ("A_def", "B_def", "C_def"),
    "doc": ("A_doc", "B_doc"),
    "both": ROLES,
}
"""What is renamed, each with a name of its own, so that definition and documentation part."""


def docstring(rng: Random, corruption: str = "both") -> Iterator[Pair]:
    """`def f(self, x, y, a, b, c, z): ... :param a: ... :param b: ... :param` -> ` c`.

    `corruption` says which names `corrupt` changes: "answer", only the one asked for, so that the new name is its answer;
    "def" or "doc", all in the definition or all in the documentation; "both". Wrong are the names that were not asked for,
    the new ones first. Roles: A_def, B_def, C_def, A_doc, B_doc.

    >>> pair = next(docstring(Random(0), corruption="answer"))
    >>> pair.wrong == " " + pair.corrupt[slice(*pair.corrupt_roles["C_def"])]
    True
    """
    renamed = CORRUPTIONS[known("corruption", corruption, CORRUPTIONS)]
    while True:
        names = rng.sample(ARGUMENTS, 6 + len(ROLES))
        others = dict(zip(("name", "x", "y"), rng.sample([word for word in ARGUMENTS if word not in names], 3)))
        fillers = dict(zip(("one", "two", "three", "four", "five", "six", "seven"), rng.sample(FILLERS, 7)))
        given: dict[str, str] = dict(zip((*LETTERS, "z"), names))
        clean = others | fillers | {"z": given["z"]} | {role: given[role[0]] for role in ROLES}
        new = {role: name for role, name in zip(reversed(ROLES), names[6:]) if role in renamed}
        wrongs = [
            *(new[role] for role in ("C_def",) if role in new),
            given["B"],
            given["A"],
            given["z"],
            others["x"],
            others["y"],
        ]
        yield ask(TEMPLATE, clean, clean | new, {r: r for r in ROLES}, [given["C"]], [*wrongs, *new.values()], corruption)
