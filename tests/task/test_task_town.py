"""The town's items as pairs: their roles are at the tokens that the items say, in both prompts."""

from itertools import islice
from random import Random

import pytest

import patchclamp as pc
from patchclamp.core.pair import END, misfit, role_tokens
from patchclamp.specimens.town.tasks import TASKS as ITEMS
from patchclamp.specimens.town.tokenizer import tokenizer
from patchclamp.specimens.town.world import town as world
from patchclamp.task.tasks import draw
from patchclamp.task.town import TASKS, as_pair

TOWN = tokenizer(128)


@pytest.mark.parametrize("task", ITEMS)
def test_a_role_is_at_the_token_that_the_item_says(task):
    for item in islice(ITEMS[task](world(0), Random(task)), 100):
        pair = as_pair(item)
        for side in ("clean", "corrupt") if item.corrupt else ("clean",):
            assert role_tokens(pair, TOWN, side) == {END: item.positions["end"]} | item.positions
        assert (pair.clean, pair.corrupt, pair.answers, pair.wrongs, pair.kind) == (
            item.clean, item.corrupt, item.answers, item.wrongs, item.kind
        )  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_all_that_the_town_is_asked_fits_its_tokenizer(name):
    for pair in islice(TASKS[name](Random(0)), 100):
        assert misfit(pair, TOWN) == ""
        assert (pair.corrupt is None) == (name == "town/topic")


def test_the_options_of_an_item_are_those_of_its_pairs():
    assert all(len(pair.roles) == 1 for pair in islice(TASKS["town/agreement"](Random(0), attractors=3), 5))


def test_the_model_of_the_town_answers_its_pairs(town):
    pairs = draw("town/ioi", 24, tokenizer=town.tokenizer)
    run = town.run([pair.clean for pair in pairs])
    found = town.metric(pc.logit_diff([p.answer for p in pairs], [p.wrong for p in pairs]), run)(run.logits)
    assert (found > 0).float().mean() > 0.9
