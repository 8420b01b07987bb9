"""Drawing: the same seed draws the same different pairs, and only those that a tokenizer cuts as they need to be cut."""

import warnings

import pytest

from patchclamp.core.errors import WrongPrompt
from patchclamp.core.pair import aligned, fitting, misfit
from patchclamp.specimens.town.newcomers import PARROT
from patchclamp.specimens.town.tokenizer import tokenizer
from patchclamp.task.tasks import TASKS, UnknownTask, draw

TOWN = tokenizer(128)
OWN = [name for name in TASKS if not name.startswith("town/")]


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_draws_the_same_different_pairs(name):
    pairs = draw(name, 20, seed=1)
    assert pairs == draw(name, 20, seed=1) == draw(name, 30, seed=1)[:20]
    assert pairs != draw(name, 20, seed=2)
    assert len({(pair.clean, pair.corrupt) for pair in pairs}) == 20


@pytest.mark.parametrize("name", TASKS)
def test_a_pair_is_whole(name):
    for pair in draw(name, 50):
        assert pair.answers and pair.wrongs and pair.kind
        assert pair.roles or name == "town/topic"
        assert set(pair.roles) == set(pair.corrupt_roles)
        assert not set(pair.answers) & set(pair.wrongs) and pair.clean == pair.clean.rstrip()
        assert "{" not in f"{pair.clean}{pair.corrupt}"


@pytest.mark.parametrize("name", [name for name in OWN if name != "facts"])
def test_gpt2_reads_every_pair_as_it_should_be_read(bpe, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = draw(name, 100)
        assert fitting(pairs, bpe) == pairs


@pytest.mark.parametrize("options", [{"corruption": "third"}, {"corruption": "names"}, {"orders": ["BABA"]}])
def test_gpt2_reads_every_kind_of_ioi(bpe, options):
    assert aligned(draw("ioi", 100, **options), bpe).keys() == {"IO", "S1", "S2", "end"}


@pytest.mark.parametrize("name", ["facts", "town/greater_than", "town/agreement", "town/pronouns"])
def test_what_a_tokenizer_cuts_otherwise_is_passed_over(bpe, name):
    pairs = draw(name, 40, tokenizer=bpe)
    assert len(pairs) == 40 and all(misfit(pair, bpe) == "" for pair in pairs)
    everything = draw(name, 400)
    assert [pair for pair in everything if misfit(pair, bpe) == ""][:40] == pairs, "the others come in the same order"


def test_a_task_of_words_can_be_asked_in_the_words_of_the_town():
    pairs = draw("induction", 20, tokenizer=TOWN, vocab=PARROT)
    at = aligned(pairs, TOWN)
    assert all(answer == earlier + 1 for answer, earlier in zip(at["answer"], at["earlier"]))


def test_ids_are_drawn_without_a_tokenizer():
    assert all(isinstance(pair.clean, tuple) for pair in draw("induction", 5, vocab=range(50)))


def test_a_task_with_fewer_pairs_says_how_many():
    with pytest.raises(WrongPrompt, match="brackets has only 2 different pairs; ask for that many"):
        draw("brackets", 3, length=2, failures=["negative"])
    assert len(draw("brackets", 2, length=2, failures=["negative"])) == 2


def test_a_task_that_no_tokenizer_can_read_says_what_was_left_out():
    with pytest.raises(WrongPrompt, match=r"docstring has only 0 .* leaving out \d+ x a word is not in the vocabulary"):
        draw("docstring", 3, tokenizer=TOWN)


def test_unknown_names_and_options_are_met_with_the_nearest():
    with pytest.raises(
        UnknownTask, match='there is no task "agrement". Did you mean "agreement"\\? The tasks are ioi, greater_than'
    ):
        draw("agrement", 1)
    with pytest.raises(
        UnknownTask,
        match='ioi has no option "corruptions"; its options are corruption, orders, templates. Did you mean "corruption"',
    ):
        draw("ioi", 1, corruptions="swap")
    with pytest.raises(
        UnknownTask, match='town/agreement has no option "attractor"; its options are held_out, attractors. Did you mean'
    ):
        draw("town/agreement", 1, attractor=2)
    with pytest.raises(UnknownTask, match='capitals has no option "k"; it has none'):
        draw("capitals", 1, k=2)
