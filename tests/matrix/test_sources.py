"""What circuits start from: rows as they stand in the stream."""

import pytest
import torch

import attention_only
import patchclamp as pc
import zoo
from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.matrix.head import Head
from patchclamp.matrix.sources import effective, neurons, positions, stream, tokens


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "granite", "opt", "bloom", "modernbert-decoder"])
def test_tokens_enter_as_the_model_has_them(kind):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        run = model.run([[7, 8, 9]], keep="blocks.0.in")
        for pos, token in enumerate((7, 8, 9)):
            assert torch.allclose(tokens(model, pos).rows([token])[0], run["blocks.0.in"][0, pos], atol=1e-5)


def test_tokens_and_positions_add_up_to_the_stream():
    model = attention_only.drawn()
    run = model.run([[7, 8, 9]], keep="blocks.0.in")
    made = tokens(model).rows([7, 8, 9]) + positions(model, 3).rows([0, 1, 2])
    assert torch.allclose(made, run["blocks.0.in"][0], atol=1e-5)
    assert torch.allclose(positions(model, 3).left, model.hf.positions.weight[:3], atol=1e-5)


def test_positions_that_are_turned_are_no_source(llama):
    with pytest.raises(Unserved, match="adds no vector for positions"):
        positions(llama, 3)
    with zoo.quiet():
        bert = pc.load(zoo.build("bert"))
    with pytest.raises(Unserved, match="through more than a factor"):
        tokens(bert)


def test_rows_through_a_head_are_what_it_writes_of_them():
    model = attention_only.drawn()
    head, source = Head.of(model, "blocks.0.attn.z[head=1]"), tokens(model)
    passed = source.through(head.site)
    w = model.weights
    by_hand = w["embed.W_E"] @ w["blocks.0.attn.W_V[kv_head=1]"] @ w["blocks.0.attn.W_O[head=1]"]
    assert torch.allclose(passed.rows(slice(None)), by_hand, atol=1e-4) and passed.layer == 1 and passed.passed == ("0.1",)
    with pytest.raises(ShapeMismatch, match="comes before block 1"):
        passed.read(head, "Q")


def test_neurons_write_their_rows(llama):
    source = neurons(llama, "blocks.0.mlp.W_out")
    assert torch.equal(source.left, llama.weights["blocks.0.mlp.W_out"]) and source.layer == 1
    with pytest.raises(Unserved, match="rows that neurons write"):
        neurons(llama, "blocks.0.mlp.W_in")


def test_an_effective_embedding_is_what_a_token_becomes_alone(llama):
    rows = effective(llama, "blocks.0.out")
    assert torch.allclose(rows.left[11], llama.run([[11]], keep="blocks.0.out")["blocks.0.out"][0, 0], atol=1e-5)
    assert len(rows) == 99 and rows.layer == 1
    with pytest.raises(Unserved, match="output of a block"):
        effective(llama, "blocks.0.mlp.out")


def test_any_vectors_may_be_a_source(llama):
    assert stream(llama, torch.ones(2, 64)).words == ["0", "1"]
