"""What is learned of the small worlds is what is in them."""

import torch

import patchclamp as pc
from patchclamp.matrix.circuit import direct
from patchclamp.matrix.worlds import AT, BAY, ENDINGS, IN, KEEP, MIND, RULES, bigrams, network, sentences, table


def missed(model):
    """KL of the true successors from what the direct path says, in nats."""
    said = direct(model).factored.full().log_softmax(-1)
    return float((table() * (table().log() - said)).sum(-1).mean())


def test_a_model_without_layers_is_the_table_of_bigrams():
    assert missed(bigrams()) < 0.02
    assert missed(pc.load(network(layers=0))) > 0.5  # the control: untrained


def test_sentences_follow_the_rules_and_are_open_without_an_early_word():
    x, y = sentences(2000, torch.Generator().manual_seed(0))
    for (word, query), out in RULES.items():
        assert (y[(x == word).any(1) & (x[:, -1] == query)] == out).all()
    alone = (x[:, :-1] < KEEP).all(1)
    counts = torch.stack([(y[alone] == e).float().mean() for e in ENDINGS])
    assert (counts - 1 / 8).abs().max() < 0.04 and {int(q) for q in x[:, -1]} == {IN, AT} and MIND + 1 == BAY
