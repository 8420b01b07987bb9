"""Ablation: every cell is the edited model's metric, whatever the place then holds; windows, severed paths, intervals."""

import pytest
import torch

import patchclamp as pc
from patchclamp.cause.ablate import ablate, blocked, noised, shuffled
from patchclamp.core.errors import ShapeMismatch, Unserved, WrongAxis

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


def without(model, *edits):
    return METRIC(model.edit(*edits).run(CLEAN).logits) - METRIC(model.run(CLEAN).logits)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_cell_is_the_edited_models(family, request):
    model = request.getfixturevalue(family)
    run = model.run(CLEAN, "blocks.*.attn.z")
    ways = {
        "zero": pc.zero,
        "mean": lambda site: pc.mean(site, over=run),
        "counterfactual": lambda site: pc.patch(site, model.run(CORRUPT, "blocks.*.attn.z")),
        "resample": lambda site: pc.patch(site, shuffled(run)),
        "noise": noised(0.5),
    }
    for name, by in ways.items():
        grid = ablate(model, CLEAN, "blocks.*.attn.z[head=*]", METRIC, by=by)
        for layer in range(model.layers):
            for head in range(0, model.heads, 2):
                site = pc.Site.parse(f"blocks.{layer}.attn.z[head={head}]")
                assert torch.allclose(grid.each[:, layer, head], without(model, by(site)), atol=2e-5), name


def test_one_token_at_a_time(gpt2):
    grid = ablate(gpt2, CLEAN, "blocks.*.mlp.out[pos=*]", METRIC)
    assert torch.allclose(grid.each[:, 1, 4], without(gpt2, pc.zero("blocks.1.mlp.out[pos=4]")), atol=2e-5)


def test_a_window_is_ablated_together(gpt2):
    grid = ablate(gpt2, CLEAN, "blocks.*.mlp.out", METRIC, window=3)
    around = [pc.zero(f"blocks.{layer}.mlp.out") for layer in range(min(gpt2.layers, 2))]
    assert torch.allclose(grid.each[:, 0], without(gpt2, *around), atol=2e-5)


def test_blocked_attention_is_masked_attention(gpt2):
    grid = ablate(gpt2, CLEAN, "blocks.*.attn.scores", METRIC, by=blocked([-1], [2, 3]))
    blind = blocked([-1], [2, 3])(pc.Site.parse("blocks.0.attn.scores"))
    pattern = gpt2.edit(blind).run(CLEAN, "blocks.0.attn.pattern")["blocks.0.attn.pattern"]
    assert not pattern[:, :, -1, 2:4].any()
    assert torch.allclose(pattern.sum(-1), torch.ones(pattern.shape[:-1]), atol=1e-5)
    assert torch.allclose(grid.each[:, 0], without(gpt2, blind), atol=2e-5)
    with pytest.raises(WrongAxis, match=r"attn\.scores"):
        ablate(gpt2, CLEAN, "blocks.*.attn.z", METRIC, by=blocked([-1], [2]))


def test_nobody_keeps_their_own_value():
    run = pc.load("specimen:town").run(["Mary gave", "John gave", "Anna gave"], "blocks.0.out")
    other = shuffled(run, seed=3)
    assert not (other.tokens == run.tokens).all(1).any()
    with pytest.raises(ShapeMismatch, match="several"):
        shuffled(pc.load("specimen:town").run("Mary gave", "blocks.0.out"))


def test_a_window_of_patches_is_patched_together(gpt2):
    run = gpt2.run(CLEAN, "blocks.*.mlp.out")
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.mlp.out[pos=*]", METRIC, window=2)
    edits = [pc.patch(f"blocks.{layer}.mlp.out[pos=4]", run) for layer in (0, 1)]
    expected = METRIC(gpt2.edit(*edits).run(CORRUPT).logits) - METRIC(gpt2.run(CORRUPT).logits)
    assert torch.allclose(grid.each[:, 0, 4], expected, atol=2e-5)
    with pytest.raises(Unserved, match="single places"):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.mlp.out", METRIC, window=2, estimate=pc.gradient)


@pytest.mark.parametrize("estimate", ["exact", "gradient"])
def test_nothing_passes_through_what_is_severed(gpt2, estimate):
    run, other = gpt2.run(CLEAN, "blocks.*.attn.z"), gpt2.run(CORRUPT, "blocks.*.mlp.out")
    options = {} if estimate == "exact" else {"estimate": pc.gradient}
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, severed=["mlp"], **options)
    assert "through mlp" in grid.note
    if estimate == "exact":
        held = gpt2.edit(pc.freeze("blocks.*.mlp.out", other), pc.patch("blocks.0.attn.z[head=1]", run))
        expected = METRIC(held.run(CORRUPT).logits) - METRIC(gpt2.run(CORRUPT).logits)
        assert torch.allclose(grid.each[:, 0, 1], expected, atol=2e-5)
    with pytest.raises(ValueError, match="severed may hold"):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z", METRIC, severed=["norm"])


def test_from_five_prompts_on_effects_have_intervals(gpt2):
    clean, corrupt = CLEAN[:1].repeat(6, 1), CORRUPT[:1].repeat(6, 1)
    clean[:, 0] = corrupt[:, 0] = torch.arange(40, 46)
    grid = pc.effects(gpt2, clean, corrupt, "blocks.*.attn.z[head=*]", METRIC)
    assert bool((grid.details["low"] <= grid.values).all() and (grid.values <= grid.details["high"]).all())
    assert "low" not in pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC).details
