"""Alignment: the planted subspace is found, the controls stay at chance, and a dormant pathway is told from an honest one."""

import json

import pytest
import torch

import patchclamp as pc
import planted
import zoo
from patchclamp.cause.abstraction import Hypothesis, Location, WrongHypothesis
from patchclamp.cause.align import DAS, Alignment, Boundless, align, dormant, halves
from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongPrompt

AFTER = "blocks.0.out[pos=-1]"
CHANCE = 1 / 3
NEURONS = "blocks.0.mlp.act[pos=-1]"


@pytest.fixture(scope="module")
def total():
    return planted.total()


@pytest.fixture(scope="module")
def pairs():
    return planted.pairs(planted.every(), 400)


@pytest.fixture(scope="module")
def found(total, pairs):
    return align(total[0], planted.sums({"x": AFTER}), "x", *pairs, DAS(k=2))


def score(alignment, name):
    return float(alignment.scores.at(subspace=name).values)


def inside(rows, basis):
    """The share of directions that lies in an orthonormal basis."""
    return float((rows @ basis.T).square().sum() / rows.square().sum())


# ---- what is found -----------------------------------------------------------------------------------------------------------


def test_the_planted_subspace_is_found(found, total):
    """One of three values takes two dimensions: those in which x differs from x."""
    _, turn = total
    assert found.iia >= 0.99 and found.scores.baseline == {"model": 1.0}
    assert inside(found.directions, turn[:3]) > 0.9 and inside(found.directions, turn[3:6]) < 0.02
    assert torch.allclose(found.directions @ found.directions.T, torch.eye(2), atol=1e-5)


def test_the_controls_stay_near_chance(found):
    assert score(found, "random") < 0.55 and score(found, "untrained") < 0.6
    assert abs(score(found, "nothing") - CHANCE) < 0.12 and abs(score(found, "site") - CHANCE) < 0.15
    assert set(found.scores.details) == {"low", "high"} and found.scores.each.shape == (100, 7)


def test_an_honest_subspace_is_not_flagged(found):
    assert not found.dormant and found.scores.note == "" and score(found, "read") >= 0.99
    assert score(found, "unread") < 0.5
    assert repr(found) == "Alignment(x in 2 of 16 dimensions of blocks.0.out[pos=-1], IIA 1.000)"


def test_it_is_found_again_and_nothing_is_left_behind(total, pairs, found):
    state = torch.get_rng_state()
    again = align(total[0], planted.sums({"x": AFTER}), "x", *pairs, DAS(k=2))
    assert torch.equal(again.directions, found.directions) and torch.equal(again.scores.values, found.scores.values)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in total[0].hf.parameters()) and not total[0].edits


def test_too_few_dimensions_find_less(total, pairs):
    narrow = align(total[0], planted.sums({"x": AFTER}), "x", *pairs, DAS(k=1))
    assert 0.4 < narrow.iia < 0.95


def test_a_site_that_does_not_hold_the_variable_has_nothing_to_find(total, pairs):
    """At the first token x is there, and nothing reads it there any more."""
    assert align(total[0], planted.sums({"x": "blocks.0.out[pos=0]"}), "x", *pairs, DAS(k=2, steps=60)).iia < 0.5


def test_boundless_search_finds_the_size_as_well(total, pairs):
    made = align(total[0], planted.sums({"x": AFTER}), "x", *pairs, Boundless())
    assert made.iia >= 0.99 and len(made.directions) in (2, 3) and not made.dormant
    assert score(made, "random") < 0.55 and score(made, "untrained") < 0.65
    assert inside(made.directions, total[1][:3]) > 0.9


def test_a_search_of_ones_own(total, pairs):
    made = align(total[0], planted.sums({"x": AFTER}), "x", *pairs, lambda trial, variable, seed: total[1][:3])
    assert made.iia == 1 and score(made, "untrained") < 0.6 and not made.dormant


def test_the_edit_gives_the_variable_another_value(total, found):
    model, _ = total
    source = model.run([[2, 6, 12]], keep="blocks.0.out")
    for a in range(3):  # a + 1 becomes 2 + 1
        assert model.edit(found.edit(source)).run([[a, 7, 12]]).logits[0, -1].argmax() == planted.ANSWERS[0]


