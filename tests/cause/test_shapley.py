"""Shapley values: those of the definition, adding up to the whole, and sampled ones as far off as they say."""

from itertools import permutations

import pytest
import torch

import patchclamp as pc
from patchclamp.cause import shapley as module
from patchclamp.cause.shapley import shapley
from patchclamp.core.errors import Unserved

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35], [20, 21, 22, 23, 24, 25]])
CORRUPT = torch.tensor([[40, 41, 42, 43, 44, 45], [50, 51, 52, 53, 54, 55]])
METRIC = pc.logit_diff(7, 8)
SITE = "blocks.1.in[pos=*]"


def by_definition(model):
    """The mean over all 720 orders of six tokens of what each one adds, every set of them run by itself."""
    run, base = model.run(CLEAN, "blocks.1.in"), METRIC(model.run(CORRUPT).logits)
    worth = {}
    for code in range(64):
        edits = [pc.patch(f"blocks.1.in[pos={p}]", run) for p in range(6) if code >> p & 1]
        worth[code] = METRIC(model.edit(*edits).run(CORRUPT).logits) - base
    total = torch.zeros(2, 6)
    for order in permutations(range(6)):
        code = 0
        for p in order:
            total[:, p] += (worth[code | 1 << p] - worth[code]) / 720
            code |= 1 << p
    return total


def test_six_players_get_what_the_definition_gives_them_and_no_more(gpt2):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, SITE, METRIC, estimate=shapley())
    assert torch.allclose(grid.each, by_definition(gpt2), atol=1e-5)
    assert torch.allclose(grid.fraction().values.sum(), torch.tensor(1.0), atol=1e-4)
    assert not grid.details["error"].any()


def test_sampled_orders_miss_by_what_they_say(gpt2, monkeypatch):
    exact = pc.effects(gpt2, CLEAN, CORRUPT, SITE, METRIC, estimate=shapley())
    monkeypatch.setattr(module, "ALL", 3)
    sampled = [pc.effects(gpt2, CLEAN, CORRUPT, SITE, METRIC, estimate=shapley(40, seed)) for seed in range(6)]
    off = torch.stack([(s.values - exact.values) / s.details["error"] for s in sampled])
    assert 0.6 < float(off.square().mean().sqrt()) < 1.5 and "over 40 orders" in sampled[0].note
    for one in sampled:
        assert float(one.fraction().values.sum()) == pytest.approx(1, abs=1e-4)


def test_it_is_for_a_handful(gpt2):
    with pytest.raises(Unserved, match="names 192 places; Shapley values are for 64"):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.mlp.act[neuron=*]", METRIC, estimate=shapley())
    with pytest.raises(ValueError, match="two or more"):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.mlp.out[pos=*]", METRIC, estimate=shapley(1))
