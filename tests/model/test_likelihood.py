"""Likelihood: equal to the bare model's own loss, and to masking tokens one by one."""

import pytest
import torch

import patchclamp as pc
import words
import zoo
from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.model import likelihood
from patchclamp.model.likelihood import batches, log_probability, surprisals

TEXTS = ["the cat saw a dog .", "a ball", "the big red ball and the dog ran home"]


@pytest.fixture(scope="module")
def causal():
    return pc.load(zoo.build("llama"), words.tokenizer())


@pytest.fixture(scope="module")
def bert():
    return pc.load(zoo.build("bert", "masked"), words.tokenizer())


def test_a_causal_model_gives_minus_its_own_loss_and_padding_does_not_matter(causal):
    found = log_probability(causal, TEXTS)
    for text, value in zip(TEXTS, found.tolist()):
        ids = torch.tensor([[1, *[t for t in causal.tokenizer(text)["input_ids"] if t > 2]]])
        with torch.no_grad():
            assert value == pytest.approx(-float(causal.hf(ids, labels=ids).loss) * (ids.shape[1] - 1), abs=1e-3)


def test_what_stands_before_the_text_is_asked_for_and_not_scored(causal):
    ids = causal.tokenizer("the cat saw", add_special_tokens=False)["input_ids"]
    run = causal.run([[1, *ids]])
    expected = run.logits[0].log_softmax(-1)
    by_hand = sum(float(expected[n, t]) for n, t in enumerate(ids))
    assert float(log_probability(causal, ["the cat saw"])[0]) == pytest.approx(by_hand, abs=1e-5)
    assert float(surprisals(run).sum()) == pytest.approx(-by_hand, abs=1e-5)


def test_a_masked_model_is_asked_for_each_token_with_that_one_masked(bert):
    found = log_probability(bert, TEXTS)
    for text, value in zip(TEXTS, found.tolist()):
        ids, total = bert.tokenizer(text)["input_ids"], 0.0
        for n, token in enumerate(ids):
            if token > 3:
                row = torch.tensor([[*ids[:n], 3, *ids[n + 1 :]]])
                with torch.no_grad():
                    total += float(bert.hf(row).logits[0, n].log_softmax(-1)[token])
        assert value == pytest.approx(total, abs=1e-3)


def test_batches_hold_every_text_once_and_no_more_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(likelihood, "ROOM", 100)
    lengths = [3, 30, 7, 7, 2, 60]
    made = list(batches(lengths, 2))
    assert sorted(i for part in made for i in part) == list(range(6))
    assert all(len(part) * max(lengths[i] for i in part) * 2 <= 100 for part in made if len(part) > 1)


def test_what_has_no_probability_is_refused(causal, bert):
    with pytest.raises(WrongPrompt, match="no text"):
        log_probability(causal, [])
    with pytest.raises(WrongPrompt, match="text 1 is 1 token"):
        log_probability(causal, [[5, 6], [5]])
    with pytest.raises(Unserved, match="no mask token"):
        log_probability(pc.load(bert.hf), [[5, 6]])
    with pytest.raises(Unserved, match="reads one text and writes another"):
        log_probability(pc.load(zoo.build("t5", "seq2seq")), [[5, 6]])
