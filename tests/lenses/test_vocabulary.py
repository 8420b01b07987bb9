"""Weights as words, against products written out with Hugging Face's own parameters, and on matrices set by hand."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.lenses.vocabulary import carries, vocabulary


def tokens(grid):
    return torch.tensor([[int(w) for w in row] for row in grid.text])


def test_a_neurons_row_by_hand(llama):
    hf = llama.hf
    with torch.no_grad():
        scores = (hf.model.layers[1].mlp.down_proj.weight.T * hf.model.norm.weight) @ hf.lm_head.weight.T
    grid = vocabulary(llama, "blocks.1.mlp.W_out[neuron=3:9]", n=5)
    top = scores[3:9].topk(5)
    assert grid.shape == {"neuron": 6, "top": 5} and list(grid.words("neuron")) == ["3", "4", "5", "6", "7", "8"]
    assert torch.allclose(grid.values, top.values, atol=1e-5) and torch.equal(tokens(grid), top.indices)


def test_a_norm_that_centres_and_a_bias_of_it(gpt2):
    """The unembedding of a centred stream, without the norm's bias, which says the same whatever the direction."""
    hf = gpt2.hf
    with torch.no_grad():
        row = hf.transformer.h[0].mlp.c_proj.weight[7]
        scores = hf.lm_head((row - row.mean()) * hf.transformer.ln_f.weight)
    grid = vocabulary(gpt2, "blocks.0.mlp.W_out[neuron=7]", n=4)
    assert grid.axes == ("top",) and torch.allclose(grid.values, scores.topk(4).values, atol=1e-5)


def test_what_reads_is_read_with_the_embedding(llama):
    layer, table = llama.hf.model.layers[0], llama.hf.model.embed_tokens.weight
    with torch.no_grad():
        scores = (table * layer.post_attention_layernorm.weight) @ layer.mlp.up_proj.weight.T
        queries = (table * layer.input_layernorm.weight) @ layer.self_attn.q_proj.weight.T
    grid = vocabulary(llama, "blocks.0.mlp.W_in[neuron=*]", n=3)
    assert torch.allclose(grid.values, scores.T.topk(3).values, atol=1e-5)
    heads = vocabulary(llama, "blocks.*.attn.W_Q[head=*]", n=2)
    assert heads.shape == {"layer": 2, "head": 4, "d_head": 16, "top": 2}
    assert torch.allclose(heads.values[0, 1], queries.T[16:32].topk(2).values, atol=1e-5)


def test_norms_behind_a_layer_are_gone_through():
    with zoo.quiet():
        model = pc.load(zoo.build("gemma2"))
    layer = model.hf.model.layers[1]
    layer.post_feedforward_layernorm.weight.data.normal_()
    with torch.no_grad():
        row = layer.mlp.down_proj.weight[:, 4] * (1 + layer.post_feedforward_layernorm.weight)
        scores = model.hf.lm_head(row * (1 + model.hf.model.norm.weight))
    grid = vocabulary(model, "blocks.1.mlp.W_out[neuron=4]", n=3)
    assert torch.allclose(grid.values, scores.topk(3).values, atol=1e-4)


def test_any_direction(llama):
    directions = llama.weights["logits.W_U"][:, [7, 8, 9]].T
    grid = vocabulary(llama, directions, n=3)
    with torch.no_grad():
        scores = llama.hf.lm_head(directions * llama.hf.model.norm.weight)
    assert grid.axes == ("direction", "top") and torch.equal(tokens(grid), scores.topk(3).indices)


def test_rows_are_read_a_few_at_a_time(llama, monkeypatch):
    whole = vocabulary(llama, "blocks.*.mlp.W_out[neuron=*]", n=3)
    monkeypatch.setattr("patchclamp.lenses.vocabulary.LOGITS", 99 * 7)
    parts = vocabulary(llama, "blocks.*.mlp.W_out[neuron=*]", n=3)
    assert whole.shape == {"layer": 2, "neuron": 96, "top": 3} and torch.allclose(parts.values, whole.values, atol=1e-6)


def test_what_a_head_carries_by_hand(llama):
    """Grouped queries: heads 2 and 3 read the second key-value head."""
    layer = llama.hf.model.layers[1]
    with torch.no_grad():
        x = llama.hf.model.embed_tokens.weight[[11, 12]] * layer.input_layernorm.weight
        v, o = layer.self_attn.v_proj.weight, layer.self_attn.o_proj.weight
        scores = torch.stack(
            [llama.hf.lm_head(x @ v[16:32].T @ o[:, h * 16 : h * 16 + 16].T * llama.hf.model.norm.weight) for h in (2, 3)]
        )
    grid = carries(llama, "blocks.1.attn.z[head=2:]", [11, 12], n=4)
    assert grid.axes == ("head", "word", "top") and list(grid.words("head")) == ["2", "3"]
    assert torch.allclose(grid.values, scores.topk(4).values, atol=1e-5)
    own = torch.stack([(s > s[:, [11, 12]].diagonal()[:, None]).sum(-1) for s in scores])
    assert torch.equal(grid.details["rank"][..., 0], own.float())


def test_a_copying_head_copies():
    """A head whose value and output matrices undo one another, over embeddings that are rows of the unembedding."""
    with zoo.quiet():
        model = pc.load(zoo.build("llama", num_key_value_heads=4))
    hf, generator = model.hf, torch.Generator().manual_seed(0)
    table = torch.linalg.qr(torch.randn(99, 64, generator=generator)).Q
    hf.model.embed_tokens.weight.data, hf.lm_head.weight.data = table.clone(), table.clone()
    frame = torch.linalg.qr(torch.randn(64, 16, generator=generator)).Q
    attention = hf.model.layers[0].self_attn
    attention.v_proj.weight.data[16:32], attention.o_proj.weight.data[:, 16:32] = frame.T, frame
    grid = carries(model, "blocks.*.attn.z[head=*]", list(range(20, 40)), n=1)
    ranks = grid.details["rank"][..., 0]
    assert float(ranks[0, 1].median()) < 5 and float(ranks[0, 0].median()) > 15
    negative = -frame
    attention.o_proj.weight.data[:, 16:32] = negative
    assert float(carries(model, "blocks.0.attn.z[head=1]", list(range(20, 40)), n=1).details["rank"].median()) > 90


def test_a_page_shows_the_words(town):
    page = vocabulary(town, "blocks.3.mlp.W_out[neuron=0:4]", n=5).html()
    assert "as words" in page and "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("site", "error", "says"),
    [
        ("blocks.0.attn.b_Q", Unserved, "holds no directions of the stream"),
        ("blocks.0.mlp.W_out[d_model=3]", WrongAxis, "rows are read whole"),
    ],
)
def test_what_holds_no_directions_is_named(gpt2, site, error, says):
    with pytest.raises(error, match=says):
        vocabulary(gpt2, site)


def test_ends_that_are_not_one_matrix_are_named():
    with zoo.quiet():
        model = pc.load(zoo.build("bert", "masked"))
        with pytest.raises(Unserved, match="no single matrix between the stream and the logits"):
            vocabulary(model, "blocks.0.mlp.W_out")
    with pytest.raises(Unserved, match="names no heads"):
        carries(model, "blocks.0.mlp.act", [3])
