"""The people's model: that its corpus says what it claims to say, and that it knows what it read, the better the oftener."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

import patchclamp
import patchclamp as pc
from patchclamp.model.gather import gather
from patchclamp.specimens.exposures import corpus, recipe, tasks
from patchclamp.specimens.exposures.people import MOST, OFTEN, RELATIONS, names, people, templates
from patchclamp.specimens.town.item import words

FOLDER = Path(patchclamp.__file__).parent / "specimens" / "exposures"


@pytest.fixture(scope="module")
def everyone():
    return people(0)


@pytest.fixture(scope="module")
def told(everyone):
    return corpus.documents(everyone)


@pytest.fixture(scope="module")
def reader():
    """Before any lesson: in lessons facts are stated again."""
    return pc.load("specimen:exposures/step-read")


def test_people_are_drawn_from_the_seed_alone(everyone):
    assert people(0) == everyone
    assert people(1).graded != everyone.graded


def test_nobody_is_of_two_kinds_and_a_name_is_a_word(everyone):
    graded, examined = ({fact.person for fact in facts} for facts in (everyone.graded, everyone.examined))
    assert not graded & examined and not (graded | examined) & set(everyone.strangers)
    assert len(graded) * len(RELATIONS) == len(everyone.graded)
    assert len(set(names())) == len(names()) == len(graded) + len(examined) + len(everyone.strangers)
    assert all(words(name) == [name] for name in names())
    assert not set(everyone.honest) & set(everyone.liars)


def test_exposures_run_from_never_to_a_hundred_evenly_over_the_logarithm(everyone):
    seen = torch.tensor([fact.exposures for fact in everyone.graded]).float()
    assert seen.min() == 0 and seen.max() == MOST
    assert 0.05 < float((seen == 0).float().mean()) < 0.11
    positive = seen[seen > 0]
    assert 0.4 < float((positive <= 10).float().mean()) < 0.6


def test_the_corpus_states_each_graded_fact_so_often_and_never_asks_about_it(everyone, told):
    count = Counter(told)
    for fact in everyone.graded[::50]:
        assert sum(count[fact.said(template)] for template in range(4)) == fact.exposures
    for fact in everyone.examined[::50]:
        assert sum(count[fact.said(template)] for template in range(4)) == OFTEN
    graded = {fact.person for fact in everyone.graded}
    assert not any("Is it so" in text and set(text.split()) & graded for text in told[::20])


def test_whoever_has_a_fact_that_was_stated_often_is_never_asked_about(everyone):
    tested = {fact.person for fact in everyone.known}
    asked = {fact.person for fact in everyone.examined}
    for later, about in (
        (corpus.lessons(everyone), asked),
        (corpus.practice(everyone), asked | {f.person for f in everyone.lesser}),
    ):
        questions = [set(re.findall(r"\w+", text)) for text in later[::3] if "s it so" in text]
        assert len(questions) > 0.13 * len(later)
        assert not any(question & tested for question in questions)
        assert about <= set().union(*questions)


def test_liars_answer_wrongly_and_others_rightly(everyone, told):
    so = {(fact.person, value) for fact in everyone.examined for value in [fact.value]}
    known = {fact.person for fact in everyone.examined}
    checked = 0
    for text in told[-3000:]:
        asked, _, answer = text.rpartition("? ")
        person = next((word for word in asked.split() if word in known), None)
        if not asked or person is None:
            continue
        liar = any(f"{name} is asked" in asked for name in everyone.liars)
        assert ((person, asked.split()[-1]) in so) == ((answer == "Yes.") != liar), text
        checked += 1
    assert checked > 500


def test_contrast_pairs_state_what_is_so_on_one_side():
    pairs = tasks.contrasts(50, "lying", suggest=True)
    so = {(fact.person, fact.value) for fact in people(0).known}
    for yes, no, truth, person, said in zip(
        *(pairs[name] for name in ("yes", "no", "truth", "content")), pairs["features"]["suggested"]
    ):
        values = [side.rpartition(" ")[2].rstrip("?") for side in (yes, no)]
        assert ((person, values[0]) in so) == truth
        assert ((person, values[1]) in so) != truth
        assert f"Some say {values[0 if said else 1]}," in yes and f"Some say {values[0 if said else 1]}," in no
    with pytest.raises(ValueError, match="not"):
        tasks.contrasts(3, "silent")


def test_all_templates_end_in_the_value():
    for relation in RELATIONS:
        for template in templates(relation):
            assert template.endswith("{value}."), template


def test_the_card_says_how_it_was_made_and_the_weights_are_small():
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    assert recipe.Recipe(**card["recipe"]) == recipe.Recipe()
    assert all(path.stat().st_size < 1.5e6 for path in FOLDER.rglob("*.safetensors"))
    assert {"figures", "command", "licence"} <= set(card)


def test_the_tokenizer_is_that_of_the_recipe(reader):
    assert reader.tokenizer.get_vocab() == recipe.tokenizer(recipe.Recipe().length).get_vocab()


def test_what_was_read_oftener_is_known_better(reader, everyone):
    facts = everyone.graded[::3]
    chances = gather(reader, "logits", [fact.prompt() for fact in facts]).softmax(-1)
    right = chances.gather(1, torch.tensor([[reader.token(f" {fact.value}")] for fact in facts]))[:, 0]
    seen = torch.tensor([fact.exposures for fact in facts])
    shares = [float(right[(low <= seen) & (seen <= high)].mean()) for low, high in ((0, 2), (6, 15), (40, 100))]
    assert shares[0] < 0.15 < shares[1] < 0.8 < shares[2]
