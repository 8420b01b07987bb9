"""Readings against torch's own distributions, at every odd size; and the same numbers whatever is looked at together."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from patchclamp.lenses import readings
from patchclamp.lenses.readings import Output


def pair(rows, vocab, scale=3.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows * vocab)
    truth = scale * torch.randn(rows, vocab, generator=generator) - 100  # GPT-2's logits lie around -100
    return truth.to(dtype), (truth + torch.randn(rows, vocab, generator=generator)).to(dtype)


@pytest.mark.parametrize(("rows", "vocab"), [(1, 2), (5, 63), (7, 128), (3, 129), (11, 1097), (2, 50257)])
def test_they_are_what_torch_says(rows, vocab):
    truth, said = pair(rows, vocab)
    found, p, q = Output(truth).read(said), Categorical(logits=truth), Categorical(logits=said)
    assert torch.allclose(found["KL"], kl_divergence(p, q), atol=1e-4)
    assert torch.allclose(found["entropy"], q.entropy(), atol=1e-4)
    assert torch.equal(found["token"], said.argmax(-1))
    assert torch.allclose(found["probability"], q.probs.amax(-1), atol=1e-6)
    first = truth.argmax(-1, keepdim=True)
    assert torch.allclose(found["p(output)"], q.probs.gather(-1, first)[:, 0], atol=1e-6)
    assert torch.equal(found["rank"], (said > said.gather(-1, first)).sum(-1).float())


def test_of_the_output_itself_the_divergence_is_exactly_zero():
    truth, _ = pair(9, 5000, scale=30.0)
    found = Output(truth).read(truth.clone())
    assert torch.equal(found["KL"], torch.zeros(9)) and torch.equal(found["rank"], torch.zeros(9))
    assert torch.equal(found["p(output)"], found["probability"])


def test_how_much_is_looked_at_together_does_not_matter(monkeypatch):
    truth, said = pair(23, 400)
    whole = Output(truth).read(said)
    monkeypatch.setattr(readings, "CACHED", 900)  # two rows at a time
    monkeypatch.setattr(readings, "KEPT", 0)  # and the output's probabilities taken anew
    for name, value in Output(truth).read(said).items():
        assert torch.allclose(value.float(), whole[name].float(), atol=1e-6), name


def test_half_precision_is_read_in_single():
    truth, said = pair(4, 300, dtype=torch.bfloat16)
    found, exact = Output(truth).read(said), Output(truth.float()).read(said.float())
    assert all(torch.equal(found[name], exact[name]) for name in exact)


def test_of_equal_logits_the_first_token_is_the_top():
    said = torch.zeros(1, 500)
    said[0, [77, 300, 499]] = 4.0
    assert Output(said).read(said)["token"].tolist() == [77] == said.argmax(-1).tolist()
    said[0, 499] = 5.0  # in the rest that fills no block
    assert Output(said).read(said)["token"].tolist() == [499]


def test_impossible_tokens_count_for_nothing_and_a_possible_one_ruled_out_for_infinity():
    truth, said = torch.tensor([[2.0, 1.0, -torch.inf]]), torch.tensor([[1.0, 1.0, -torch.inf]])
    found = Output(truth).read(said)
    by_hand = kl_divergence(Categorical(logits=truth[:, :2]), Categorical(logits=said[:, :2]))
    assert torch.allclose(found["KL"], by_hand) and torch.allclose(found["entropy"], torch.tensor(2.0).log())
    assert Output(torch.zeros(1, 3)).read(said)["KL"].isinf().all()
