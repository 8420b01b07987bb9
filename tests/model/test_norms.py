"""Norms read by asking them, against their own parameters."""

import pytest
import torch
from torch import nn

import zoo
from patchclamp.model.norms import normed, read_norm


@pytest.mark.parametrize("width", [8, 9, 64])
def test_a_layer_norm(width):
    module = nn.LayerNorm(width)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    norm = read_norm(module, width)
    assert norm.centres
    assert torch.allclose(norm.weight, module.weight.detach(), atol=1e-4)
    assert torch.allclose(norm.bias, module.bias.detach(), atol=1e-4)


def test_a_norm_without_weights():
    norm = read_norm(nn.LayerNorm(8, elementwise_affine=False), 8)
    assert norm.centres and torch.allclose(norm.weight, torch.ones(8), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "effective"), [("llama", lambda w: w), ("gemma2", lambda w: 1 + w), ("nemotron", lambda w: 1 + w)]
)
def test_conventions_do_not_matter(kind, effective):
    hf = zoo.build(kind)
    module = hf.model.layers[0].input_layernorm
    norm = read_norm(module, 64)
    assert torch.allclose(norm.weight, effective(module.weight.detach().float()), atol=1e-4)
    assert norm.centres == (kind == "nemotron")


def test_the_scale_held_reproduces_the_output():
    module, x = nn.LayerNorm(16), torch.randn(2, 3, 16)
    nn.init.normal_(module.weight)
    norm, y = read_norm(module, 16), module(x).detach()
    scale = norm.scale(x, y)
    assert torch.allclose(scale * norm.weight * norm.centred(x) + norm.bias, y, atol=1e-5)
    direction = torch.randn(16)
    back = norm.pull_back(direction, scale)
    assert torch.allclose((back * x).sum(-1) + direction @ norm.bias, y @ direction, atol=1e-4)


def test_a_norm_that_returns_its_scale_too():
    class Integer(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x), None

    module, x = Integer(8), torch.randn(2, 8)
    assert torch.equal(normed(module, x), nn.LayerNorm(8)(x))
    assert torch.allclose(read_norm(module, 8).weight, torch.ones(8), atol=1e-4)


def test_what_is_no_norm():
    assert read_norm(nn.Linear(8, 8), 8) is None
    assert read_norm(nn.GELU(), 8) is None
    assert read_norm(nn.Bilinear(8, 8, 8), 8) is None


def test_parts_of_an_input_add_up_to_the_output_without_the_bias(gpt2):
    norm, x = gpt2.weights.norm("transformer.ln_f"), torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0))
    y = gpt2.hf.transformer.ln_f(x.sum(0)).detach()
    carried = norm.carry(x, norm.scale(x.sum(0), y))
    assert torch.allclose(carried.sum(0) + norm.bias, y, atol=1e-5)
