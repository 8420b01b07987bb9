"""Singular directions of weights in the vocabulary, spectra, and the cosine of what neurons read and write."""

import pytest
import torch

import attention_only
import patchclamp as pc
import zoo
from patchclamp.core.errors import WrongAxis
from patchclamp.matrix.spectrum import directions, in_out, matrix, peaked, spectrum, vocabulary


def planted():
    """A head whose strongest direction reads token 3 and writes token 5, in a model whose tokens are the axes of its stream."""
    model = attention_only.drawn(
        layers=1, heads=2, d_head=4, d_model=48, positional="none", bias=False, d_mlp=12, activation="relu"
    )
    module = model.hf
    module.embed.weight.data, module.unembed.weight.data = torch.eye(40, 48), torch.eye(40, 48)
    module.blocks[0].attn.v.weight.data[0], module.blocks[0].attn.o.weight.data[:, 0] = (
        40 * torch.eye(48)[3],
        40 * torch.eye(48)[5],
    )
    module.blocks[0].mlp.down.weight.data[:, :4] = -2 * module.blocks[0].mlp.up.weight.data[:4].T
    return model


def test_a_planted_direction_is_named_by_what_it_reads_and_writes():
    model, head = planted(), "blocks.0.attn.z[head=0]"
    written, read = directions(model, head, n=2), directions(model, head, n=2, side="read")
    assert "5" in (written.text[0][0].split(", ")[0], written.text[0][1].split(", ")[0])
    assert "3" in (read.text[0][0].split(", ")[0], read.text[0][1].split(", ")[0])
    assert written.values[0].max() > written.baseline["random, 95 %"] > written.baseline["random"]


def test_random_weights_stand_out_no_more_than_random_directions_do():
    above = []
    for seed in range(20):
        model = attention_only.drawn(seed, layers=1, heads=1, d_model=48, positional="none")
        grid = directions(model, "blocks.0.attn.z[head=0]", n=4)
        above.append((grid.values > grid.baseline["random, 95 %"]).float().mean())
    assert torch.stack(above).mean() < 0.15


def test_spectra_are_those_of_the_dense_matrix(llama):
    one = spectrum(llama, "blocks.1.attn.z[head=2]")
    W_V = llama.weights.folded()["blocks.1.attn.W_V[kv_head=1]"]
    dense = torch.linalg.svdvals(W_V @ llama.weights["blocks.1.attn.W_O[head=2]"])[:16]
    assert torch.allclose(one.values, dense, atol=1e-5)
    every = spectrum(llama, "blocks.*.attn.z[head=*]")
    assert every.shape == {"component": 8, "direction": 16} and every.words("component")[6] == "1.2"
    assert torch.allclose(every.values[6], one.values) and float(every.details["effective rank"][6, 0]) == pytest.approx(
        one.baseline["effective rank"]
    )
    assert spectrum(llama, "blocks.*.mlp.W_out").shape == {"component": 2, "direction": 64}
    assert one.picture().title.startswith("Spectrum")


def test_feed_forward_matrices_are_read_with_their_norm(llama):
    assert torch.allclose(matrix(llama, "blocks.1.mlp.W_in").full(), llama.weights.folded()["blocks.1.mlp.W_in"], atol=1e-6)
    assert directions(llama, "blocks.1.mlp.W_in", n=3, side="read").shape == {"direction": 3, "end": 2}
    with pytest.raises(WrongAxis, match="its written side is neurons"):
        directions(llama, "blocks.1.mlp.W_in")
    with pytest.raises(WrongAxis, match="is no head"):
        matrix(llama, "blocks.1.attn.W_Q")


def test_the_qk_circuit_has_a_query_and_a_key_side(llama):
    site = "blocks.1.attn.scores[head=2]"
    w = llama.weights.folded()
    dense = w["blocks.1.attn.W_Q[head=2]"] @ w["blocks.1.attn.W_K[kv_head=1]"].T
    assert torch.allclose(matrix(llama, site).full(), dense, atol=1e-6)
    svd = torch.linalg.svd(dense)
    for side, first in (("query", svd.U[:, 0]), ("key", svd.Vh[0])):
        grid, said = directions(llama, site, n=1, side=side), first @ w["logits.W_U"]
        assert {grid.text[0][0].split(", ")[0], grid.text[0][1].split(", ")[0]} == {
            str(int(said.argmax())),
            str(int(said.argmin())),
        }
    with pytest.raises(ValueError, match='"query" or "key"'):
        directions(llama, site, side="read")
    assert spectrum(llama, "blocks.*.attn.scores[head=*]").shape == {"component": 8, "direction": 16}


def test_neurons_are_rows_in_the_vocabulary(llama):
    found = vocabulary(llama, "blocks.1.mlp")
    by_hand = llama.weights["blocks.1.mlp.W_out"] @ llama.weights.folded()["logits.W_U"]
    assert torch.allclose(found.factored.full(), by_hand, atol=1e-5)
    read = vocabulary(llama, "blocks.1.mlp", side="read")
    assert torch.allclose(
        read.factored.full(), llama.weights.folded()["blocks.1.mlp.W_in"].T @ llama.weights.folded()["logits.W_U"], atol=1e-5
    )


def test_neurons_that_take_away_what_they_read_have_a_cosine_of_minus_one():
    grid = in_out(planted())
    assert torch.allclose(grid.values[0, :4], -torch.ones(4), atol=1e-5)
    assert grid.values[0, 4:].abs().max() < 4 * grid.baseline["unrelated, standard deviation"]
    assert grid.axes == ("layer", "neuron")


def test_the_cosine_of_unrelated_directions_is_what_the_baseline_says():
    with zoo.quiet():
        model = pc.load(zoo.build("llama"))
    for letter in ("W_in", "W_gate"):
        grid = in_out(model, letter=letter)
        assert float(grid.values.std()) == pytest.approx(grid.baseline["unrelated, standard deviation"], rel=0.15)


def test_peaked_is_in_standard_deviations():
    assert torch.allclose(peaked(torch.arange(100.0)[None]), (99 - 49.5) / torch.arange(100.0).std()[None])
