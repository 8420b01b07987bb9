"""Baked models: ordinary modules that compute what the edited model computed."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved

EDITS = {
    "weights": [pc.Edit("blocks.1.mlp.W_out", lambda w: w * 0.5), pc.zero("blocks.0.attn.W_V[kv_head=1]")],
    "a head": [pc.zero("blocks.1.attn.z[head=2]")],
    "neurons": [pc.zero("blocks.*.mlp.act[neuron=3:9]")],
    "a layer": [pc.zero("blocks.0.attn.out"), pc.zero("blocks.1.mlp.out")],
    "a direction of what layers write": [
        pc.project("blocks.*.mlp.out", torch.arange(64.0)),
        pc.project("blocks.0.attn.out", torch.ones(2, 64).cumsum(1)),
    ],
    "a direction of the embeddings": [pc.project("embed.out", torch.arange(64.0)), pc.project("blocks.0.in", torch.ones(64))],
}


@pytest.mark.parametrize("name", EDITS)
def test_baked_is_as_edited(name, ids, tmp_path):
    model = pc.load(zoo.build("gpt2"))
    edited = model.edit(*EDITS[name])
    baked = edited.bake()
    assert baked.edits == ()
    assert torch.allclose(baked.run(ids).logits, edited.run(ids).logits, atol=1e-5)
    assert not torch.allclose(baked.run(ids).logits, model.run(ids).logits, atol=1e-3)
    baked.hf.save_pretrained(tmp_path)
    again = pc.load(tmp_path)
    assert torch.allclose(again.run(ids).logits, edited.run(ids).logits, atol=1e-5)


def test_an_edited_unembedding_is_untied(ids, tmp_path):
    model = pc.load(zoo.build("gpt2", tie_word_embeddings=True))
    edited = model.edit(pc.zero("logits.W_U[vocab=5]"))
    baked = edited.bake()
    assert baked.hf.lm_head.weight is not baked.hf.transformer.wte.weight
    assert torch.equal(baked.run(ids).logits, edited.run(ids).logits)
    baked.hf.save_pretrained(tmp_path)
    assert torch.allclose(pc.load(tmp_path).run(ids).logits, edited.run(ids).logits, atol=1e-5)


@pytest.mark.parametrize(
    "edit",
    [
        pc.steer("blocks.0.out", torch.ones(64)),
        pc.zero("blocks.0.out"),
        pc.zero("blocks.0.attn.z[head=1, pos=-1]"),
        pc.project("blocks.0.out", torch.ones(64)),
        pc.project("blocks.0.in[pos=-1]", torch.ones(64)),
    ],
    ids=str,
)
def test_what_reads_activations_cannot_be_baked(edit):
    with pytest.raises(Unserved, match="cannot be baked"):
        pc.load(zoo.build("gpt2")).edit(edit).bake()
