"""The end of a model: what it makes of streams is what Hugging Face's own modules make of them, as many at a time as there is room for."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved
from patchclamp.model import unembed
from patchclamp.model.unembed import End

IDS = torch.tensor([[30, 31, 32, 33], [40, 51, 42, 53]])


def streams(n):
    return torch.randn(n, 2, 4, 64, generator=torch.Generator().manual_seed(n))


def test_it_is_the_final_norm_and_the_head(llama):
    end, some = End.of(llama, llama.inputs(IDS), "blocks.0.out"), streams(3)
    with torch.no_grad():
        by_hand = llama.hf.lm_head(llama.hf.model.norm(some))
    assert torch.allclose(end(some), by_hand, atol=1e-5)
    assert torch.equal(end.run.logits, llama.run(IDS).logits) and end.run.sites == ("blocks.0.out",)


def test_streams_go_by_as_many_at_a_time_as_there_is_room_for(llama, monkeypatch):
    end, some = End.of(llama, llama.inputs(IDS)), streams(5)
    monkeypatch.setattr(unembed, "LOGITS", 2 * end.run.logits.numel() + 1)
    parts = list(end.each(some))
    assert [len(p) for p in parts] == [2, 2, 1] and torch.allclose(torch.cat(parts), end(some), atol=1e-6)


def test_a_gradient_passes_where_there_is_one(llama):
    end, some = End.of(llama, llama.inputs(IDS)), streams(1).requires_grad_()
    (slope,) = torch.autograd.grad(end(some)[..., 7].sum(), [some])
    (by_hand,) = torch.autograd.grad(llama.hf.lm_head(llama.hf.model.norm(some))[..., 7].sum(), [some])
    assert torch.allclose(slope, by_hand, atol=1e-5) and not end(streams(1)).requires_grad


def test_edits_at_the_end_hold_and_those_in_blocks_are_passed_over(llama):
    edited = llama.edit(pc.zero("blocks.0.mlp.out"), pc.zero("norm.out"))
    end = End.of(edited, edited.inputs(IDS))
    assert torch.equal(end(streams(1)), torch.zeros(1, 2, 4, 99))


def test_a_model_without_logits_has_no_end():
    model = pc.load(zoo.build("gpt2", "base"))
    with pytest.raises(Unserved, match="returns no logits"):
        End.of(model, model.inputs(IDS))
