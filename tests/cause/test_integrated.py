"""Integrated gradients: complete where they must be, and right where a slope at the beginning is not."""

import pytest
import torch

import by_weights
import patchclamp as pc
import zoo
from patchclamp.cause.integrated import integrated
from patchclamp.core.errors import Unserved

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


def test_a_way_round_a_corner_is_its_integral():
    """The answer is x - relu(x), from x = 1 to x = -2: no slope at the beginning, a slope of 1 from a third of the way on."""
    model = by_weights.cancelling()
    for along in ("inputs", "activations"):
        grid = pc.effects(model, [[1]], [[0]], "blocks.0.mlp.out", pc.logit(0), estimate=integrated(3, along))
        exact = pc.effects(model, [[1]], [[0]], "blocks.0.mlp.out", pc.logit(0))
        assert float(exact.values) == pytest.approx(-2, abs=1e-5) == float(grid.values)
    assert f"at 3 points along the {along}" in grid.note


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("whole", "cells"),
    [("blocks.*.attn.z", "blocks.*.attn.z[head=*, pos=*]"), ("blocks.*.mlp.act", "blocks.*.mlp.act[neuron=*]")],
)
def test_the_cells_of_a_place_add_up_to_the_exact_effect_of_all_of_it(family, whole, cells, request):
    model = request.getfixturevalue(family)
    exact = pc.effects(model, CLEAN, CORRUPT, whole, METRIC)
    parts = pc.effects(model, CLEAN, CORRUPT, cells, METRIC, estimate=integrated(16, "activations"))
    plain = pc.effects(model, CLEAN, CORRUPT, cells, METRIC, estimate=pc.gradient)
    error, others = ((g.each.flatten(2).sum(-1) - exact.each).abs().max() for g in (parts, plain))
    assert float(error) < 2e-3 * float(exact.each.abs().max()) and float(error) < 0.2 * float(others)


def test_the_tokens_of_the_embedding_add_up_to_the_gap(gpt2):
    for site in ("blocks.0.in[pos=*]", "embed.out[pos=*]"):
        grid = pc.effects(gpt2, CLEAN, CORRUPT, site, METRIC, estimate=integrated(32, "inputs"))
        assert float(grid.fraction().values.sum()) == pytest.approx(1, abs=5e-3)


def test_one_step_at_the_corrupt_end_would_be_attribution_patching(gpt2, monkeypatch):
    monkeypatch.setattr("patchclamp.cause.integrated.middles", lambda steps: [0.0])
    plain = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, estimate=pc.gradient)
    for along in ("inputs", "activations"):
        grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, estimate=integrated(1, along))
        assert torch.allclose(grid.each, plain.each, atol=1e-5)


def test_what_it_cannot_do_is_said(gpt2):
    with pytest.raises(ValueError, match='"inputs" or "activations"'):
        integrated(along="places")
    with pytest.raises(ValueError, match="one or more"):
        integrated(0)
    with pytest.raises(Unserved, match="single places"):
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out", METRIC, estimate=integrated(), window=2)
    with zoo.quiet():
        model = pc.load(zoo.build("t5", "seq2seq"))
        model.hf.generation_config.decoder_start_token_id = 0
        with pytest.raises(Unserved, match="activations"):
            pc.effects(model, CLEAN, CORRUPT, "encoder.blocks.*.out", METRIC, estimate=integrated(2, "inputs"))
        pc.effects(model, CLEAN, CORRUPT, "encoder.blocks.*.out", METRIC, estimate=integrated(2, "activations"))
