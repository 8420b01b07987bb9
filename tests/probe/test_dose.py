"""Dose and response: what is said and what it costs, beside random directions of equal length."""

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import NotSaved, Unserved, WrongPrompt
from patchclamp.core.journal import keeping
from patchclamp.probe.direction import random_like
from patchclamp.probe.dose import Response, dose, nats, says, writes
from patchclamp.probe.steering import renormed

SAD = [f"The {show} was {word}. We went home" for show in ("film", "soup", "poem") for word in ("dull", "boring")]
SITE, STEP = (
    "blocks.2.out",
    20 * torch.nn.functional.normalize(torch.randn(128, generator=torch.Generator().manual_seed(5)), dim=0),
)
TEXT = ["When Mary and John went to the store, John gave a drink to Mary.", "The film was dull."]


@pytest.fixture(scope="module")
def response(town):
    return dose(
        town, SITE, STEP, (0, 1, 2), SAD, measure=pc.prob(" bored"), text=TEXT, randoms=2, against={"other": torch.ones(128)}
    )


def test_every_number_is_that_of_the_steered_model_by_hand(town, response):
    lines = {
        "steered": STEP,
        "random 1": random_like(STEP, 0),
        "random 2": random_like(STEP, 1),
        "other": torch.ones(128) * float(STEP.norm()) / 128**0.5,
    }
    assert response.behaviour.words("along") == list(lines) and response.behaviour.words("dose") == ["0", "1", "2"]
    for row, line in enumerate(lines.values()):
        for column, size in enumerate((0, 1, 2)):
            steered = town.edit(pc.steer(SITE, size * line))
            said = [float(steered.run(p).next().values[town.token(" bored")]) for p in SAD]
            assert torch.allclose(response.behaviour.each[:, row, column], torch.tensor(said), atol=1e-4)
            losses = []
            for text in TEXT:
                for model, sign in ((steered, 1), (town, -1)):
                    run = model.run(text)
                    losses.append(sign * torch.nn.functional.cross_entropy(run.logits[0, :-1], run.tokens[0, 1:]))
            assert float(response.cost.values[row, column]) == pytest.approx(float(sum(losses)) / 2, abs=1e-3)


def test_no_dose_costs_nothing_and_says_nothing_else(response):
    assert float(response.cost.values[:, 0].abs().max()) < 1e-5
    assert float(response.behaviour.values[:, 0].std()) < 1e-6


def test_random_ones_are_gathered_and_others_are_not(response):
    assert torch.allclose(response.chance.values, response.behaviour.values[1:3].mean(0))
    assert bool((response.chance.details["low"] <= response.chance.details["high"]).all())
    assert response.effect.axes == ("dose",) and torch.equal(response.effect.values, response.behaviour.values[0])
    assert bool((response.effect.details["low"] <= response.effect.values).all())


def test_it_is_drawn_with_bands(response, capsys):
    page = response.picture()
    lines = page.sections[0].pictures[0]
    assert [one.name for one in lines.series] == ["steered", "random"] and all(one.low is not None for one in lines.series)
    response.show()
    assert "What it costs" in capsys.readouterr().out and "<svg" in response.html()


def test_saved_and_loaded_it_is_the_same(response, tmp_path):
    again = Response.load(response.save(tmp_path))
    assert torch.equal(again.behaviour.values, response.behaviour.values) and again.doses == response.doses
    assert torch.equal(again.cost.values, response.cost.values) and torch.equal(again.chance.values, response.chance.values)


def test_another_way_of_steering_can_be_dosed(town):
    found = dose(town, SITE, STEP, (1,), SAD[:1], measure=pc.prob(" bored"), text=TEXT, by=renormed, randoms=1)
    alone = town.edit(renormed(SITE, STEP)).run(SAD[0]).next().values[town.token(" bored")]
    assert float(found.effect.values[0]) == pytest.approx(float(alone), abs=1e-5)


def test_finished_doses_are_not_run_again(town, tmp_path):
    calls = []

    def counted(model, prompts):
        calls.append(1)
        return says([" bored"])(model, prompts)

    for _ in range(2):
        with keeping(tmp_path / "work"):
            dose(town, SITE, STEP, (0, 1), SAD, measure=counted, text=TEXT, randoms=1)
    assert len(calls) == 4


def test_another_measure_is_another_question(town, tmp_path):
    """Also where it has the same name: what it wants tells it apart, in what is kept."""
    with keeping(tmp_path / "work"):
        dose(town, SITE, STEP, (0, 1), SAD, measure=says([" bored"]), text=TEXT, randoms=0)
    with keeping(tmp_path / "work"), pytest.raises(NotSaved, match="about something else"):
        dose(town, SITE, STEP, (0, 1), SAD, measure=says([" happy"]), text=TEXT, randoms=0)


def test_says_wants_the_likeliest_of_all_tokens(town):
    top = [town.run(p).next().top(1)[0][0]["vocab"] for p in SAD]
    assert says(top)(town, SAD).tolist() == [1.0] * len(SAD)
    assert says([top[0]])(town, SAD).tolist() == [float(word == top[0]) for word in top]


def test_writes_counts_words_and_babble_against(town):
    told = town.generate(SAD[0], 4).new[0]
    word = told.strip(" .").split()[0].strip(".")
    assert writes([f" {word}"], [" happy"], 4)(town, SAD[:1]).tolist() == [1.0]
    assert writes([" happy"], [f" {word}"], 4)(town, SAD[:1]).tolist() == [0.0]
    assert writes([" Mary"], [" John"], 4)(town, SAD[:1]).tolist() == [0.0]


def test_mistakes_are_named(town):
    with pytest.raises(WrongPrompt, match="needs prompts, ordinary text"):
        dose(town, SITE, STEP, (1,), SAD, measure=pc.prob(" bored"), text=[])
    with pytest.raises(WrongPrompt, match="a text of one token"):
        nats(town, [[5]])
    alone = dose(town, SITE, STEP, (1,), SAD, measure=pc.prob(" bored"), text=TEXT, randoms=0)
    with pytest.raises(Unserved, match="no random directions"):
        alone.show()
