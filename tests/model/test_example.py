"""The smallest input of a model, read off its config and its forward's arguments."""

import pytest
import torch

import zoo
from patchclamp.model.example import example


def shapes(kind, task):
    with zoo.quiet():
        made = example(zoo.build(kind, task))
    return {name: tuple(v.shape) for name, v in made.items() if isinstance(v, torch.Tensor)}


@pytest.mark.parametrize(
    ("kind", "task", "expected"),
    [
        ("gpt2", "causal", {"input_ids": (2, 5)}),
        ("t5", "seq2seq", {"input_ids": (2, 5), "decoder_input_ids": (2, 4)}),
        ("vit", "tower", {"pixel_values": (2, 3, 16, 16)}),
        ("videomae", "tower", {"pixel_values": (2, 4, 3, 16, 16)}),
        ("clip", "pair", {"input_ids": (2, 5), "pixel_values": (2, 3, 16, 16)}),
        ("siglip2", "pair", {"input_ids": (2, 5), "pixel_values": (2, 16, 48), "pixel_attention_mask": (2, 16), "spatial_shapes": (2, 2)}),
        ("whisper", "speech", {"input_features": (2, 16, 64), "decoder_input_ids": (2, 4)}),
        ("speech_to_text", "speech", {"input_features": (2, 64, 16), "decoder_input_ids": (2, 4)}),
        ("wav2vec2", "ctc", {"input_values": (2, 4000)}),
        ("parakeet_ctc", "ctc", {"input_features": (2, 64, 16)}),
    ],
)  # fmt: skip
def test_every_kind_of_input_can_be_made_up(kind, task, expected):
    assert shapes(kind, task) == expected


def test_tokens_are_ordinary_and_distinct():
    hf = zoo.build("gpt2")
    ids = example(hf)["input_ids"].flatten()
    assert len(set(ids.tolist())) == ids.numel() and not {0, 1, 2} & set(ids.tolist()) and int(ids.max()) < 99
