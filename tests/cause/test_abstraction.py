"""Causal abstraction: a causal model computes, an interchange in the network does what one by hand does, and the score says so."""

import pytest
import torch

import patchclamp as pc
import planted
import zoo
from patchclamp.cause.abstraction import CausalModel, Hypothesis, Location, WrongHypothesis, interchange_accuracy, resampled
from patchclamp.core.errors import ShapeMismatch, Unserved, WrongAxis, WrongPrompt

AFTER = "blocks.0.out[pos=-1]"


@pytest.fixture(scope="module")
def total():
    return planted.total()


@pytest.fixture(scope="module")
def told(total):
    """Where x and y really are."""
    _, turn = total
    return planted.sums({"x": Location(AFTER, turn[:3]), "y": Location(AFTER, turn[3:6])})


# ---- the causal model ------------------------------------------------------------------------------------------------------


def test_variables_are_computed_from_what_they_name():
    chain = CausalModel({"answer": lambda half, c: half + c, "half": lambda whole: whole / 2, "whole": lambda a, b: a + b})
    assert chain.inputs == ("c", "a", "b")
    assert chain.run({"a": 1, "b": 3, "c": 10}) == {"a": 1, "b": 3, "c": 10, "whole": 4, "half": 2, "answer": 12}
    assert chain.run({"a": 1, "b": 3, "c": 10}, {"half": 7})["answer"] == 17


def test_an_interchange_keeps_the_source_value_and_computes_the_rest_on_the_base():
    base, source = {"a": 1, "b": 1}, {"a": 2, "b": 0}
    assert planted.SUM.run(base)["answer"] == 2 and planted.SUM.run(source)["answer"] == 2
    assert planted.SUM.interchange(base, {"x": source})["answer"] == 0
    assert planted.SUM.interchange(base, {"x": source, "y": source})["answer"] == 2
    assert planted.SUM.interchange(base, {"a": source})["answer"] == 0  # an input may be interchanged as well
    assert planted.SUM.interchange(base, {}) == planted.SUM.run(base)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CausalModel({"a": lambda b: b, "b": lambda a: a}, "a"), "computed from each other"),
        (lambda: CausalModel({"anser": lambda a: a}), 'the output "answer" is no variable.* Did you mean "anser"'),
        (lambda: planted.SUM.run({"a": 1}), 'gives no value for "b"; it has a'),
        (lambda: planted.SUM.interchange({"a": 1, "b": 1}, {"z": {"a": 1, "b": 1}}), 'no variable "z"'),
        (lambda: planted.sums({"xx": AFTER}), 'no variable "xx"'),
        (lambda: planted.sums({"x": AFTER}).place("y"), 'does not say where "y" lives'),
        (lambda: Location("blocks.*.out"), "is a pattern; a variable lives at one place"),
        (lambda: Location(AFTER, pos=lambda given: 0), "already says which token"),
    ],
)  # fmt: skip
def test_mistakes_in_a_hypothesis_are_named(make, says):
    with pytest.raises(WrongHypothesis, match=says):
        make()


# ---- the interchange -------------------------------------------------------------------------------------------------------


def test_a_whole_site_is_patched_as_patch_does(gpt2, ids):
    source = gpt2.run(ids.flip(0), keep="blocks.0.out")
    for site in ("blocks.0.out", AFTER):
        ours = gpt2.edit(Location(site).edit(source)).run(ids).logits
        assert torch.equal(ours, gpt2.edit(pc.patch(site, source)).run(ids).logits)


def test_outside_the_subspace_nothing_moves_and_inside_everything_does(gpt2, ids):
    rows = torch.randn(3, gpt2.width)
    place = Location("blocks.0.out[pos=2]", rows)
    assert torch.allclose(place.directions @ place.directions.T, torch.eye(3), atol=1e-5)
    base, source = gpt2.run(ids, keep="blocks.0.out"), gpt2.run(ids.flip(0), keep="blocks.0.out")
    after = gpt2.edit(place.edit(source)).run(ids, keep="blocks.0.out")["blocks.0.out"]
    moved = after[:, 2] - base["blocks.0.out"][:, 2]
    wanted = source["blocks.0.out"][:, 2] - base["blocks.0.out"][:, 2]
    assert torch.allclose(moved @ place.directions.T, wanted @ place.directions.T, atol=1e-4)
    assert torch.allclose(moved, moved @ place.directions.T @ place.directions, atol=1e-4)
    assert torch.equal(after[:, :2], base["blocks.0.out"][:, :2])


