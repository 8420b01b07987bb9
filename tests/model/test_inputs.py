"""What people have, as a model takes it."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import WrongPrompt, WrongToken


def test_ids_in_every_shape(gpt2):
    expected = gpt2.run([[3, 4, 5]]).logits
    for prompt in ([3, 4, 5], torch.tensor([3, 4, 5]), torch.tensor([[3, 4, 5]]), {"input_ids": torch.tensor([[3, 4, 5]])}):
        assert torch.equal(gpt2.run(prompt).logits, expected)


def test_text_in_every_shape(stories):
    one, two = "Once upon a time", "The dog"
    both = stories.run([one, two])
    assert both.words[0][1:] == (" Once", " upon", " a", " time") and both.words[1][1:] == (" The", " do", "g")
    assert torch.allclose(both.logits[1, -1], stories.run(two).logits[0, -1], atol=1e-4)
    assert both.texts == (one, two)


def test_the_tokenizer_decides_about_the_beginning_unless_asked(stories):
    assert stories.run("The dog").words[0][0] == "<s>"
    assert stories.run("The dog", bos=False).words[0][0] == " The"
    assert stories.run("The dog", bos=True).words[0].count("<s>") == 1


def test_a_chat_goes_through_the_template(stories):
    tokenizer = stories.tokenizer
    with pytest.raises(WrongPrompt, match="no chat template"):
        stories.run([{"role": "user", "content": "Hi"}])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %} Lily"
    try:
        run = stories.run([{"role": "user", "content": "The dog"}])
    finally:
        tokenizer.chat_template = None
    assert run.words[0][-4:] == (" The", " do", "g", " Lily")


@pytest.mark.parametrize(
    ("prompt", "error", "says"),
    [
        ([], WrongPrompt, "empty"),
        ([[]], WrongPrompt, "empty"),
        (torch.zeros(1, 0, dtype=torch.long), WrongPrompt, "empty"),
        ([3, 99], WrongToken, "no token 99 in a vocabulary of 99"),
        ([-1], WrongToken, "no token -1"),
        (list(range(65)), WrongPrompt, "the prompt has 65 tokens; this model has positions for 64"),
        ("text", WrongPrompt, "no tokenizer; give token ids"),
        (torch.zeros(1, 2, 3, dtype=torch.long), WrongPrompt, r"got a tensor \[1, 2, 3\]"),
        ({"text": "x"}, WrongPrompt, "a mapping of tensors was expected"),
        (3.5, WrongPrompt, "a prompt is text, token ids, a chat or a processor's output; got float"),
    ],
)
def test_a_prompt_that_is_none(gpt2, prompt, error, says):
    with pytest.raises(error, match=says):
        gpt2.run(prompt)


def test_a_processors_mask_is_understood(gpt2):
    ids, mask = torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    run = gpt2.run(
        {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}, keep="blocks.0.out"
    )
    assert run.words == (("7", "8"), ("5", "6", "7", "8"))
    assert torch.allclose(run["blocks.0.out[pos=0]"][0], gpt2.run([7, 8], keep="blocks.0.out")["blocks.0.out"][0, 0], atol=1e-5)


def test_edits_count_tokens_in_padded_batches(gpt2):
    edited = gpt2.edit(pc.clamp("blocks.0.out[pos=1]", 3.0))
    both = edited.run([[7, 8], [3, 4, 5, 6]])
    assert torch.allclose(both.logits[0, -1], edited.run([7, 8]).logits[0, -1], atol=1e-4)
    assert torch.allclose(both.logits[1, -1], edited.run([3, 4, 5, 6]).logits[0, -1], atol=1e-4)


def test_an_encoder_decoder_reads_two_streams():
    model = pc.load(zoo.build("t5", "seq2seq"))
    with pytest.raises(WrongPrompt, match="names no start token; say what its decoder reads"):
        model.run([5, 6, 7])
    model.hf.generation_config.decoder_start_token_id = 1
    run = model.run([5, 6, 7], keep=["encoder.blocks.*.out", "blocks.*.out", "blocks.0.cross.pattern"])
    assert run["encoder.blocks.*.out"].shape == (2, 1, 3, 64) and run["blocks.*.out"].shape == (2, 1, 1, 64)
    assert run["blocks.0.cross.pattern"].shape == (1, 4, 1, 3)
    longer = model.run([5, 6, 7], decoder=torch.tensor([[1, 8, 9]]))
    assert longer.logits.shape[1] == 3
    with pytest.raises(WrongPrompt, match="has no decoder of its own"):
        pc.load(zoo.build("gpt2")).run([3], decoder=[4])
    short = model.run([[5, 6], [5, 6, 7, 8]], keep="encoder.blocks.1.out")
    alone = model.run([5, 6], keep="encoder.blocks.1.out")
    assert torch.allclose(short["encoder.blocks.1.out[pos=1]"][0], alone["encoder.blocks.1.out"][0, 1], atol=1e-4)


def test_a_masked_model_answers_at_the_mask():
    hf = zoo.build("bert", "masked")

    class Tokenizer:
        mask_token_id, unk_token_id, bos_token_id, pad_token_id = 4, 3, None, 0

    run = pc.load(hf, Tokenizer()).run(torch.tensor([[5, 4, 6], [4, 7, 8]]))
    assert run.answers == (1, 0) and run.last == [1, 0]


def test_the_tokens_that_an_axis_counts(gpt2):
    batch = gpt2.inputs([[5, 6, 7], [8, 9]])
    assert batch.ids() == [5, 6, 7] and batch.ids("blocks.0.attn.pattern", "key", row=1) == [8, 9]
    model = pc.load(zoo.build("t5", "seq2seq"))
    two = model.inputs(torch.tensor([[5, 6, 7]]), None, torch.tensor([[1, 2]]))
    assert two.ids() == [1, 2] and two.ids("encoder.blocks.1.out") == [5, 6, 7]
    assert two.ids("blocks.0.cross.pattern", "key") == [5, 6, 7] and two.ids("blocks.0.cross.pattern", "query") == [1, 2]
    assert model.inputs({"inputs_embeds": torch.zeros(1, 3, 64)}).ids() == []
