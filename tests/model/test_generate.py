"""Generation with edits, against generation step by step without any cache."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved, WrongPrompt

KINDS = ["gpt2", "llama", "gemma3_text", "gpt_neox", "qwen3", "mistral", "mamba", "bloom"]


def greedy(model, ids, count):
    """Greedy continuation without a cache: the whole sequence again for every token."""
    for _ in range(count):
        ids = torch.cat([ids, model.run(ids).logits[:, -1:].argmax(-1)], 1)
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_holds_at_every_token(kind, ids):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        torch.manual_seed(1)
        steered = model.edit(pc.steer("blocks.0.out", torch.randn(model.width)))
        run = steered.generate(ids, 6, eos_token_id=None)
        assert torch.equal(run.tokens, greedy(steered, ids, 6))
        assert torch.equal(model.generate(ids, 6, eos_token_id=None).tokens, greedy(model, ids, 6))
    assert run.fresh == 6 and run.new[0] == run.texts[0].split(" ", 7)[-1]


def test_an_edit_at_one_position_holds_when_it_comes_by(gpt2, ids):
    for position in (2, 8):
        edited = gpt2.edit(pc.clamp(f"blocks.0.out[pos={position}]", 3.0))
        ours = edited.generate(ids, 5, eos_token_id=None).tokens
        expected = ids
        for _ in range(5):
            model = edited if expected.shape[1] > position else gpt2
            expected = torch.cat([expected, model.run(expected).logits[:, -1:].argmax(-1)], 1)
        assert torch.equal(ours, expected)


def test_the_newest_token_is_minus_one(gpt2, ids):
    newest = gpt2.edit(pc.clamp("blocks.1.out[pos=-1]", 1.0)).generate(ids, 3, eos_token_id=None)
    every = gpt2.edit(pc.clamp("blocks.1.out", 1.0)).generate(ids, 3, eos_token_id=None)
    assert torch.equal(newest.tokens, every.tokens)  # in the last block only the newest token is read


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3_text"])
def test_activations_are_kept_token_by_token(kind, ids):
    model = pc.load(zoo.build(kind))
    keep = ["blocks.*.out", "blocks.0.attn.z"] + (["blocks.0.attn.k"] if kind != "gemma3_text" else [])
    run = model.generate(ids, 5, keep=keep, eos_token_id=None)  # a sliding window forgets its first keys
    again = model.run(run.tokens[:, :-1], keep=keep)
    for site in again.kept:  # the last token was predicted, not read
        assert torch.allclose(run[site], again[site], atol=1e-4), site


def test_prompts_of_unequal_length(gpt2):
    both = gpt2.generate([[5, 6], [7, 8, 9, 10]], 4, eos_token_id=None)
    alone = gpt2.generate([[5, 6]], 4, eos_token_id=None)
    assert both.new[0] == alone.new[0]
    assert both.words[0][:2] == ("5", "6") and len(both.words[0]) == 6


def test_dictionaries_work_while_generating(gpt2, ids):
    class Identity:
        def encode(self, x):
            return x

        def decode(self, latents):
            return latents

    spliced = gpt2.edit(pc.splice("blocks.0.out", Identity()))
    assert torch.equal(spliced.generate(ids, 4).tokens, gpt2.generate(ids, 4).tokens)
    clamped = spliced.edit(pc.clamp("blocks.0.out.latents[latent=3]", 9.0)).generate(ids, 4, eos_token_id=None)
    direct = gpt2.edit(pc.clamp("blocks.0.out[d_model=3]", 9.0)).generate(ids, 4, eos_token_id=None)
    assert torch.equal(clamped.tokens, direct.tokens)


def test_sampling_options_go_to_the_model(gpt2, ids):
    torch.manual_seed(0)
    one = gpt2.generate(ids, 5, do_sample=True, temperature=2.0, eos_token_id=None).tokens
    torch.manual_seed(0)
    assert torch.equal(one, gpt2.generate(ids, 5, do_sample=True, temperature=2.0, eos_token_id=None).tokens)
    assert not torch.equal(one, gpt2.generate(ids, 5, eos_token_id=None).tokens)


def test_text_comes_back_as_text(stories):
    run = stories.generate("Once upon a time, there was a little girl named", 12)
    assert str(run).startswith("Once upon a time, there was a little girl named Lily. She loved to play")
    assert run.new[0].startswith("Lily. She loved")


def test_models_that_do_not_generate(ids):
    with pytest.raises(Unserved, match="does not generate"):
        pc.load(zoo.build("bert", "masked")).generate(ids, 3)


def test_an_encoder_decoder_writes():
    model = pc.load(zoo.build("t5", "seq2seq"))
    model.hf.generation_config.decoder_start_token_id = 1
    run = model.generate([5, 6, 7], 4, keep="blocks.1.out", eos_token_id=None)
    assert run.tokens.shape == (1, 5) and run["blocks.1.out"].shape == (1, 4, 64)


def test_what_cannot_be_padded_on_the_left_is_continued_one_by_one():
    with zoo.quiet():
        model = pc.load(zoo.build("rwkv"))
        if model.body.padding.startswith("left"):
            pytest.skip("it can be")
        with pytest.raises(WrongPrompt, match="one by one"):
            model.generate([[5, 6], [7, 8, 9]], 2)
