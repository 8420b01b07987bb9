"""Skip-trigrams, and the bugs that a head has because it is factored: planted, learned, read off the weights and seen in behaviour."""

import pytest
import torch

import attention_only
from patchclamp.core.errors import WrongToken
from patchclamp.matrix.trigrams import Trigrams
from patchclamp.matrix.worlds import AT, BAY, FAST, HOLD, IN, KEEP, MIND, PLACE, RULES, ending, skip_trigrams

WANTED = [(word, query, out) for (word, query), out in RULES.items()]
HEAD = "blocks.0.attn.z[head=0]"


@pytest.fixture(scope="module")
def taught():
    return skip_trigrams()


def test_rules_that_were_taught_are_the_strongest_of_their_sources(taught):
    assert all(ending(taught, source, query)[out] > 0.8 for (source, query), out in RULES.items())
    found = Trigrams.of(taught, HEAD)
    for source, mine in ((KEEP, {MIND, BAY}), (HOLD, {PLACE, FAST})):
        outs = found.said.row(source).values
        assert set(outs.topk(2).indices.tolist()) == mine and outs.topk(2).values.min() > 2 * outs.topk(3).values[2].clamp(
            min=0
        )
    first = found.strongest(4)
    assert {t.source for t in first} <= {str(KEEP), str(HOLD)} and {int(t.out) for t in first} <= {MIND, BAY, PLACE, FAST}


def test_the_bugs_are_there_in_the_weights_and_in_what_the_model_says(taught):
    found = Trigrams.of(taught, HEAD)
    bugs = found.bugs(WANTED)
    assert {(int(b.source), int(b.query), int(b.out)) for b in bugs} == {
        (KEEP, IN, BAY),
        (KEEP, AT, MIND),
        (HOLD, IN, FAST),
        (HOLD, AT, PLACE),
    }
    assert all(b.strength > 0 for b in bugs)
    for b in bugs:
        source, query, bug = int(b.source), int(b.query), int(b.out)
        other = [o for o in range(8, 16) if o not in (bug, RULES[source, query])]
        assert (
            ending(taught, source, query)[bug] > 1.3 * ending(taught, source, query)[other].max()
        )  # never in the data, and said above the rest
    grid = found.grid(KEEP, [IN, AT], [MIND, BAY])
    assert torch.linalg.matrix_rank(grid.values, atol=1e-3) == 1  # a product, whatever one would like
    assert grid.axes == ("query", "out") and float(grid.values[0, 1]) == pytest.approx(
        found.one(KEEP, IN, BAY).strength, rel=1e-4
    )


def test_strengths_are_attention_beside_an_average_token_times_the_logit():
    model = attention_only.drawn(layers=1, heads=1, positional="none", bias=False)
    found, w = Trigrams.of(model, HEAD), model.weights
    E, U = w["embed.W_E"], w["logits.W_U"]
    scores = (E @ w["blocks.0.attn.W_Q"][0]) @ (E @ w["blocks.0.attn.W_K"][0]).T / 8**0.5
    values = E @ w["blocks.0.attn.W_V"][0] @ w["blocks.0.attn.W_O"][0] @ U
    looks, says = (scores[3] - scores[3].mean())[7].sigmoid(), (values[7] - values[7].mean())[11]
    assert found.one(7, 3, 11).strength == pytest.approx(float(looks * says), rel=1e-3)
    dense = (scores - scores.mean(1, keepdim=True)).sigmoid().T[:, :, None] * (values - values.mean(1, keepdim=True))[:, None]
    best = found.strongest(1, queries=40, outs=40, own=True)[0]
    assert best.strength == pytest.approx(float(dense.max()), rel=1e-3)
    three = found.strongest(20)
    assert all(len({t.source, t.query, t.out}) == 3 for t in three) and str(three[0]).count("->") == 1


def test_bugs_need_two_trigrams_of_one_source(taught):
    with pytest.raises(WrongToken, match="share a source"):
        Trigrams.of(taught, HEAD).bugs([(KEEP, IN, MIND), (HOLD, AT, FAST)])
