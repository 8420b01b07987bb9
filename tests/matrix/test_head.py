"""A head's matrices act on the stream as the model does, norms folded in; what is no single head, or not linear, is refused."""

import pytest
import torch

import attention_only
import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.matrix.head import Head, carried


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt_neox", "bert"])
def test_values_come_from_the_stream_centred_and_divided(kind):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        run = model.run([[7, 8, 9]], keep=["blocks.1.in", "blocks.1.attn.in", "blocks.1.attn.v"])
    for number in (0, 3):
        head = Head.of(model, f"blocks.1.attn.z[head={number}]")
        x = run["blocks.1.in"][0]
        scale = head.norm.scale(x, run["blocks.1.attn.in"][0]) if head.norm is not None else 1.0
        v = scale * (x @ head.weight("V")) + head.bias("V")
        assert torch.allclose(v, run["blocks.1.attn.v"][0, :, head.shared], atol=1e-4)
    assert (head.norm is None) == (kind == "bert")  # whose norms stand in the stream


def test_query_heads_share_the_key_value_head_that_the_model_gives_them(llama):
    run = llama.run([[7, 8, 9]], keep=["blocks.1.attn.pattern", "blocks.1.attn.v", "blocks.1.attn.z"])
    for number in range(4):
        head = Head.of(llama, f"blocks.1.attn.z[head={number}]")
        z = run["blocks.1.attn.pattern"][0, number] @ run["blocks.1.attn.v"][0, :, head.shared]
        assert torch.allclose(z, run["blocks.1.attn.z"][0, :, number], atol=1e-5)


def test_all_heads_write_what_attention_adds():
    model = attention_only.drawn()
    run = model.run([[7, 8, 9]], keep=["blocks.1.attn.z", "blocks.1.attn.out"])
    heads = [h for h in Head.all(model) if h.layer == 1]
    made = sum(run["blocks.1.attn.z"][0, :, h.number] @ h.output for h in heads) + model.weights["blocks.1.attn.b_O"]
    assert [h.name for h in heads] == ["1.0", "1.1", "1.2"] and torch.allclose(made, run["blocks.1.attn.out"][0], atol=1e-5)


def test_constant_factors_of_the_stream_are_followed_and_norms_in_it_refused():
    with zoo.quiet():
        granite, bert = pc.load(zoo.build("granite")), pc.load(zoo.build("bert"))
    head = Head.of(granite, "blocks.0.attn.z[head=1]")  # what it writes is halved
    assert torch.allclose(head.output, 0.5 * granite.weights["blocks.0.attn.W_O[head=1]"])
    assert carried(granite, 0, 2, "it") == 1.0
    with pytest.raises(Unserved, match="a norm stands in the stream of blocks.0"):
        carried(bert, 0, 1, "it")


def test_what_is_no_head_is_refused(llama):
    for site, says in (("blocks.1.attn.out", "is not one head"), ("blocks.*.attn.z[head=0]", "names 2 layers"), ("blocks.1.attn.z", "is not one head"),
                       ("blocks.1.attn.z[head=7]", "has 4 heads")):  # fmt: skip
        with pytest.raises(WrongAxis, match=says):
            Head.of(llama, site)
    with zoo.quiet():
        low_rank = pc.load(zoo.build("deepseek_v3"))
    with pytest.raises(Unserved, match="not made by single matrices"):
        Head.of(low_rank, "blocks.0.attn.z[head=0]")
    with pytest.raises(Unserved, match="no attention head"):
        Head.all(attention_only.drawn(heads=0, d_mlp=4))
