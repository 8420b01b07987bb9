"""Inference-time intervention: heads that know are found, and pushed by so many of their own standard deviations."""

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongAxis
from patchclamp.model.gather import gather
from patchclamp.probe.contrast import Logistic
from patchclamp.probe.dose import says
from patchclamp.probe.iti import knowing_heads
from patchclamp.probe.measure_steering import Reviews, words
from patchclamp.probe.steering import onward
from patchclamp.specimens.town.lexicon import POSITIVE


@pytest.fixture(scope="module")
def reviews():
    return Reviews.drawn(0, count=60, held_out=40)


@pytest.fixture(scope="module")
def heads(town, reviews):
    return knowing_heads(town, reviews.made["positive"], reviews.made["negative"])


def test_directions_and_spreads_are_those_of_the_heads_by_hand(town, reviews, heads):
    one, other = (gather(town, "blocks.1.attn.z[head=3]", reviews.made[mood]) for mood in ("positive", "negative"))
    gap = one.mean(0) - other.mean(0)
    assert torch.allclose(heads.vectors[1, 3], gap / gap.norm(), atol=1e-4)
    assert float(heads.spread[1, 3]) == pytest.approx(float((torch.cat([one, other]) @ (gap / gap.norm())).std()), rel=1e-4)


def test_one_head_turns_held_out_reviews_and_a_random_push_in_it_none(town, reviews, heads):
    measure, sad = says(words(POSITIVE)), reviews.tried["negative"]
    assert float(measure(town, sad).mean()) == 0
    assert float(measure(town.edit(*heads.edits(1, 2.0)), sad).mean()) >= 0.8
    assert max(float(measure(town.edit(*heads.edits(1, 2.0, seed=n)), sad).mean()) for n in (1, 2, 3)) <= 0.05


def test_edits_are_of_the_best_heads_and_as_long_as_said(heads):
    assert heads.best(1) == [(1, 3)]
    for row, head in heads.best(4):
        assert float(heads.separation.values[row, head]) >= float(heads.separation.values.flatten().sort().values[-4])
    (edit,) = heads.edits(1, 2.0)
    assert str(edit.site) == "blocks.1.attn.z[head=3]"
    assert float(edit.params["vector"].norm()) == pytest.approx(2 * float(heads.spread[1, 3]), rel=1e-4)
    (other,) = heads.edits(1, 2.0, seed=1)
    assert float(other.params["vector"].norm()) == pytest.approx(2 * float(heads.spread[1, 3]), rel=1e-4)


def test_a_push_is_what_a_hook_before_the_output_projection_does(town, reviews, heads):
    """On the bare model: the head's slice of what the projection reads, moved by so many standard deviations."""
    sad = reviews.tried["negative"][0]
    ids = torch.tensor([town.tokenizer(sad)["input_ids"]])

    def push(module, args):
        z = args[0].clone()
        z[..., 3 * 16 : 4 * 16] += 2.0 * heads.spread[1, 3] * heads.vectors[1, 3]
        return (z,)

    handle = town.hf.model.layers[1].self_attn.o_proj.register_forward_pre_hook(push)
    try:
        wanted = town.hf(ids).logits
    finally:
        handle.remove()
    assert torch.allclose(town.edit(*heads.edits(1, 2.0)).run(sad).logits, wanted, atol=1e-4)


def test_it_can_leave_the_prompt_alone(town, reviews, heads):
    edits = heads.edits(1, 2.0, by=onward)
    sad = reviews.tried["negative"][0]
    run, plain = (m.run(sad, keep="blocks.1.attn.z")["blocks.1.attn.z"] for m in (town.edit(*edits), town))
    assert torch.equal(run[:, :-1], plain[:, :-1]) and not torch.equal(run[:, -1], plain[:, -1])


def test_another_method_gives_other_directions(town, reviews):
    made = [prompts[:20] for prompts in (reviews.made["positive"], reviews.made["negative"])]
    heads = knowing_heads(town, *made, site="blocks.1:2.attn.z", method=Logistic())
    assert heads.sites == ("blocks.1.attn.z",) and heads.separation.words("layer") == ["1"] and heads.best(1) == [(0, 3)]


def test_mistakes_are_named(town, heads):
    with pytest.raises(ShapeMismatch, match="there are 32 heads"):
        heads.best(33)
    with pytest.raises(WrongAxis, match="leave the index out"):
        knowing_heads(town, ["We went"], ["We left"], site="blocks.*.attn.z[head=1]")
    with pytest.raises(ShapeMismatch, match="has no heads"):
        knowing_heads(town, ["We went"], ["We left"], site="blocks.*.out")
