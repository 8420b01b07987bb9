"""Facts: what is true of the subject is the answer, and what is true of the other one is the first wrong."""

from itertools import islice
from random import Random

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.task.facts import RELATIONS, capitals, facts

# A few that everyone knows, written down apart from the tables.
KNOWN = {
    ("capital", "France"): "Paris", ("capital", "Japan"): "Tokyo", ("capital", "Peru"): "Lima", ("language", "Brazil"): "Portuguese",
    ("language", "Austria"): "German", ("continent", "Kenya"): "Africa", ("continent", "Nepal"): "Asia",
    ("landmark", "Eiffel Tower"): "Paris", ("landmark", "Space Needle"): "Seattle", ("maker", "Prius"): "Toyota", ("maker", "Xbox"): "Microsoft",
}  # fmt: skip


def test_a_few_facts_that_everyone_knows():
    assert {key: RELATIONS[key[0]].values[key[1]] for key in KNOWN} == KNOWN


@pytest.mark.parametrize("name", RELATIONS)
def test_the_answer_is_true_of_the_subject_and_the_first_wrong_of_the_other(name):
    values = RELATIONS[name].values
    for pair in islice(facts(Random(0), [name]), 200):
        subject, other = pair.clean[slice(*pair.roles["subject"])], pair.corrupt[slice(*pair.corrupt_roles["subject"])]
        assert pair.answers == (f" {values[subject]}",) and pair.wrong == f" {values[other]}"
        assert {pair.answer, *pair.wrongs} == {f" {value}" for value in values.values()}
        assert pair.clean.replace(subject, "") == pair.corrupt.replace(other, "") and pair.kind == name


def test_all_relations_and_templates_come():
    pairs = list(islice(facts(Random(1)), 1500))
    assert {pair.kind for pair in pairs} == set(RELATIONS)
    asked = {(pair.kind, pair.clean.replace(pair.clean[slice(*pair.roles["subject"])], "{X}")) for pair in pairs}
    assert len(asked) == sum(len(relation.templates) for relation in RELATIONS.values())


def test_capitals_are_the_facts_of_one_relation():
    assert [*islice(capitals(Random(2)), 50)] == [*islice(facts(Random(2), ["capital"]), 50)]


def test_an_unknown_relation_is_named():
    with pytest.raises(WrongPrompt, match='relations is one of capital, .*, not "capitals". Did you mean "capital"'):
        next(facts(Random(0), ["capitals"]))
