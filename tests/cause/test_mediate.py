"""Mediation: the closed form of a model written by hand, with and without interaction, and the two sweeps it is made of."""

import pytest
import torch

import by_weights
import patchclamp as pc
from patchclamp.cause.mediate import mediate

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


@pytest.mark.parametrize("both", [0.0, 4.0, -2.0])
def test_effects_are_those_of_the_closed_form(both):
    """With no interaction the total effect is the direct and the indirect one together; an interaction is what is left over."""
    model, expected = by_weights.mediated(both)
    grid = mediate(model, [[1]], [[0]], "blocks.0.mlp.out", pc.logit(0))
    assert dict(zip(grid.words("effect"), grid.values.tolist())) == pytest.approx(expected, abs=1e-5)


def test_a_linear_model_has_no_interaction_anywhere():
    torch.manual_seed(0)
    module = by_weights.blank(layers=3, heads=0, d_mlp=2)
    for weight in module.parameters():
        weight.data.normal_()
    for block in module.blocks:
        block.mlp.act = torch.nn.Identity()
    grid = mediate(pc.load(module), [[0, 1, 2]], [[0, 3, 1]], "blocks.*.mlp.out[pos=*]", pc.logit(0))
    total, direct, indirect, interaction = grid.values
    assert float(interaction.abs().max()) < 1e-4 * float(grid.values.abs().max())
    assert torch.allclose(total, direct + indirect, atol=1e-4) and float(indirect.abs().max()) > 0.1


def test_it_is_denoising_and_noising(gpt2):
    site = "blocks.*.attn.z[head=*]"
    grid = mediate(gpt2, CLEAN, CORRUPT, site, METRIC)
    there, back = pc.effects(gpt2, CLEAN, CORRUPT, site, METRIC), pc.effects(gpt2, CORRUPT, CLEAN, site, METRIC)
    assert grid.axes == ("effect", "layer", "head")
    assert torch.allclose(grid.each[:, 2], there.each, atol=1e-6)
    assert torch.allclose(grid.each[:, 2] + grid.each[:, 3], -back.each, atol=1e-6)
    assert torch.allclose(grid.values[0], torch.tensor(grid.baseline["clean"] - grid.baseline["corrupt"]), atol=1e-5)
    assert torch.allclose(grid.values[0], grid.values[1:].sum(0), atol=1e-5)


def test_all_of_the_stream_carries_everything(gpt2):
    grid = mediate(gpt2, CLEAN, CORRUPT, "blocks.*.out", METRIC).fraction()
    assert torch.allclose(grid.values, torch.tensor([1.0, 0, 1, 0])[:, None].expand(4, 2), atol=1e-4)


def test_roles_and_intervals(gpt2):
    clean, corrupt = CLEAN[:1].repeat(6, 1), CORRUPT[:1].repeat(6, 1)
    clean[:, 0] = corrupt[:, 0] = torch.arange(40, 46)
    grid = mediate(gpt2, clean, corrupt, "blocks.*.out[role=*]", METRIC, roles={"it": [2] * 6, "end": [-1] * 6})
    assert grid.axes == ("effect", "layer", "role") and grid.details["low"].shape == grid.values.shape
    assert bool((grid.details["low"] <= grid.values + 1e-6).all())