def test_a_hugging_face_model_is_searched_through_a_padded_batch():
    """Random weights: there is nothing to be found, and every step of the way is taken."""
    model = pc.load(zoo.build("llama"))
    inputs = [{"a": a, "long": long} for a in range(4) for long in (False, True)]

    def prompt(given):
        return [10 + given["a"], 20, 21, 22] if given["long"] else [10 + given["a"], 20]

    place = Location("blocks.0.attn.z[head=1]", pos=lambda given: 1)
    hypothesis = Hypothesis(planted.SIGN, {"s": place}, prompt, {0: 30, 1: 31})
    made = align(model, hypothesis, "s", *planted.pairs(inputs, 40), DAS(k=2, steps=5))
    assert made.directions.shape == (2, model.width // model.heads) and 0 <= made.iia <= 1
    assert all(p.grad is None for p in model.hf.parameters())


# ---- the dormant pathway -------------------------------------------------------------------------------------------------------


def rows(*numbers):
    return torch.tensor([[*numbers, *[0.0] * (6 - len(numbers))]])


SIGNS = planted.pairs([{"a": a} for a in range(8)], 120)
DISHONEST = planted.sign(skip=1, follows=0, silent=4, honest=0)
HONEST = planted.sign(skip=0, follows=0, silent=0, honest=1)
TOY = planted.sign(skip=0, follows=0, silent=2, honest=1)  # Makelov et al. 2023, section 3


@pytest.mark.parametrize("site", [NEURONS, "blocks.0.mlp.pre[pos=-1]"])
@pytest.mark.parametrize(
    ("model", "directions", "flagged"),
    [
        (DISHONEST, rows(1, 1), True),
        (DISHONEST, rows(0.8, 0.6), True),
        (TOY, rows(1, 1), True),
        (TOY, rows(0, 0, 1), False),
        (HONEST, rows(0, 0, 1), False),
        (HONEST, rows(0.5, 0, 1), False),  # some of what nothing reads does no harm
        (HONEST, rows(0, 0.5, 1), False),
        (HONEST, torch.eye(6)[[1, 2]], False),
    ],
    ids=["a constructed one", "another", "the toy", "the toy, honest", "honest", "with unread", "with silent", "a plane"],
)
def test_a_dormant_pathway_is_flagged_and_an_honest_one_is_not(site, model, directions, flagged):
    """From the neurons, by the matrix that reads them; before the nonlinearity, by gradients."""
    if model is TOY and not flagged and site != NEURONS:
        pytest.xfail("flagged though honest: read from gradients, the honest way goes unseen; not yet understood")
    grid = halves(model, planted.signs(Location(site, directions)), "s", *SIGNS)
    found, read, unread = (float(grid.at(subspace=name).values) for name in ("found", "read", "unread"))
    assert found == 1 and dormant(grid) == flagged
    if flagged:
        assert read < 0.7 and unread == 1 and "dormant pathway" in grid.note
    else:
        assert read == 1 and grid.note == ""


def test_what_downstream_reads_may_be_given():
    place = planted.signs(Location("blocks.0.mlp.pre[pos=-1]", rows(1, 1)))
    assert dormant(halves(DISHONEST, place, "s", *SIGNS, reads=torch.eye(6)[1:]))
    assert not dormant(halves(DISHONEST, place, "s", *SIGNS, reads=torch.eye(6)))
    with pytest.raises(ShapeMismatch, match="directions of 5 numbers; .* has 6"):
        halves(DISHONEST, place, "s", *SIGNS, reads=torch.eye(5))


def test_a_search_that_has_only_a_dormant_pathway_finds_it_and_says_so():
    """The sign goes around the layer. Putting all of the layer's neurons from one run into another does nothing."""
    made = align(DISHONEST, planted.signs(NEURONS), "s", *SIGNS, DAS(k=1))
    assert made.iia >= 0.99 and made.dormant and "by a dormant pathway" in repr(made)
    assert score(made, "site") == score(made, "nothing") < 0.7


def test_a_search_that_has_an_honest_way_takes_it():
    made = align(HONEST, planted.signs(NEURONS), "s", *SIGNS, DAS(k=1))
    assert made.iia >= 0.99 and not made.dormant and abs(float(made.directions[0, 2])) > 0.6


def test_no_effect_is_no_pathway():
    grid = halves(DISHONEST, planted.signs(Location(NEURONS, rows(0, 0, 1))), "s", *SIGNS)
    assert not dormant(grid) and torch.equal(grid.at(subspace="found").values, grid.at(subspace="nothing").values)


# ---- keeping it, and mistakes --------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read(tmp_path, found):
    read = Alignment.load(found.save(tmp_path / "x"))
    assert torch.equal(read.directions, found.directions) and repr(read) == repr(found) and read.facts == found.facts
    assert torch.equal(read.scores.values, found.scores.values) and read.location.site == found.location.site
    assert json.loads((tmp_path / "x" / "card.json").read_text())["facts"]["search"].startswith("DAS(k=2")


def test_a_token_of_each_inputs_own_is_asked_for_again(tmp_path, found):
    def pos(given):
        return -1

    own = Alignment("x", Location("blocks.0.out", found.directions, pos), found.scores, found.facts)
    folder = own.save(tmp_path / "x")
    with pytest.raises(NotSaved, match="give `pos`"):
        Alignment.load(folder)
    assert Alignment.load(folder, pos).location.pos is pos
    with pytest.raises(NotSaved, match="has no use for `pos`"):
        Alignment.load(found.save(tmp_path / "y"), pos)
    with pytest.raises(NotSaved, match="no alignment that can be read"):
        Alignment.load(tmp_path)
    found.scores.save(tmp_path / "grid")
    (tmp_path / "x" / "card.json").write_text((tmp_path / "grid" / "card.json").read_text())
    with pytest.raises(NotSaved, match="holds a Grid of version 1, not an Alignment"):
        Alignment.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("place", "search", "more", "error", "says"),
    [
        (AFTER, DAS(k=17), {}, ShapeMismatch, "has 16 dimensions; no subspace of it has 17"),
        (AFTER, DAS(k=0), {}, ShapeMismatch, "no subspace of it has 0"),
        ("blocks.1.mlp.act[neuron=3, pos=-1]", DAS(), {}, ShapeMismatch, "a single number, which has no subspaces"),
        (AFTER, DAS(), {"held_out": 0}, WrongPrompt, "leave nothing to judge by"),
        (AFTER, DAS(), {"held_out": 1.0}, WrongPrompt, "leave nothing to learn from"),
    ],
)
def test_mistakes_are_named(total, pairs, place, search, more, error, says):
    with pytest.raises(error, match=says):
        align(total[0], planted.sums({"x": place}), "x", *pairs, search, **more)


def test_pairs_and_subspaces_are_needed(total, pairs):
    with pytest.raises(WrongPrompt, match="400 bases and 3 sources"):
        align(total[0], planted.sums({"x": AFTER}), "x", pairs[0], pairs[1][:3], DAS())
    with pytest.raises(WrongHypothesis, match="stands for a whole site; name a subspace of it"):
        halves(total[0], planted.sums({"x": AFTER}), "x", *pairs)