def test_the_subspace_that_is_everything_is_the_site(gpt2, ids):
    source = gpt2.run(ids.flip(0), keep="blocks.1.attn.z")
    site = "blocks.1.attn.z[head=2, pos=-1]"
    whole = gpt2.edit(Location(site, torch.eye(gpt2.width // gpt2.heads)).edit(source)).run(ids).logits
    assert torch.allclose(whole, gpt2.edit(pc.patch(site, source)).run(ids).logits, atol=1e-5)


def test_every_prompt_may_have_a_token_of_its_own(gpt2, ids):
    ours, theirs = [2, -1], [0, 5]
    place = Location("blocks.0.attn.z[head=1]", pos=lambda given: given)
    source = gpt2.run(ids + 7, keep="blocks.0.attn.z")
    both = gpt2.edit(place.edit(source, ours, theirs)).run(ids).logits
    for row in (0, 1):
        part = source["blocks.0.attn.z[head=1]"][row, theirs[row]]
        alone = gpt2.edit(pc.patch(f"blocks.0.attn.z[head=1, pos={ours[row]}]", part)).run(ids[row]).logits
        assert torch.allclose(both[row], alone[0], atol=1e-5)


def test_prompts_of_unequal_length_are_interchanged_at_a_token():
    model = pc.load(zoo.build("llama"))
    bases, sources = [[20, 21, 22, 23], [30, 31]], [[40, 41], [50, 51, 52, 53, 54]]
    source = model.run(sources, keep="blocks.0.out")
    for place, pos in ((Location(AFTER), (-1, -1)), (Location("blocks.0.out", pos=len), (1, 1))):
        inputs = [[0] * p for p in pos]
        both = model.edit(place.edit(source, inputs, inputs)).run(bases)
        for row in (0, 1):
            run = model.run(sources[row], keep="blocks.0.out")
            alone = model.edit(pc.patch(f"blocks.0.out[pos={pos[row]}]", run["blocks.0.out"][:, pos[row]])).run(bases[row])
            assert torch.allclose(both.logits[row, both.last[row]], alone.logits[0, -1], atol=1e-4)


def test_one_source_serves_many_bases_and_generation(gpt2, ids):
    source = gpt2.run(ids[:1], keep="blocks.0.out")
    edited = gpt2.edit(Location(AFTER, torch.eye(gpt2.width)[:4]).edit(source))
    kept = edited.run(ids, keep=AFTER)[AFTER]
    assert torch.allclose(kept[:, :4], source[AFTER][:, :4].expand(2, 4), atol=1e-5)
    assert len(edited.generate(ids[:1], 3).new[0]) > 0


@pytest.mark.parametrize(
    ("place", "inputs", "error", "says"),
    [
        (Location("blocks.0.out"), (), ShapeMismatch, "Prompts of unequal length have to name a token"),
        (Location(AFTER, torch.ones(1, 7)), (), ShapeMismatch, "the directions have 7 numbers"),
        (Location("blocks.0.out", pos=lambda given: 9), [0], WrongAxis, "prompt 0 has 7 tokens, and none is number 9"),
        (Location("blocks.0.out", pos=lambda given: 0), (), WrongHypothesis, "give the inputs as well"),
        (Location("blocks.0.attn.pattern", pos=lambda given: 0), [0], WrongAxis, "has the axes batch head query key"),
    ],
)
def test_mistakes_in_an_interchange_are_named(gpt2, ids, place, inputs, error, says):
    source = gpt2.run(ids[:1, :5] if place.pos is None else ids[:1], keep=place.site.bare())
    with pytest.raises(error, match=says):
        gpt2.edit(place.edit(source, inputs, inputs)).run(ids[:1])


# ---- the score -------------------------------------------------------------------------------------------------------------


def test_the_truth_is_always_right(total, told):
    model, _ = total
    grid = interchange_accuracy(model, told, *planted.pairs(planted.every(), 100), groups=[["x"], ["y"], ["x", "y"]], batch=30)
    assert grid.axes == ("variable",) and list(grid.words("variable")) == ["x", "y", "x + y"]
    assert torch.equal(grid.values, torch.ones(3)) and grid.baseline == {"model": 1.0} and grid.each.shape == (100, 3)
    assert torch.equal(grid.details["low"], torch.ones(3))
    assert bool((grid.details["nothing"] < 0.5).all())


def test_sources_of_their_own_for_each_variable(total, told):
    model, _ = total
    bases, sources = planted.pairs(planted.every(), 60)
    own = {"x": sources, "y": sources[::-1]}
    assert float(interchange_accuracy(model, told, bases, own, groups=[["x", "y"]]).values) == 1


def test_a_variable_in_the_wrong_place_is_right_by_chance(total, told):
    model, turn = total
    bases, sources = planted.pairs(planted.every(), 400)
    for wrong in (Location(AFTER, turn[3:6]), Location(AFTER, turn[6:9]), Location("blocks.0.out[pos=0]")):
        grid = interchange_accuracy(model, planted.sums({"x": wrong}), bases, sources)
        assert float(grid.values) < 0.45 and float(grid.details["low"]) < 1 / 3 < float(grid.details["high"])


def test_the_place_of_a_token_may_depend_on_the_input(total):
    """The network does not mind the order of a and b."""
    model, _ = total
    inputs = [{**given, "first": first} for given in planted.every() for first in "ab"]
    ids = {"a": lambda given: given["a"], "b": lambda given: 6 + given["b"]}

    def prompt(given):
        return [*(ids[name](given) for name in sorted(ids, key=lambda name: name != given["first"])), 12]

    place = Location("blocks.0.in", pos=lambda given: 0 if given["first"] == "a" else 1)
    hypothesis = Hypothesis(planted.SUM, {"x": place}, prompt, planted.ANSWERS)
    assert float(interchange_accuracy(model, hypothesis, *planted.pairs(inputs, 80)).values) == 1
    fixed = hypothesis.placed("x", "blocks.0.in[pos=0]")
    assert float(interchange_accuracy(model, fixed, *planted.pairs(inputs, 80)).values) < 0.8


def test_without_a_list_of_answers_the_network_chooses_from_its_vocabulary(total, told):
    model, _ = total
    causal = CausalModel({**planted.SUM.variables, "answer": lambda x, y: planted.ANSWERS[(x + y) % 3]})
    hypothesis = Hypothesis(causal, told.places, lambda given: torch.tensor([given["a"], 6 + given["b"], 12]))
    assert torch.equal(interchange_accuracy(model, hypothesis, *planted.pairs(planted.every(), 50)).values, torch.ones(2))


def test_a_network_that_answers_otherwise_shows_in_the_baseline(total, told):
    model, _ = total
    off = Hypothesis(planted.SUM, told.places, told.prompt, {0: 14, 1: 15, 2: 13})
    assert interchange_accuracy(model, off, *planted.pairs(planted.every(), 50)).baseline == {"model": 0.0}


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda m, h: interchange_accuracy(m, h, planted.every(), planted.every()[:3]), WrongPrompt, "36 bases and 3 for"),
        (lambda m, h: interchange_accuracy(m, h, [], []), WrongPrompt, "0 bases"),
        (lambda m, h: interchange_accuracy(m, h, planted.every(), planted.every(), groups=[["z"]]), WrongHypothesis, 'where "z" lives'),
        (lambda m, h: interchange_accuracy(m, Hypothesis(h.causal, h.places, h.prompt, {0: 13, 1: 14}), planted.every(), planted.every()),
         WrongHypothesis, "answers 2, for which `answers` has no word"),
        (lambda m, h: interchange_accuracy(pc.load(zoo.build("gpt2", "base")), h.placed("x", AFTER), planted.every(), planted.every(),
                                           groups=["x"]), Unserved, "returns no logits"),
    ],
)  # fmt: skip
def test_mistakes_in_a_question_are_named(total, told, ask, error, says):
    with pytest.raises(error, match=says):
        ask(total[0], told)


def test_the_interval_covers_the_truth():
    covered = 0
    for seed in range(200):
        each = (torch.rand(150, generator=torch.Generator().manual_seed(seed)) < 0.7).float()
        low, high = resampled(each, 400, seed).quantile(torch.tensor([0.025, 0.975]))
        covered += float(low) <= 0.7 <= float(high)
    assert 0.91 <= covered / 200 <= 0.99
