"""Options, letters and samples: against the bare model, token by token."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongPrompt, WrongToken
from patchclamp.probe import choices as c

PROMPTS = ["Mary Holt works as a", "In the evening, Mary Holt plays the"]


def by_hand(town, prompt, option):
    """Log-probability of the option's tokens, by the bare module."""
    ids = town.tokenizer(prompt + option, return_tensors="pt").input_ids
    before = len(town.tokenizer(prompt).input_ids)
    with torch.no_grad():
        logs = town.hf(input_ids=ids).logits.log_softmax(-1)
    return [float(logs[0, at - 1, ids[0, at]]) for at in range(before, ids.shape[1])]


def test_one_token_options_are_read_from_one_pass(town):
    options = [[" doctor", " baker"], [" cello", " harp"]]
    found = c.score(town, PROMPTS, options)
    for row, (prompt, mine) in enumerate(zip(PROMPTS, options)):
        assert found[row].tolist() == pytest.approx([sum(by_hand(town, prompt, option)) for option in mine], abs=1e-4)


@pytest.mark.parametrize("by", ["sum", "mean"])
def test_longer_options_are_summed_or_averaged(town, by):
    options = [[" doctor.", " baker for many years"], [" cello", " harp like Mary Holt"]]
    found = c.score(town, PROMPTS, options, by=by)
    for row, (prompt, mine) in enumerate(zip(PROMPTS, options)):
        for column, option in enumerate(mine):
            each = by_hand(town, prompt, option)
            assert float(found[row, column]) == pytest.approx(sum(each) / (len(each) if by == "mean" else 1), abs=1e-4)


def test_p_true_is_the_share_of_the_two_answers(town):
    question = "Bruno says that Mary Holt works as a doctor. That is"
    with torch.no_grad():
        logits = town.hf(**town.tokenizer(question, return_tensors="pt")).logits[0, -1]
    yes, no = (float(logits[town.token(word)].exp()) for word in (" true", " false"))
    assert float(c.p_true(town, [question], " true", " false")) == pytest.approx(yes / (yes + no), abs=1e-5)
    with pytest.raises(WrongToken, match="the two answers"):
        c.p_true(town, [question], " true", "true")


def test_letters_stand_before_their_options():
    text = c.lettered("Which?", ["red", "blue", "green"])
    assert text.splitlines() == ["Which?", " (A) red", " (B) blue", " (C) green", "Answer:"]
    assert c.letters(3) == [" A", " B", " C"]
    assert c.lettered("Which?", ["red", "blue", "green"], none=c.NONE).splitlines()[3] == " (C) none of the above"
    with pytest.raises(WrongPrompt, match="26 letters"):
        c.lettered("Which?", ["one"] * 27)


def test_samples_come_as_often_as_they_are_likely(town):
    drawn = c.samples(town, PROMPTS[:1], 4000)
    with torch.no_grad():
        chances = town.hf(**town.tokenizer(PROMPTS[0], return_tensors="pt")).logits[0, -1].softmax(-1)
    top = int(chances.argmax())
    assert float((drawn == top).float().mean()) == pytest.approx(float(chances[top]), abs=0.03)
    assert float(c.knows(drawn, torch.tensor([top]))) == pytest.approx(float((drawn == top).float().mean()))
    assert torch.equal(drawn, c.samples(town, PROMPTS[:1], 4000))


def test_a_colder_model_says_one_thing(town):
    assert c.samples(town, PROMPTS, 20, temperature=0.01).unique(dim=1).shape[1] == 1


def test_questions_that_cannot_be_scored_are_refused(town):
    with pytest.raises(ShapeMismatch, match="all of one length"):
        c.score(town, PROMPTS, [[" doctor"], [" cello", " harp"]])
    with pytest.raises(WrongPrompt, match="token of its own"):
        c.score(town, ["Mary Holt works as a"], [["", " doctor"]])
    with pytest.raises(ValueError, match='"sum" or "mean"'):
        c.score(town, PROMPTS, [[" doctor"]] * 2, by="median")
