"""Controls: random sources are as far away as the real one, do what a hand-made patch does, and do not do what content does."""

import pytest
import torch

import patchclamp as pc
from patchclamp.cause.control import beside, randomised
from patchclamp.core.errors import Unserved
from patchclamp.core.pair import aligned
from patchclamp.task.tasks import draw

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


def test_a_random_source_is_as_far_away_as_the_real_one(gpt2):
    clean, corrupt = (gpt2.run(ids, "blocks.*.attn.z") for ids in (CLEAN, CORRUPT))
    drawn = randomised(clean, corrupt, 3)
    for path in clean.sites:
        real, random = ((run[path] - corrupt[path]) for run in (clean, drawn))
        assert torch.allclose(real.norm(dim=-1), random.norm(dim=-1), atol=1e-5)
        assert float(torch.cosine_similarity(real[:, 4], random[:, 4], dim=-1).abs().mean()) < 0.7
    assert torch.equal(drawn["blocks.0.attn.z"], randomised(clean, corrupt, 3)["blocks.0.attn.z"])
    assert not torch.equal(drawn["blocks.0.attn.z"], randomised(clean, corrupt, 4)["blocks.0.attn.z"])


@pytest.mark.parametrize("options", [{}, {"estimate": pc.gradient}])
def test_the_clean_source_is_the_effect_and_random_ones_are_patches(gpt2, options):
    sites = "blocks.*.attn.z[head=*]"
    grid = beside(gpt2, CLEAN, CORRUPT, sites, METRIC, seeds=[5], **options)
    assert grid.axes == ("source", "layer", "head") and grid.words("source") == ["clean", "random 5"]
    assert torch.allclose(grid.each[:, 0], pc.effects(gpt2, CLEAN, CORRUPT, sites, METRIC, **options).each, atol=1e-6)
    if not options:
        drawn = randomised(*(gpt2.run(ids, "blocks.*.attn.z") for ids in (CLEAN, CORRUPT)), 5)
        patched = gpt2.edit(pc.patch("blocks.1.attn.z[head=2]", drawn)).run(CORRUPT)
        assert torch.allclose(grid.each[:, 1, 1, 2], METRIC(patched.logits) - METRIC(gpt2.run(CORRUPT).logits), atol=1e-5)


def test_content_is_told_from_chance_on_the_towns_names(town):
    """Both at the token that holds the name: the clean run brings the answer back, significantly, and no random one does."""
    pairs = draw("town/ioi", 12, seed=2, tokenizer=town.tokenizer)
    metric = pc.logit_diff([p.answer for p in pairs], [p.wrong for p in pairs])
    sides, roles = ([p.clean for p in pairs], [p.corrupt for p in pairs]), aligned(pairs, town.tokenizer, ["end"])
    grid = beside(town, *sides, "blocks.*.out[role=*]", metric, roles=roles).fraction()
    last = grid.at(layer=3, role="end")
    assert float(last.at(source="clean").values) == pytest.approx(1, abs=0.01)
    assert all(abs(float(last.at(source=f"random {seed}").values)) < 0.3 for seed in range(3))
    p = grid.p_values().at(layer=3, role="end")
    assert float(p.at(source="clean").values) < 0.05
    assert float(grid.details["low"][0, 3, 0]) > float(grid.details["high"][1:, 3, 0].max())


def test_attention_has_no_random_direction(gpt2):
    with pytest.raises(Unserved, match=r"take attn\.z or attn\.q"):
        beside(gpt2, CLEAN, CORRUPT, "blocks.*.attn.pattern[head=*]", METRIC)


def test_another_component_is_patched_with_its_own_clean_value(gpt2):
    grid = beside(gpt2, CLEAN, CORRUPT, "blocks.1.attn.z[head=2]", METRIC, control="component", seeds=range(6))
    whole = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC).each.flatten(1)
    own = 1 * gpt2.heads + 2
    for n in range(1, 7):
        near = (whole - grid.each[:, n, None]).abs().amax(0)
        assert float(near.min()) < 1e-6 and int(near.argmin()) != own
    assert len({round(v, 5) for v in grid.values[1:].tolist()}) > 1
    assert "another place of the same kind" in grid.note


def test_what_has_no_control_is_said(gpt2):
    with pytest.raises(Unserved, match="no other place like logits"):
        beside(gpt2, CLEAN, CORRUPT, "logits[pos=-1]", METRIC, control="component")
    with pytest.raises(Unserved, match="patched exactly"):
        beside(gpt2, CLEAN, CORRUPT, "blocks.*.out", METRIC, control="component", estimate=pc.gradient)
    with pytest.raises(ValueError, match='"direction" or "component"'):
        beside(gpt2, CLEAN, CORRUPT, "blocks.*.out", METRIC, control="head")
