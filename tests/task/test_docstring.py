"""Docstring: what is documented next is what is defined next, and each corruption renames what it says."""

import re
from itertools import islice
from random import Random

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.task.docstring import CORRUPTIONS, ROLES, docstring


def read(text):
    """The arguments defined and those documented."""
    defined = re.search(r"def \w+\(self, (.*)\):", text)[1].split(", ")
    return defined, re.findall(r":param (\w+):", text)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_what_is_documented_next_is_what_is_defined_next(corruption):
    for pair in islice(docstring(Random(0), corruption), 200):
        defined, documented = read(pair.clean)
        at = defined.index(documented[0])
        assert defined[at : at + 2] == documented and len(set(defined)) == len(defined)
        assert pair.answers == (f" {defined[at + 2]}",)
        assert {f" {name}" for name in defined} <= {*pair.answers, *pair.wrongs}
        assert pair.clean.endswith("\n    :param")


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corruption_renames_what_it_says(corruption):
    for pair in islice(docstring(Random(1), corruption), 100):
        changed = [r for r in ROLES if pair.clean[slice(*pair.roles[r])] != pair.corrupt[slice(*pair.corrupt_roles[r])]]
        assert set(changed) == set(CORRUPTIONS[corruption])
        new = [pair.corrupt[slice(*pair.corrupt_roles[r])] for r in changed]
        assert len(set(new)) == len(new) and not any(re.search(rf"\b{name}\b", pair.clean) for name in new)
        assert {f" {name}" for name in new} <= set(pair.wrongs)


def test_where_only_the_answer_is_renamed_the_new_name_is_the_answer_of_corrupt():
    for pair in islice(docstring(Random(2), "answer"), 100):
        defined, documented = read(pair.corrupt)
        assert pair.wrong == f" {defined[defined.index(documented[1]) + 1]}"


def test_another_corruption_is_named():
    with pytest.raises(WrongPrompt, match='corruption is one of answer, def, doc, both, not "docs". Did you mean "doc"'):
        next(docstring(Random(0), "docs"))
