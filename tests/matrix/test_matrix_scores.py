"""Copying and composition, beside random heads of the same singular values; and on a published model with induction heads."""

import pytest
import torch

import attention_only
import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved
from patchclamp.matrix.scores import composition, copying
from patchclamp.matrix.sources import effective


def written(letters=("q", "k", "v")):
    """Two layers, in which head 1.0 reads exactly what head 0.1 writes, as some of its inputs, and 0.0 writes elsewhere."""
    model = attention_only.drawn(heads=2, positional="none", bias=False, d_model=24, d_head=4)
    first, second = model.hf.blocks[0].attn, model.hf.blocks[1].attn
    lens = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1)))[0]
    for head in (0, 1):
        first.o.weight.data[:, 4 * head : 4 * head + 4] = lens[:, 4 * head : 4 * head + 4]
    for letter in letters:
        getattr(second, letter).weight.data[:4] = lens[:, 4:8].T
    return model


@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_composition_is_found_where_it_was_written(letter):
    grid = composition(written(letter), letter)
    row = grid.at(reader="1.0").values
    assert row.argmax() == 1 and row[0] < 0 and grid.details["score"][0, 0] < 1e-6
    assert grid.details["above"][0, 1] > 8


def test_heads_compose_with_earlier_ones_alone():
    grid = composition(attention_only.drawn(layers=3, heads=2), "v")
    assert grid.words("reader") == ["1.0", "1.1", "2.0", "2.1"] and grid.words("writer") == ["0.0", "0.1", "1.0", "1.1"]
    assert grid.values[:2, 2:].isnan().all() and not grid.values[2:].isnan().any() and not grid.values[:, :2].isnan().any()
    with pytest.raises(Unserved, match="one layer of heads"):
        composition(attention_only.drawn(layers=1))
    with pytest.raises(Unserved, match="heads of different width"):
        composition(pc.load(zoo.build("gemma4_text")))


def test_the_score_is_that_of_the_dense_matrices():
    model = attention_only.drawn(norm="layer")
    folded = {site: model.weights[site] for site in ("blocks.1.attn.W_Q[head=2]", "blocks.1.attn.W_K[kv_head=2]")}
    weight = model.hf.blocks[1].norm1.weight.detach()
    W_Q, W_K = ((weight[:, None] * w) - (weight[:, None] * w).mean(0) for w in folded.values())
    weight = model.hf.blocks[0].norm1.weight.detach()
    W_V = weight[:, None] * model.weights["blocks.0.attn.W_V[kv_head=1]"]
    W_OV = (W_V - W_V.mean(0)) @ model.weights["blocks.0.attn.W_O[head=1]"]
    for letter, M in (("q", W_Q @ W_K.T), ("k", W_K @ W_Q.T)):
        by_hand = (W_OV @ M).norm() / (W_OV.norm() * M.norm())
        assert float(composition(model, letter, draws=2).details["score"][2, 1]) == pytest.approx(float(by_hand), rel=1e-4)


def test_random_pairs_score_as_chance_has_it():
    """Between matrices turned at random the mean square of the score is 1 / d_model, whatever their singular values."""
    model = attention_only.drawn(d_model=32)
    grid = composition(model, "k", draws=400)
    square = grid.details["random"].square() + grid.details["spread"].square()
    assert torch.allclose(square, torch.full((3, 3), 1 / 32), rtol=0.1)
    assert grid.values.abs().max() < 0.1 and grid.details["above"].abs().max() < 6


def test_the_induction_heads_of_a_published_model_compose_with_its_previous_token_head(shared):
    model = attention_only.induction(shared)
    grid = composition(model, "k")
    for reader in ("1.1", "1.2", "1.3"):
        row = grid.at(reader=reader)
        where, value = row.top(1)[0]
        assert where == {"writer": "0.2"} and value > 0.2
        assert row.values[[0, 1, 3]].max() < 0
    assert grid.details["above"][1:, 2].min() > 15
    assert (composition(model, "v").values[:, 2] < 0).all()  # it composes as keys, not as values
    assert (copying(model).values[1] > 0.99).all()  # and what they find they copy
    assert grid.picture().title.startswith("K-composition")


def test_copying_is_one_where_a_head_says_what_it_sees_and_minus_one_where_it_denies_it():
    model = attention_only.drawn(heads=3, layers=1, positional="none", bias=False, d_model=48, vocab=40, d_head=16)
    module = model.hf
    module.embed.weight.data = torch.eye(40, 48)
    module.unembed.weight.data = torch.eye(40, 48)
    some = torch.linalg.qr(torch.randn(40, 16, generator=torch.Generator().manual_seed(0)))[0].T
    for head, sign in ((0, 1.0), (1, -1.0)):
        module.blocks[0].attn.v.weight.data[16 * head : 16 * head + 16, :40] = some
        module.blocks[0].attn.o.weight.data[:40, 16 * head : 16 * head + 16] = sign * some.T
        module.blocks[0].attn.v.weight.data[16 * head : 16 * head + 16, 40:] = 0
    grid = copying(model, draws=40)
    assert grid.values[0, :2].tolist() == pytest.approx([1, -1], abs=1e-4)
    assert abs(float(grid.values[0, 2])) < 0.6  # random weights
    assert grid.details["random"].abs().max() < 0.2 and float(grid.details["above"][0, 0]) > 4


def test_the_effective_embedding_may_stand_for_the_embedding(llama):
    grid = copying(llama, effective(llama), draws=2)
    assert grid.shape == {"layer": 1, "head": 4} and grid.words("layer") == ["1"]
    with pytest.raises(Unserved, match="no head comes after"):
        copying(llama, effective(llama, "blocks.1.out"))


def test_no_other_input_is_asked_for(town):
    with pytest.raises(ValueError, match='"q", "k" or "v"'):
        composition(town, "values")


def test_grouped_heads_and_norms_are_served(llama):
    assert composition(llama, "v", draws=2).shape == {"reader": 4, "writer": 4}
    assert not composition(llama, "q", draws=2).values.isnan().any()
