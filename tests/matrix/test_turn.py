"""What lies between a head's matrices and its scores is found by asking, and is what the family's code does."""

import math

import pytest
import torch

import attention_only
import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved
from patchclamp.matrix.head import Head
from patchclamp.matrix.turn import turn


def asked(kind, distance=0, **options):
    with zoo.quiet():
        model = pc.load(zoo.build(kind, **options))
        return turn(Head.of(model, "blocks.1.attn.z[head=1]"), distance)


def test_rotary_positions_turn_by_their_angles():
    model = attention_only.drawn(positional="rotary", d_head=4)
    for distance in (0, 1, 5):
        found = turn(Head.of(model, "blocks.0.attn.z[head=0]"), distance)
        angles = [distance, distance / math.sqrt(10_000.0)]
        cos, sin = torch.tensor([math.cos(a) for a in angles] * 2).diag(), torch.tensor([math.sin(a) for a in angles])
        by_hand = cos + torch.cat(
            [torch.cat([torch.zeros(2, 2), sin.diag()], 1), torch.cat([-sin.diag(), torch.zeros(2, 2)], 1)]
        )
        assert torch.allclose(found.query[:4], by_hand, atol=1e-4) and torch.allclose(found.key[:4], torch.eye(4), atol=1e-4)
        assert found.query[4].abs().max() < 1e-5 and found.key[4].abs().max() < 1e-5
    assert found.scale == 0.5 and not found.capped and found.query_norm.kind == ""


def test_norms_of_queries_scales_caps_and_slopes_are_found():
    assert asked("qwen3").query_norm.kind == "length" and asked("llama").query_norm.kind == ""
    assert asked("granite").scale != asked("llama").scale == 0.25
    assert asked("persimmon").query_norm.kind == "spread"
    loud = asked("gemma2", attn_logit_softcapping=0.2)
    assert loud.capped and loud.scale == pytest.approx(256**-0.5, rel=1e-3) and not asked("gpt2").capped
    assert (
        asked("bloom", 2).bias == pytest.approx(2 * asked("bloom", 1).bias, rel=1e-3)
        and asked("bloom", 1).bias < 0 == asked("gpt2", 1).bias
    )


def test_a_norm_over_all_heads_together_is_refused():
    with pytest.raises(Unserved, match="a norm over all heads"):
        asked("olmo2")
    with pytest.raises(Unserved, match="distance=-1"):
        asked("llama", -1)
