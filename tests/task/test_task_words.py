"""The words are different ones, nouns and verbs have two forms, and GPT-2 reads each as one token."""

import pytest

from patchclamp.specimens.town.lexicon import PRONOUNS
from patchclamp.task import words
from patchclamp.task.facts import RELATIONS
from patchclamp.task.pronouns import PEOPLE

LISTS = {
    name: getattr(words, name) for name in ("FEMALE", "MALE", "PLACES", "THINGS", "EVENTS", "ARGUMENTS", "FILLERS", "ORDINALS")
}


@pytest.mark.parametrize("name", LISTS)
def test_no_word_stands_twice_in_a_list(name):
    assert len(set(LISTS[name])) == len(LISTS[name])


def test_nobody_has_two_genders_and_no_argument_is_a_filler():
    assert not set(words.FEMALE) & set(words.MALE)
    assert not set(words.ARGUMENTS) & set(words.FILLERS)


def test_every_noun_and_verb_has_two_forms_that_tell_their_number():
    assert all(one != many and many.endswith("s") and not one.endswith("s") for one, many in words.NOUNS.items())
    assert all(one.endswith("s") and not many.endswith("s") for one, many in words.VERBS.items())


def test_gpt2_reads_every_word_as_one_token(bpe):
    forms = [form for table in (words.NOUNS, words.VERBS) for forms in table.items() for form in forms]
    forms += [form for gender in PRONOUNS.values() for form in gender.values()]
    values = [value for relation in RELATIONS.values() for value in relation.values.values()]
    everything = {*forms, *values, *PEOPLE, *RELATIONS["capital"].values, *(word for one in LISTS.values() for word in one)}
    assert [word for word in sorted(everything) if len(bpe(f" {word}")["input_ids"]) != 1] == []


def test_the_tokenizer_of_these_tests_is_that_of_gpt2(bpe, shared):
    text = (shared / "data" / "text" / "tinyshakespeare.txt").read_text()[:2000]
    assert bpe.decode(bpe(text)["input_ids"]) == text
    assert bpe("Hello world, the year 1732")["input_ids"] == [15496, 995, 11, 262, 614, 1596, 2624]
