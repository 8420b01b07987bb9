"""The doorway into attention, and masks as eager functions add them."""

import threading

import pytest
import torch
from torch import nn

import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved
from patchclamp.model.attention import additive, doorway
from patchclamp.model.example import example


def kernel_of(model):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS.get_interface(model.hf.config._attn_implementation, None)


def test_only_this_thread_sees_the_doorway(gpt2):
    before, seen = kernel_of(gpt2), []
    with doorway(lambda kernel, eager, *args, **kwargs: kernel(*args, **kwargs)):
        assert kernel_of(gpt2) is not before
        thread = threading.Thread(target=lambda: seen.append(kernel_of(gpt2)))
        thread.start()
        thread.join()
    assert seen[0] is before and kernel_of(gpt2) is before


def test_the_doorway_closes_after_an_exception(gpt2):
    before = kernel_of(gpt2)
    with pytest.raises(ValueError), doorway(lambda *a, **k: None):
        raise ValueError
    assert kernel_of(gpt2) is before


class Causal(nn.Module):
    is_causal = True


QUERY, KEY = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 5, 4)
LOW = torch.finfo(torch.float32).min


def test_no_mask_means_causal_where_the_module_is():
    made = additive(None, Causal(), QUERY, KEY, None)
    assert made.shape == (1, 1, 3, 5)
    assert (made[0, 0, 0] == torch.tensor([0, 0, 0, LOW, LOW])).all()  # two tokens went before
    assert additive(None, Causal(), QUERY, KEY, False) is None
    assert additive(None, Causal(), QUERY[:, :, :1], KEY, None) is None


def test_booleans_become_zeros_and_the_smallest_number():
    mask = torch.tensor([[[[True, False, True, True, False]]]])
    assert (additive(mask, Causal(), QUERY, KEY, None) == torch.tensor([0, LOW, 0, 0, LOW])).all()
    numbers = torch.randn(1, 1, 3, 5)
    assert additive(numbers, Causal(), QUERY, KEY, None) is numbers


def test_a_flash_mask_holds_no_mask_per_query():
    with pytest.raises(Unserved, match='attn_implementation="sdpa"'):
        additive(torch.ones(1, 5), Causal(), QUERY, KEY, None)


def test_a_model_that_is_eager_already_keeps_its_own_masks():
    with zoo.quiet():
        model = pc.load(zoo.build("align", "pair"))  # no mask at all: every token of its text is seen
        run = model.run(example(model.hf), keep="blocks.0.attn.pattern")
    assert bool((run["blocks.0.attn.pattern"] > 0).all())
