"""Weights in canonical form: they compute what the model computes, whatever the layout, and are views."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import UnknownSite, Unserved

LAYOUTS = ["gpt2", "gpt_neox", "bloom", "falcon", "phi3", "gptj", "codegen", "mpt", "dbrx", "gpt_bigcode", "glm", "modernbert-decoder",
           "openai-gpt", "llama", "qwen2", "gemma2", "granite", "persimmon", "qwen3_next", "opt"]  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_they_compute_what_the_model_computes(kind):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        run = model.run(torch.arange(20, 26)[None], keep=[s for s in model.sites if "pattern" not in s and "scores" not in s])
    w = model.weights
    for block in model.anatomy.main.blocks:
        for write in block.writes:
            at = f"{block.path}.{write.name}"
            x = run[f"{at}.in"] if f"{at}.in" in run else None
            if f"{at}.W_V" in w:  # v is neither rotated nor normed
                v = torch.einsum("bpd,hde->bphe", x, w[f"{at}.W_V"]) + w[f"{at}.b_V"]
                assert torch.allclose(v, run[f"{at}.v"], atol=1e-4), at
            if f"{at}.W_Q" in w and kind in ("gpt2", "bloom", "mpt", "openai-gpt"):  # neither is q here
                q = torch.einsum("bpd,hde->bphe", x, w[f"{at}.W_Q"]) + w[f"{at}.b_Q"]
                assert torch.allclose(q, run[f"{at}.q"], atol=1e-4), at
            if f"{at}.W_O" in w and write.linear and not write.norms:
                out = torch.einsum("bphe,hed->bpd", run[f"{at}.z"], w[f"{at}.W_O"]) + w[f"{at}.b_O"]
                for factor in write.factors:
                    out = out * factor
                assert torch.allclose(out, run[f"{at}.out"], atol=1e-4), at
            if f"{at}.W_in" in w:
                assert torch.allclose(x @ w[f"{at}.W_in"] + w[f"{at}.b_in"], run[f"{at}.pre"], atol=1e-4)
            if f"{at}.W_gate" in w:
                assert torch.allclose(x @ w[f"{at}.W_gate"] + w[f"{at}.b_gate"], run[f"{at}.gate"], atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt_neox", "phi3", "falcon", "bloom", "codegen"])
def test_queries_at_the_first_token_are_not_rotated(kind):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        run = model.run([[7, 8, 9]], keep=["blocks.1.attn.in", "blocks.1.attn.q", "blocks.1.attn.k"])
    for name, letter in (("q", "Q"), ("k", "K")):
        made = torch.einsum("bpd,hde->bphe", run["blocks.1.attn.in"], model.weights[f"blocks.1.attn.W_{letter}"])
        made = made + model.weights[f"blocks.1.attn.b_{letter}"]
        assert torch.allclose(made[:, 0], run[f"blocks.1.attn.{name}"][:, 0], atol=1e-4)


def test_they_are_views_where_they_can_be(gpt2, llama):
    weight = gpt2.hf.transformer.h[0].attn.c_attn.weight
    for letter in "QKV":
        assert gpt2.weights[f"blocks.0.attn.W_{letter}"].untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    assert (
        llama.weights["blocks.1.mlp.W_out"].untyped_storage().data_ptr()
        == llama.hf.model.layers[1].mlp.down_proj.weight.data_ptr()
    )


def test_a_pattern_is_stacked_layers_first(llama):
    w = llama.weights
    assert w["blocks.*.attn.W_Q"].shape == (2, 4, 64, 16)
    assert w["blocks.*.attn.W_K"].shape == (2, 2, 64, 16)
    assert torch.equal(w["blocks.1.attn.W_O[head=2]"], w["blocks.*.attn.W_O"][1, 2])
    assert w["embed.W_E"].shape == (99, 64) and w["logits.W_U"].shape == (64, 99)
    assert (w["blocks.0.attn.b_Q"] == 0).all() and w["blocks.0.attn.b_Q"].shape == (4, 16)
    with pytest.raises(UnknownSite, match='Did you mean "blocks.0.attn.W_Q"'):
        w["blocks.0.attn.W_q"]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_folding_a_norm_gives_new_values_and_the_same_answer(kind):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
    before = {n: p.clone() for n, p in model.hf.named_parameters()}
    folded = model.weights.folded()
    run = model.run([[7, 8, 9]], keep=["blocks.1.in", "blocks.1.attn.in", "blocks.1.attn.v"])
    norm = model.weights.norm(model.anatomy.block("blocks.1.attn.in").write("attn").norm)
    x = run["blocks.1.in"]
    unit = norm.scale(x, run["blocks.1.attn.in"]) * norm.centred(x)  # the stream centred and divided, no weight, no bias
    v = torch.einsum("bpd,hde->bphe", unit, folded["blocks.1.attn.W_V"]) + folded["blocks.1.attn.b_V"]
    assert torch.allclose(v, run["blocks.1.attn.v"], atol=1e-3)
    assert all(torch.equal(p, before[n]) for n, p in model.hf.named_parameters())


def test_weights_are_edited_like_activations(gpt2, llama, ids):
    for model in (gpt2, llama):
        before = {n: p.clone() for n, p in model.hf.named_parameters()}
        by_weight = model.edit(pc.zero("blocks.1.attn.W_O[head=2]")).run(ids).logits
        by_head = model.edit(pc.zero("blocks.1.attn.z[head=2]")).run(ids).logits
        assert torch.allclose(by_weight, by_head, atol=1e-5) and not torch.allclose(by_head, model.run(ids).logits, atol=1e-3)
        assert all(torch.equal(p, before[n]) for n, p in model.hf.named_parameters())


def test_edits_of_a_fused_matrix_leave_the_rest_of_it(gpt2, ids):
    doubled = gpt2.edit(pc.Edit("blocks.0.attn.W_V", lambda w: 2 * w), pc.Edit("blocks.0.attn.b_V", lambda b: 2 * b))
    run, twice = gpt2.run(ids, keep="blocks.0.attn.*"), doubled.run(ids, keep="blocks.0.attn.*")
    assert torch.allclose(twice["blocks.0.attn.v"], 2 * run["blocks.0.attn.v"], atol=1e-5)
    assert torch.equal(twice["blocks.0.attn.q"], run["blocks.0.attn.q"])
    assert torch.allclose(doubled.weights["blocks.0.attn.W_V"], 2 * gpt2.weights["blocks.0.attn.W_V"])


def test_a_tied_matrix_is_two_places(ids):
    model = pc.load(zoo.build("gpt2", tie_word_embeddings=True))
    assert model.hf.lm_head.weight is model.hf.transformer.wte.weight
    mute = model.edit(pc.zero("logits.W_U[vocab=5]"))
    assert (mute.run(ids).logits[..., 5] == 0).all()
    others = torch.tensor([i for i in range(99) if i != 5])
    assert torch.equal(mute.run(ids).logits[..., others], model.run(ids).logits[..., others])
    blind = model.edit(pc.zero("embed.W_E[vocab=20]")).run(ids, keep="embed.out")
    assert (blind["embed.out"][0, 0] == 0).all()


def test_packed_weights_are_refused():
    model = pc.load(zoo.build("llama"))
    layer = model.hf.model.layers[0].self_attn.q_proj
    places = model.places("blocks.0.attn.W_Q")
    layer.weight = torch.nn.Parameter(torch.zeros(128, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(Unserved, match="is packed"):
        model.weights[places[0]]


def test_low_rank_attention_has_no_single_matrix():
    with zoo.quiet():
        model = pc.load(zoo.build("deepseek_v3"))
    assert "blocks.0.attn.W_Q" not in model.weights and "blocks.0.attn.W_O" in model.weights
    with pytest.raises(UnknownSite):
        model.weights["blocks.0.attn.W_Q"]
