"""Patchscopes: identities that must hold, the token said again, one model read by another."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import ShapeMismatch, WrongAxis
from patchclamp.lenses.affine import Affine
from patchclamp.lenses.patchscope import Inspection, mapping, patchscope

STORE = "When Mary and John went to the store, Mary gave a drink to"
"""Who is given the drink is the other of the two: put somebody else in John's place, and it is them."""
NAMES = ["Oscar", "Lucy", "Felix", "Alice", "Hugo", "Emma", "Jacob", "Nora"]


def test_a_vector_put_back_where_it_was_changes_nothing(gpt2):
    prompt = [20, 21, 22, 23, 24]
    asks = Inspection(gpt2, prompt, "blocks.0.out[pos=2]")
    vector = gpt2.run(prompt, "blocks.0.out[pos=2]")["blocks.0.out[pos=2]"]
    assert torch.equal(asks.given(vector).run(prompt).logits, gpt2.run(prompt).logits)


def test_put_in_behind_the_last_block_it_is_the_logit_lens(town):
    clean = "When Mary and John went to the store, John gave a drink to"
    asks = Inspection(town, "Nora said that", "blocks.3.out[pos=-1]")
    grid, lens = asks.grid(town, clean, "blocks.*.out[pos=-1]"), pc.lens(town, clean)
    assert grid.axes == ("source", "target") and torch.allclose(grid.values[:, 0], lens.values[:, -1], atol=1e-5)
    assert [row[0] for row in grid.text] == [row[-1] for row in lens.text]


def test_the_identity_patchscope_reproduces_the_token(town):
    """Eight names, none of which the asking prompt holds; the control is the prompt with nothing put in, and with another word."""
    asks = Inspection(town, STORE, "blocks.0.in[pos=4]")
    assert asks.plain(new=1).new == ("John",)
    said = [asks.read(town, f"Yesterday {name} came home.", "blocks.0.in[pos=2]", new=1).new[0] for name in NAMES]
    assert said == NAMES
    later = [patchscope(town, f"Yesterday {n} came home.", "blocks.1.out[pos=2]", STORE, "blocks.1.out[pos=4]", new=1).new[0]
             for n in NAMES]  # fmt: skip
    assert sum(a == b for a, b in zip(later, NAMES)) >= 7
    other = [asks.read(town, f"Yesterday {name} came home.", "blocks.0.in[pos=3]", new=1).new[0] for name in NAMES]
    assert not set(other) & set(NAMES)


def test_while_writing_on_only_the_one_token_is_replaced(town):
    run = patchscope(town, "Yesterday Oscar came home.", "blocks.0.in[pos=2]", STORE, "blocks.0.in[pos=-9]", new=3)
    fixed = patchscope(town, "Yesterday Oscar came home.", "blocks.0.in[pos=2]", STORE, "blocks.0.in[pos=6]", new=3)
    assert run.new == fixed.new
    last = Inspection(town, STORE, "blocks.0.in[pos=-1]")
    length = len(town.run(STORE).words[0])
    assert str(last.place) == f"blocks.0.in[pos={length - 1}]"


def test_one_model_reads_another_through_a_map():
    """The wider model embeds the same tokens turned into its own basis; the map finds the turn, and does not where texts differ."""
    with zoo.quiet():
        narrow, wide = pc.load(zoo.build("gpt2")), pc.load(zoo.build("gpt2", n_embd=96))
    turn = torch.linalg.qr(torch.randn(96, 64, generator=torch.Generator().manual_seed(0))).Q.T
    wide.hf.transformer.wte.weight.data = narrow.weights["embed.W_E"] @ turn
    texts = [torch.randint(3, 99, (12,), generator=torch.Generator().manual_seed(i)).tolist() for i in range(60)]
    found = mapping(narrow, "embed.out", wide, "embed.out", texts)
    assert torch.allclose(found.weight, turn, atol=1e-3)
    shuffled = Affine.fit(narrow.weights["embed.W_E"][:80], wide.weights["embed.W_E"][:80].flip(0))
    assert not torch.allclose(shuffled.weight, turn, atol=0.1)
    for token in (40, 41, 42):
        through = Inspection(wide, [20, 21, 22], "embed.out[pos=1]", found).given(narrow.weights["embed.W_E"][token])
        assert torch.allclose(through.run([20, 21, 22]).logits, wide.run([20, token, 22]).logits, atol=1e-3)
    asks = Inspection(wide, [20, 21, 22], "blocks.0.out[pos=1]", through=found)
    assert asks.read(narrow, [5, 6, 7], "blocks.0.out[pos=1]", new=1).fresh == 1
    with pytest.raises(ShapeMismatch, match="a vector of 64 numbers does not fit .* which has 96; give a map"):
        Inspection(wide, [20, 21, 22], "blocks.0.out[pos=1]").read(narrow, [5, 6, 7], "blocks.0.out[pos=1]")


def test_a_map_between_one_models_layers_is_found(town):
    texts = [f"Yesterday {name} came home." for name in NAMES]
    same = mapping(town, "blocks.1.out", town, "blocks.1.out", texts * 2)
    stream = town.run(texts[0], "blocks.1.out")["blocks.1.out"]
    assert torch.allclose(same(stream), stream, atol=0.05)


@pytest.mark.parametrize(
    ("into", "source", "says"),
    [
        ("blocks.0.in", "blocks.0.in[pos=1]", r"is to take the place of one token; say which: blocks.0.in\[pos=-1\]"),
        ("blocks.0.in[pos=1]", "blocks.*.in[pos=1]", "names no single vector; take one layer and one token"),
        ("blocks.0.in[pos=1]", "blocks.0.in", "names no single vector"),
    ],
)
def test_places_must_be_one_token(gpt2, into, source, says):
    with pytest.raises(WrongAxis, match=says):
        Inspection(gpt2, [20, 21, 22], into).read(gpt2, [5, 6], source, new=1)
