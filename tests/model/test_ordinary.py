"""Ordinary tokens: all but the special ones; counted by the embedding, whatever the config says."""

import pytest
import torch

import patchclamp as pc
import words
import zoo
from patchclamp.core.errors import WrongPrompt
from patchclamp.model.ordinary import lead, ordinary, size


def test_special_tokens_are_not_ordinary():
    model = pc.load(zoo.build("gpt2"), words.tokenizer())
    assert ordinary(model).tolist() == list(range(5, 99)) and size(model) == 99 and lead(model) is None
    assert ordinary(pc.load(model.hf)).tolist() == list(range(99))


def test_what_stands_before_every_text_is_known(town):
    assert lead(town) == town.tokenizer.bos_token_id


def test_a_module_that_does_not_say_is_refused():
    class Bare(torch.nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(WrongPrompt, match="does not say how many tokens"):
        size(pc.load(Bare()))
