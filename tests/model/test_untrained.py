"""An untrained copy has the shape, the tokenizer and the edits of the model, and none of its weights."""

import torch

import patchclamp as pc
import planted
from patchclamp.model.untrained import untrained


def test_the_untrained_copy_has_the_shape_and_not_the_weights(gpt2):
    for model in (gpt2, planted.total()[0]):
        copy = untrained(model)
        ours, theirs = model.hf.state_dict(), copy.hf.state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
        assert copy.name.endswith(", untrained") and not copy.hf.training
        assert not any(torch.equal(ours[k], theirs[k]) for k in ours if ours[k].is_floating_point() and ours[k].ndim > 1)
        again, other = untrained(model).hf.state_dict(), untrained(model, 1).hf.state_dict()
        assert all(torch.equal(theirs[k], again[k]) for k in theirs) and any(
            not torch.equal(theirs[k], other[k]) for k in theirs
        )


def test_a_parameter_without_a_reset_is_drawn_like_the_one_there_was():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(3 + 2 * torch.randn(20_000, generator=torch.Generator().manual_seed(0)))

        def forward(self, tokens):
            return tokens

    scale = untrained(pc.load(Bare().eval())).hf.scale
    assert abs(float(scale.detach().mean()) - 3) < 0.1 and abs(float(scale.detach().std()) - 2) < 0.1


def test_an_untrained_town_reads_the_same_tokens_and_keeps_its_edits(town):
    other = untrained(town.edit(pc.zero("blocks.1.attn.out")))
    assert other.layers == town.layers and other.tokenizer is town.tokenizer
    assert not float(other.run("Mary went", "blocks.1.attn.out")["blocks.1.attn.out"].abs().max())
    assert not torch.equal(other.weights["logits.W_U"], town.weights["logits.W_U"])
