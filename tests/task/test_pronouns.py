"""Gendered pronouns: the pronoun is that of the name, and the corrupt name is of the other gender."""

from itertools import islice
from random import Random

from patchclamp.task.pronouns import FORMS, TEMPLATES, pronouns
from patchclamp.task.words import FEMALE, MALE

SHE, HE = {" she", " her", " herself"}, {" he", " his", " himself"}


def test_the_pronoun_is_that_of_the_name():
    for pair in islice(pronouns(Random(0)), 400):
        name, other = pair.clean[slice(*pair.roles["name"])], pair.corrupt[slice(*pair.corrupt_roles["name"])]
        assert (pair.answer in SHE) == (name in FEMALE) == (other in MALE)
        assert (pair.wrong in HE) == (name in FEMALE) and pair.answer.strip() not in pair.clean.split()
        assert pair.clean.replace(name, "") == pair.corrupt.replace(other, "")


def test_both_genders_and_all_forms_come():
    pairs = list(islice(pronouns(Random(1)), 1000))
    assert {pair.answer for pair in pairs} == SHE | HE and {pair.kind for pair in pairs} == set(FORMS)
    assert 0.45 < sum(pair.answer in SHE for pair in pairs) / len(pairs) < 0.55
    assert len(TEMPLATES) >= 10
