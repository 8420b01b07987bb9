"""A direction taken out of a model: nowhere in its stream, and the same logits once it is baked into the weights."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.probe.ablation import without

PARAMETERS = [
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": True}),
    ("llama", {}),
    ("gemma", {}),
    ("gpt_neox", {}),
    ("granite", {}),
]
"""Learned positions and biases, a tied embedding, grouped queries, a scaled embedding, parallel blocks, residual factors."""


def directions(width, n=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("kind", "options"), PARAMETERS, ids=lambda p: p if isinstance(p, str) else "tied" if p else "")
@pytest.mark.parametrize("n", [1, 2])
def test_it_is_nowhere_in_the_stream_and_baking_changes_no_logit(kind, options, n, ids, tmp_path):
    model = pc.load(zoo.build(kind, **options))
    rows = directions(model.width, n)
    numb = model.edit(*without(model, rows))
    run = numb.run(ids, keep=["blocks.*.in", "blocks.*.out"])
    for part in ("in", "out"):
        stream = run[f"blocks.*.{part}"]
        assert float((stream @ rows.T).abs().max()) < 1e-4 * float(stream.norm(dim=-1).max() * rows.norm())
    baked = numb.bake()
    assert baked.edits == () and torch.allclose(baked.run(ids).logits, run.logits, atol=1e-4)
    assert not torch.allclose(run.logits, model.run(ids).logits, atol=1e-2)
    baked.hf.save_pretrained(tmp_path)
    assert torch.allclose(pc.load(tmp_path).run(ids).logits, run.logits, atol=1e-4)


def test_the_baked_weights_are_the_orthogonalised_ones_by_hand(town):
    """W - (W d) d for every matrix that writes, done on a bare Hugging Face model."""
    import copy

    d = directions(128)[0]
    d = d / d.norm()
    hf = copy.deepcopy(town.hf)
    with torch.no_grad():
        hf.model.embed_tokens.weight.sub_(torch.outer(hf.model.embed_tokens.weight @ d, d))
        for layer in hf.model.layers:
            for matrix in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                matrix.sub_(torch.outer(d, d @ matrix))
    run = town.edit(*without(town, d)).run("We went home")
    assert torch.allclose(run.logits, hf(run.tokens).logits, atol=1e-4)


def test_a_real_model_comes_out_the_same_baked_saved_and_loaded(stories, tmp_path):
    """A trained Llama with grouped queries: the direction from sad beginnings to happy ones."""
    told = [[f"Once upon a time, there was a {who}. {who[0].upper() + who[1:]} was very {how}" for who in ("little girl", "boy", "dog", "cat")]
            for how in ("happy", "sad")]  # fmt: skip
    mood = pc.contrast(stories, "blocks.2.out", *told)
    numb = stories.edit(*without(stories, mood.vector))
    text = "Once upon a time, there was a little girl named Lily. She was very sad and wanted to go home."
    logits = numb.run(text).logits
    baked = numb.bake()
    baked.hf.save_pretrained(tmp_path)
    again = pc.load(tmp_path, stories.tokenizer)
    assert torch.allclose(baked.run(text).logits, logits, atol=1e-4) and torch.allclose(
        again.run(text).logits, logits, atol=1e-4
    )
    assert float((stories.run(text).logits - logits).abs().max()) > 0.1


def test_generation_is_the_same_baked_or_not(town):
    numb = town.edit(*without(town, directions(128)))
    prompt = "When Mary and John went to the store,"
    assert numb.generate(prompt, 8).new == numb.bake().generate(prompt, 8).new


def test_the_rest_of_the_stream_is_left(town):
    """At the first block nothing else has happened yet: what goes is the projection and no more."""
    d = directions(128)[0]
    run, plain = (m.run("We went home", keep="blocks.0.in")["blocks.0.in"] for m in (town.edit(*without(town, d)), town))
    unit = d / d.norm()
    assert torch.allclose(run, plain - (plain @ unit)[..., None] * unit, atol=1e-5)


def test_norms_in_the_way_are_refused_by_name(ids):
    bert = pc.load(zoo.build("bert"))
    with pytest.raises(Unserved, match="at blocks.0 a norm stands in its stream"):
        without(bert, directions(64))
    gemma = pc.load(zoo.build("gemma2"))
    numb = gemma.edit(*without(gemma, directions(64)))
    assert float((numb.run(ids, keep="blocks.1.out")["blocks.1.out"] @ directions(64).T).abs().max()) < 1e-3
    with pytest.raises(Unserved, match="cannot be baked"):
        numb.bake()
    bloom = pc.load(zoo.build("bloom"))
    with pytest.raises(Unserved, match="does not begin with a plain sum of embeddings"):
        bloom.edit(*without(bloom, directions(64))).bake()


def test_a_direction_of_another_width_is_refused(town):
    with pytest.raises(ShapeMismatch, match="has 128 numbers; a direction of 64"):
        without(town, directions(64))
