"""The Jacobian lens: in a linear model the closed form, in any other what torch.func says of the rest of the model."""

from random import Random

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import UnknownSite, WrongPrompt
from patchclamp.lenses.jacobian import JacobianLens, jacobians
from patchclamp.model.specimen import Specimen, SpecimenConfig

TEXTS = [[5, 6, 7, 8], [9, 10, 11, 12], [1, 2, 3, 4], [3, 9, 13, 14]]


@pytest.fixture(scope="module")
def linear():
    """Feed-forward layers whose every neuron is on, and nothing else: the stream at the end is linear in the stream before."""
    torch.manual_seed(0)
    module = Specimen(SpecimenConfig(layers=3, heads=0, d_model=12, d_mlp=20, d_head=4, vocab=30, norm="none", positional="none",
                                     activation="relu", bias=True))  # fmt: skip
    module.embed.weight.data.normal_()
    module.unembed.weight.data.normal_()
    for block in module.blocks:
        block.mlp.up.weight.data.normal_(std=0.2)
        block.mlp.down.weight.data.normal_(std=0.2)
        block.mlp.up.bias.data.fill_(50.0)
        block.mlp.down.bias.data = -50.0 * block.mlp.down.weight.data.sum(1)  # so that the stream stays small
    return pc.load(module.eval())


def test_in_a_linear_model_it_is_the_product_of_the_blocks(linear):
    lens = JacobianLens.of(linear, TEXTS)
    by_hand = torch.eye(12)
    for layer in (2, 1, 0):
        assert torch.allclose(lens.maps[f"blocks.{layer}.out"].weight, by_hand, atol=1e-5)
        w = linear.weights
        by_hand = (torch.eye(12) + w[f"blocks.{layer}.mlp.W_in"] @ w[f"blocks.{layer}.mlp.W_out"]) @ by_hand


def test_in_a_linear_model_it_foresees_the_end_and_the_logit_lens_does_not(linear):
    lens = JacobianLens.of(linear, TEXTS)
    exact = pc.lens(linear, [TEXTS[2]], through=lens)
    plain = pc.lens(linear, [TEXTS[2]])
    assert float(exact.details["KL"].max()) < 1e-5 < 0.1 < float(plain.details["KL"][0].max())


def test_it_is_the_derivative_of_the_rest_of_the_model(llama):
    prompt, at = [20, 21, 22, 23, 24], 3

    class Fixed(Random):
        def choice(self, seq):
            return at

    found = jacobians(llama, [prompt], ["blocks.0.out"], "blocks.1.out", Fixed())
    stream = llama.run(prompt, "blocks.0.out")["blocks.0.out"]
    ids = torch.tensor([prompt])

    def rest(token):
        changed = torch.cat([stream[:, :at], token[None, None], stream[:, at + 1 :]], 1)
        hidden = llama.hf.model.rotary_emb(changed, torch.arange(5)[None])
        mask = torch.full((5, 5), float("-inf")).triu(1)[None, None]
        return llama.hf.model.layers[1](changed, attention_mask=mask, position_embeddings=hidden)[0, at]

    assert ids.shape == (1, 5)
    by_hand = torch.autograd.functional.jacobian(rest, stream[0, at])
    assert torch.allclose(found["blocks.0.out"][0][0], by_hand, atol=1e-4)


def test_at_the_end_it_is_the_identity_and_the_lens_the_output(llama):
    lens = JacobianLens.of(llama, TEXTS)
    grid = pc.lens(llama, TEXTS[0], through=lens)
    assert grid.title == "Jacobian lens"
    assert torch.equal(lens.maps["blocks.1.out"].weight, torch.eye(64)) and float(grid.details["KL"][-1].max()) < 1e-5


def test_it_is_saved_and_loaded(linear, tmp_path):
    lens = JacobianLens.of(linear, TEXTS, "blocks.1.out")
    again = JacobianLens.load(lens.save(tmp_path / "lens"))
    assert (again.tokens, again.model) == (4, linear.name) and list(again.maps) == ["blocks.1.out"]
    assert torch.equal(again.maps["blocks.1.out"].weight, lens.maps["blocks.1.out"].weight)


def test_places_it_was_not_made_for_are_named(linear):
    with pytest.raises(UnknownSite, match="was not made for blocks.0.out; it has blocks.1.out"):
        pc.lens(linear, TEXTS[0], through=JacobianLens.of(linear, TEXTS, "blocks.1.out"))
    with pytest.raises(WrongPrompt, match="there are none"):
        JacobianLens.of(linear, [])
