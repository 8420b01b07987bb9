"""With patterns and scales held, a model is linear: its parts add up to its stream and its logits, family by family."""

import pytest
import torch

import attention_only
import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved
from patchclamp.matrix.frozen import Frozen
from patchclamp.matrix.paths import list_paths

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "olmo2", "cohere", "granite", "bloom", "gpt_oss", "qwen3_next", "mixtral"]


@pytest.mark.parametrize("kind", FAMILIES)
def test_all_paths_add_up_to_the_stream_and_to_the_logits(kind):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        frozen = Frozen.of(model, [[31, 7, 9, 15, 22, 40]])
        total = sum(stream for _, stream in list_paths(frozen))
    last = frozen.run[f"{model.anatomy.main.blocks[-1].path}.out"]
    assert torch.allclose(total, last, atol=1e-4)
    assert torch.allclose(frozen.logits(total) + frozen.constant, frozen.run.logits, atol=1e-4)


def test_norms_that_stand_in_the_stream_are_held_too():
    with zoo.quiet():
        bert = pc.load(zoo.build("bert"))
        frozen = Frozen.of(bert, [[31, 7, 9, 15, 22, 40]])
    total = sum(stream for _, stream in list_paths(frozen))
    assert torch.allclose(total, frozen.run["blocks.1.out"], atol=1e-4) and list(frozen.attention) == [0, 1]
    with pytest.raises(Unserved, match="2 matrices with a curve between"):
        frozen.gain  # noqa: B018


def test_what_a_head_writes_is_what_it_wrote_in_the_run():
    model = attention_only.drawn(norm="layer")
    frozen = Frozen.of(model, [[7, 8, 9]])
    whole = frozen.run["blocks.1.in"]
    z = model.run([[7, 8, 9]], keep="blocks.1.attn.z")["blocks.1.attn.z"]
    by_hand = torch.einsum("bphe,hed->bhpd", z, model.weights["blocks.1.attn.W_O"])
    bias = torch.einsum(
        "bhqk,he,hed->bhqd", frozen.attention[1].pattern, model.weights["blocks.1.attn.b_V"], model.weights["blocks.1.attn.W_O"]
    )
    norm = model.weights.norm("blocks.1.norm1")
    bias = bias + torch.einsum(
        "bhqk,d,hde,hef->bhqf",
        frozen.attention[1].pattern,
        norm.bias,
        model.weights["blocks.1.attn.W_V"],
        model.weights["blocks.1.attn.W_O"],
    )
    assert torch.allclose(frozen.branches(1, whole) + bias, by_hand, atol=1e-4)


def test_attention_that_does_more_is_taken_as_it_was():
    with zoo.quiet():
        gated = pc.load(zoo.build("qwen3_next"))
        frozen = Frozen.of(gated, [[31, 7, 9]])
    assert frozen.attention == {} and {"mixer 0", "attn 1"} <= set(frozen.sources)


def test_prompts_of_different_length_are_served():
    model = attention_only.drawn()
    frozen = Frozen.of(model, [[7, 8, 9], [5, 6]])
    total = sum(frozen.logits(stream) for _, stream in list_paths(frozen))
    assert torch.allclose(total[1, -1], model.run([[5, 6]]).logits[0, -1], atol=1e-3)


@pytest.mark.parametrize("site", ["blocks.0.out", "blocks.1.attn.out", "blocks.0.mlp.out"])
def test_an_edit_is_where_paths_begin(site):
    """What an edit adds to the stream is a source of its own, or in what the layer wrote."""
    with zoo.quiet():
        model = pc.load(zoo.build("llama"))
    edited = model.edit(pc.steer(site, torch.randn(model.width, generator=torch.Generator().manual_seed(0))))
    frozen = Frozen.of(edited, [[31, 7, 9, 15]])
    total = sum(stream for _, stream in list_paths(frozen))
    assert torch.allclose(total, frozen.run["blocks.1.out"], atol=1e-4)
    assert ("edit 0" in frozen.sources) == (site == "blocks.0.out")


def test_logits_that_are_no_function_of_the_products_are_refused():
    with zoo.quiet():
        model = pc.load(zoo.build("llama"))
    odd = model.edit(pc.Edit("logits", lambda value: value.flip(-1)))
    with pytest.raises(Unserved, match="does not end with its norm"):
        Frozen.of(odd, [[31, 7, 9]]).gain  # noqa: B018
