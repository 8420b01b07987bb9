"""Ways of steering: each does to activations what it says, alone and padded, at once and token by token with a cache."""

import math

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.probe.steering import act_add, capped, onward, renormed, turned

PROMPT = "The soup was hopeless. We went home"
OTHERS = [PROMPT, "When Mary and John went to the store, John gave a drink to"]
SITE = "blocks.1.out"
RNG = torch.Generator().manual_seed(0)
VECTOR = 5 * torch.randn(128, generator=RNG)
PLANE = torch.randn(2, 128, generator=RNG)


def edits(town):
    joy = pc.contrast(town, SITE, ["The film was lovely. We went home"], ["The film was dull. We went home"])
    return {
        "act_add": act_add(town, SITE, "The film was lovely.", "The film was dull."),
        "onward": onward(SITE, VECTOR),
        "renormed": renormed(SITE, VECTOR),
        "turned": turned(SITE, PLANE, 60),
        "capped": capped(SITE, joy.vector, low=2.0, high=3.0),
    }


NAMES = ("act_add", "onward", "renormed", "turned", "capped")


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_while_generating_with_a_cache(town, name):
    """Every token's activations, kept while generating, are those of one pass over the whole text with the edit in place."""
    edit = edits(town)[name]
    steered = town.edit(edit)
    told = steered.generate(PROMPT, 6, keep=SITE, eos_token_id=3)  # one that is never said
    assert told.fresh == 6
    length = told.tokens.shape[1] - 6
    if name == "onward":  # a plain pass knows no end of the prompt, so it is told
        steered = town.edit(onward(SITE, VECTOR, length - 1))
    whole = steered.run(told.tokens, keep=SITE)
    assert torch.allclose(told[SITE], whole[SITE][:, :-1], atol=1e-3)
    assert whole.logits[0, length - 1 : -1].argmax(-1).tolist() == told.tokens[0, length:].tolist()
    if name == "act_add":
        return  # it is in the prompt, and later tokens only hear of it in later layers
    assert not torch.allclose(told[SITE][:, length:], town.run(told.tokens, keep=SITE)[SITE][:, length:-1], atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_padding_does_not_matter(town, name):
    steered = town.edit(edits(town)[name])
    together = steered.run(OTHERS)
    for row, prompt in enumerate(OTHERS):
        alone = steered.run(prompt).logits[0]
        assert torch.allclose(together.logits[row, -len(alone) :], alone, atol=1e-3)
    assert steered.generate(OTHERS, 3).new == tuple(steered.generate(prompt, 3).new[0] for prompt in OTHERS)


def test_onward_is_what_a_hook_on_the_bare_model_does(town):
    """Hugging Face's own greedy generation, with a hook that adds the vector to the last token of every forward pass."""
    layer = town.hf.model.layers[1]
    ids = torch.tensor([town.tokenizer(PROMPT)["input_ids"]])

    def add(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden.clone()
        hidden[:, -1] += VECTOR
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = layer.register_forward_hook(add)
    try:
        wanted = town.hf.generate(ids, max_new_tokens=6, do_sample=False)
    finally:
        handle.remove()
    assert town.edit(onward(SITE, VECTOR)).generate(PROMPT, 6).tokens.tolist() == wanted.tolist()


def test_act_add_adds_the_difference_of_two_prompts_where_they_stood(town):
    two = "The film was lovely.", "The film was dull."
    values = [town.run(prompt, keep=SITE)[SITE][0] for prompt in two]
    before, after = (m.run(PROMPT, keep=SITE)[SITE][0] for m in (town, town.edit(act_add(town, SITE, *two, dose=3, start=1))))
    assert torch.allclose(after[1:7], before[1:7] + 3 * (values[0] - values[1]), atol=1e-3)
    assert torch.equal(after[0], before[0]) and torch.equal(after[7:], before[7:])


def test_act_add_fills_up_the_shorter_prompt(town):
    made = act_add(town, SITE, "The film was lovely.", "The film", pad=".")
    filled = act_add(town, SITE, "The film was lovely.", "The film...")
    assert torch.equal(made.params["vector"], filled.params["vector"]) and made.params["vector"].shape == (6, 128)


def test_onward_leaves_the_prompt_alone_but_for_its_last_token(town):
    run, plain = (m.run(OTHERS, keep=SITE)[SITE] for m in (town.edit(onward(SITE, VECTOR)), town))
    assert torch.equal(run[:, :-1], plain[:, :-1])
    assert torch.allclose(run[:, -1] - plain[:, -1], VECTOR.expand(2, -1), atol=1e-4)


def test_onward_starts_where_it_is_told_prompt_by_prompt(town):
    lengths = [len(town.inputs(prompt).ids()) for prompt in OTHERS]
    run, plain = (m.run(OTHERS, keep=SITE)[SITE] for m in (town.edit(onward(SITE, VECTOR, [2, 5])), town))
    for row, (start, length) in enumerate(zip((2, 5), lengths)):
        moved = (run[row] - plain[row])[-length:].abs().sum(-1) > 0
        assert moved.tolist() == [False] * start + [True] * (length - start)


def test_renormed_keeps_every_length_and_turns_towards_the_vector(town):
    run, plain = (m.run(PROMPT, keep=SITE)[SITE] for m in (town.edit(renormed(SITE, VECTOR)), town))
    assert torch.allclose(run.norm(dim=-1), plain.norm(dim=-1), rtol=1e-4)
    assert bool((torch.cosine_similarity(run, VECTOR, dim=-1) > torch.cosine_similarity(plain, VECTOR, dim=-1)).all())


@pytest.mark.parametrize("degrees", [0, 60, 90, 180, 300])
def test_turned_stands_at_its_angle_and_keeps_length_and_the_rest(town, degrees):
    run, plain = (m.run(PROMPT, keep=SITE)[SITE][0] for m in (town.edit(turned(SITE, PLANE, degrees)), town))
    basis = torch.linalg.qr(PLANE.T).Q.T
    first = PLANE[0] / PLANE[0].norm()
    second = PLANE[1] - (PLANE[1] @ first) * first
    x, y = run @ first, run @ second / second.norm()
    angle = torch.rad2deg(torch.atan2(y, x)) % 360
    assert torch.allclose(torch.cos(torch.deg2rad(angle - degrees)), torch.ones(len(angle)), atol=1e-4)
    assert torch.allclose(run.norm(dim=-1), plain.norm(dim=-1), rtol=1e-4)
    assert torch.allclose(run - run @ basis.T @ basis, plain - plain @ basis.T @ basis, atol=1e-3)


def test_turned_forward_leaves_alone_what_points_the_other_way(town):
    run, plain = (m.run(PROMPT, keep=SITE)[SITE][0] for m in (town.edit(turned(SITE, PLANE, 90, forward=True)), town))
    ahead = plain @ PLANE[0] > 0
    assert 0 < int(ahead.sum()) < len(ahead)
    assert torch.equal(run[~ahead], plain[~ahead]) and not torch.equal(run[ahead], plain[ahead])


def test_capped_holds_the_projection_in_its_range_and_touches_nothing_else(town):
    unit = VECTOR / VECTOR.norm()
    plain = town.run(PROMPT, keep=SITE)[SITE][0]
    low, high = (float(v) for v in torch.quantile(plain @ unit, torch.tensor([0.3, 0.7])))
    run = town.edit(capped(SITE, VECTOR, low, high)).run(PROMPT, keep=SITE)[SITE][0]
    assert torch.allclose(run @ unit, (plain @ unit).clamp(low, high), atol=1e-3)
    inside = (plain @ unit >= low) & (plain @ unit <= high)
    assert torch.equal(run[inside], plain[inside])
    assert torch.allclose(run - (run @ unit)[:, None] * unit, plain - (plain @ unit)[:, None] * unit, atol=1e-3)


def test_capping_without_bounds_changes_nothing(town):
    run, plain = (m.run(PROMPT).logits for m in (town.edit(capped(SITE, VECTOR)), town))
    assert torch.equal(run, plain)


def test_mistakes_are_named(town):
    with pytest.raises(WrongAxis, match="leave pos out"):
        onward("blocks.1.out[pos=3]", VECTOR)
    with pytest.raises(WrongPrompt, match="counted from the prompt's first"):
        onward(SITE, VECTOR, -1)
    with pytest.raises(WrongPrompt, match="starts for 3 prompts; there are 2"):
        town.edit(onward(SITE, VECTOR, [1, 2, 3])).run(OTHERS)
    with pytest.raises(ShapeMismatch, match="two directions"):
        turned(SITE, VECTOR, 90)
    with pytest.raises(ShapeMismatch, match="one and the same line"):
        turned(SITE, torch.stack([VECTOR, 2 * VECTOR]), 90)
    with pytest.raises(ShapeMismatch, match="nothing between 2 and 1"):
        capped(SITE, VECTOR, 2.0, 1.0)
    for edit in (
        onward(SITE, VECTOR[:5]),
        renormed(SITE, VECTOR[:5]),
        capped(SITE, VECTOR[:5], 0),
        turned(SITE, PLANE[:, :5], 3),
    ):
        with pytest.raises(ShapeMismatch, match="takes vectors of 128 numbers"):
            town.edit(edit).run(PROMPT)


def test_what_is_made_here_says_that_it_cannot_be_saved(tmp_path):
    with pytest.raises(NotSaved, match="kind onward"):
        onward(SITE, VECTOR).save(tmp_path)


def test_a_sweep_over_a_steered_model_is_exact(town):
    """The replay reuses what cannot have changed, and steering must not be among what it forgets."""
    metric = pc.logit_diff(" pleased", " bored")
    clean, corrupt = PROMPT.replace("hopeless", "lovely"), PROMPT
    for edit in edits(town).values():
        steered = town.edit(edit)
        grid = pc.effects(steered, clean, corrupt, "blocks.*.out[pos=*]", metric)
        source = steered.run(clean, keep="blocks.*.out")
        base = float(steered.metric(metric)(steered.run(corrupt).logits)[0])
        for layer, pos in ((0, 4), (1, 7), (2, -1)):
            naive = steered.edit(pc.patch(f"blocks.{layer}.out[pos={pos}]", source)).run(corrupt)
            assert math.isclose(
                float(steered.metric(metric)(naive.logits)[0]) - base, float(grid.values[layer, pos]), abs_tol=2e-3
            )
