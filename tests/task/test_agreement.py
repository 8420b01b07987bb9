"""Agreement: the verb has the number of the noun that no preposition governs, and all other nouns have the other one."""

import re
from itertools import islice
from random import Random

import pytest

from patchclamp.task.agreement import agreement

PREPOSITIONS = {"in", "to", "from", "near", "behind", "beside", "opposite", "of"}


def parse(text):
    """The subject and the nouns between it and the verb, by grammar alone."""
    said = [
        (before, noun)
        for before, noun in re.findall(r"(?:(\w+),? )?[Tt]he (\w+)", re.sub(r"\b(the \w+) (?=the )", r"\1, ", text))
    ]
    free = [i for i, (before, _) in enumerate(said) if before.lower() not in PREPOSITIONS]
    assert len(free) == 1, text
    return said[free[0]][1], [noun for _, noun in said[free[0] + 1 :]]


@pytest.mark.parametrize("attractors", [0, 1, 2, 3])
def test_the_verb_follows_the_subject_and_every_noun_between_is_a_trap(attractors):
    for pair in islice(agreement(Random(0), attractors), 200):
        for text, verbs, others in ((pair.clean, pair.answers, pair.wrongs), (pair.corrupt, pair.wrongs, pair.answers)):
            subject, _ = parse(text)
            assert all(verb.endswith("s") != subject.endswith("s") for verb in verbs)
            assert all(verb.endswith("s") == subject.endswith("s") for verb in others)
        subject, traps = parse(pair.clean)
        assert len(traps) == attractors and all(trap.endswith("s") != subject.endswith("s") for trap in traps)
        assert pair.kind == ("plural" if subject.endswith("s") else "singular")
        assert [pair.clean[slice(*at)] for at in pair.roles.values()] == [subject, *traps]


def test_only_the_subject_changes():
    for pair in islice(agreement(Random(1), 2), 100):
        (a, b), (c, d) = pair.roles["subject"], pair.corrupt_roles["subject"]
        assert pair.clean[:a] + pair.clean[b:] == pair.corrupt[:c] + pair.corrupt[d:]


def test_both_numbers_and_all_verbs_come_first():
    pairs = list(islice(agreement(Random(2)), 500))
    assert {pair.kind for pair in pairs} == {"singular", "plural"}
    assert len({pair.answer for pair in pairs}) == 14
    assert all(len(pair.answers) == len(pair.wrongs) == 7 for pair in pairs)
