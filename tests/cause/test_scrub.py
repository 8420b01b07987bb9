"""Causal scrubbing: what is true recovers the loss, what is false does not, and what is half true recovers its share."""

import pytest
import torch

import patchclamp as pc
import planted
from patchclamp.cause.abstraction import Location, WrongHypothesis
from patchclamp.cause.scrub import Interpretation, scrub
from patchclamp.core.errors import ShapeMismatch, WrongPrompt

AFTER = "blocks.0.out[pos=-1]"
INPUTS = planted.every()
ASKED = {"inputs": INPUTS, "prompt": lambda given: [given["a"], 6 + given["b"], 12]}
LOSS = pc.nll([planted.ANSWERS[(given["a"] + given["b"]) % 3] for given in INPUTS])


@pytest.fixture(scope="module")
def total():
    return planted.total()


def x(given):
    return given["a"] % 3


def y(given):
    return given["b"] % 3


def both(given):
    return x(given), y(given)


def answer(given):
    return (x(given) + y(given)) % 3


def parities(given):
    return given["a"] // 3, given["b"] // 3


def recovered(model, *tree, **more):
    return scrub(model, tree, loss=LOSS, **ASKED, **more)


# ---- true and false ------------------------------------------------------------------------------------------------------------


def true_trees(turn):
    tokens = [Interpretation("blocks.0.in[pos=0]", x), Interpretation("blocks.0.in[pos=1]", y)]
    return {
        "one node": [Interpretation(AFTER, both)],
        "from the tokens": [Interpretation(AFTER, both, tokens)],
        "the answer alone": [Interpretation("blocks.1.mlp.out[pos=-1]", answer)],
        "the answer from x and y": [Interpretation("blocks.1.mlp.out[pos=-1]", answer, [Interpretation(AFTER, both, tokens)])],
        "a subspace each": [Interpretation(Location(AFTER, turn[:3]), x, tokens[:1]), Interpretation(Location(AFTER, turn[3:6]), y)],
        "only what is read": [Interpretation(Location(AFTER, turn[:6]), both)],
    }  # fmt: skip


def false_trees(turn):
    crossed = [Interpretation("blocks.0.in[pos=0]", y), Interpretation("blocks.0.in[pos=1]", x)]
    return {
        "parities": [Interpretation(AFTER, parities)],
        "x alone": [Interpretation(AFTER, x)],
        "the wrong token": [Interpretation(AFTER, both, [Interpretation("blocks.0.in[pos=2]", both)])],
        "the tokens crossed": [Interpretation(AFTER, both, crossed)],
        "one token is missing": [Interpretation(AFTER, both, [Interpretation("blocks.0.in[pos=0]", x)])],
        "what nothing reads": [Interpretation(Location(AFTER, turn[6:]), both)],
        "another place": [Interpretation("blocks.0.out[pos=1]", both)],
        "nothing in particular": [Interpretation(AFTER, lambda given: None)],
    }


@pytest.mark.parametrize("name", true_trees(torch.eye(16)))
def test_a_true_hypothesis_recovers_the_loss(total, name):
    model, turn = total
    grid = recovered(model, *true_trees(turn)[name])
    assert float(grid.values) >= 0.95 and float(grid.details["low"]) >= 0.95
    assert grid.baseline["model"] < 0.02 and grid.baseline["random"] > 4
    assert grid.baseline["scrubbed"] == pytest.approx(grid.baseline["model"], abs=0.1)


@pytest.mark.parametrize("name", false_trees(torch.eye(16)))
def test_a_false_hypothesis_does_not(total, name):
    model, turn = total
    grid = recovered(model, *false_trees(turn)[name], draws=8)
    assert float(grid.values) < 0.3 and float(grid.details["low"]) < 0.3


def test_half_the_truth_recovers_what_it_is_worth(total):
    """Where 1 and 2 pass for the same, x is right in 1/3 + 2/3 * 1/2 of the cases, and a random answer in 1/3: one half."""
    grid = recovered(total[0], Interpretation(AFTER, lambda given: (x(given) == 0, y(given))), draws=40)
    assert float(grid.details["low"]) < 0.5 < float(grid.details["high"]) and abs(float(grid.values) - 0.5) < 0.06


def test_a_metric_that_grows_with_success_gives_the_same_fraction(total):
    chosen = [planted.ANSWERS[answer(given)] for given in INPUTS]
    tree = [Interpretation(AFTER, parities)]
    for loss in (pc.prob(chosen), lambda logits: pc.prob(chosen)(logits)):
        grid = scrub(total[0], tree, loss=loss, **ASKED)
        assert float(grid.values) < 0.3 and grid.baseline["model"] > 0.98
        assert float(scrub(total[0], [Interpretation(AFTER, both)], loss=loss, **ASKED).values) > 0.99


def test_the_answer_is_a_grid_and_comes_again(total, tmp_path):
    tree = Interpretation(AFTER, parities)
    grid = recovered(total[0], tree, batch=7)
    assert grid.axes == () and grid.unit == "fraction of the gap" and grid.each.shape == (36,)
    assert float(grid.each.mean()) == pytest.approx(float(grid.values), abs=1e-5)
    assert set(grid.baseline) == {"model", "scrubbed", "random"} and "Loss in nats" in grid.note
    assert torch.equal(recovered(total[0], tree, batch=7).values, grid.values)
    assert not torch.equal(recovered(total[0], tree, batch=7, seed=1).values, grid.values)
    assert float(pc.Grid.load(grid.save(tmp_path)).values) == float(grid.values)
    assert not total[0].edits


def test_siblings_and_branches_are_resampled_apart(total):
    """Each child agrees with its parent's input, not with its sibling's."""
    seen = []

    def watched(given):
        seen.append(given)
        return x(given)

    recovered(total[0], Interpretation(AFTER, both, [Interpretation("blocks.0.in[pos=0]", watched)]), draws=1)
    assert len(seen) == len(INPUTS)  # a feature is asked of each input once


# ---- mistakes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "error", "says"),
    [
        ([], WrongHypothesis, "the tree has no node"),
        ([Interpretation(AFTER, lambda given: (given["a"], given["b"]))], WrongHypothesis, "no two of the 36 inputs agree"),
        (
            [Interpretation("blocks.0.in[pos=0]", x, [Interpretation(AFTER, x)])],
            WrongHypothesis,
            "is no earlier than blocks.0.in",
        ),
        ([Interpretation(AFTER, x, [Interpretation(AFTER, x)])], WrongHypothesis, "is no earlier than"),
    ],
)
def test_mistakes_in_a_tree_are_named(total, tree, error, says):
    with pytest.raises(error, match=says):
        scrub(total[0], tree, loss=LOSS, **ASKED)


def test_mistakes_in_a_question_are_named(total):
    tree = [Interpretation(AFTER, x)]
    with pytest.raises(WrongPrompt, match="1 is too few"):
        scrub(total[0], tree, INPUTS[:1], LOSS, prompt=ASKED["prompt"])
    with pytest.raises(WrongPrompt, match="no gap to recover"):
        scrub(total[0], tree, loss=lambda logits: torch.zeros(len(logits)), **ASKED)
    with pytest.raises(ShapeMismatch, match=r"one number per input, a tensor \[36\]; this one gave float"):
        scrub(total[0], tree, loss=lambda logits: 1.0, **ASKED)
