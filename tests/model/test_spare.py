"""What a pass of a sweep spares, it may spare: the plan is followed where it is offered, and nothing comes out otherwise."""

from dataclasses import replace

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.edit import Edit
from patchclamp.model import replay
from patchclamp.model.spare import after_attention, before_end

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36]])
METRIC = pc.logit_diff(7, 8)
PATTERNS = [
    "blocks.*.attn.z[head=*]",
    "blocks.*.out[pos=*]",
    "blocks.*.mlp.out",
    "blocks.*.attn.k[kv_head=*]",
    "blocks.*.attn.out",
]


@pytest.fixture
def followed(monkeypatch):
    """The plans that waves were run by."""
    taken, run = [], replay._run
    monkeypatch.setattr(replay, "_run", lambda base, cells, wave, plan, check: (taken.append(plan), run(base, cells, wave, plan, check))[1])  # fmt: skip
    return taken


@pytest.fixture
def wasteful(monkeypatch):
    """Sweeps that spare nothing."""

    def go(*arguments):
        with monkeypatch.context() as m:
            plans = replay._plans
            m.setattr(replay, "_plans", lambda *a: (replace(p, short=False, tokens=None, attention=()) for p in plans(*a)))
            return pc.effects(*arguments)

    return go


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt_neox", "bloom", "mixtral"])
def test_what_is_spared_changes_nothing(kind, followed, wasteful):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        clean, corrupt = torch.cat([CLEAN, CLEAN + 3]), torch.cat([CORRUPT, CORRUPT + 3])
        for pattern in PATTERNS:
            followed.clear()
            grid = pc.effects(model, clean, corrupt, pattern, METRIC)
            plans = list(followed)
            assert {p.way for p in plans} == {"suffix"}
            assert all(p.tokens == (7, 8) and bool(p.attention) == (kind != "bloom") for p in plans)  # none fallen back from
            assert all(p.short == (pattern not in ("blocks.*.mlp.out", "blocks.*.attn.out")) for p in plans)
            torch.testing.assert_close(grid.each, wasteful(model, clean, corrupt, pattern, METRIC).each, atol=1e-5, rtol=1e-4)


EDITS = {
    "of the last norm, across tokens": (Edit("norm.out", lambda value: value + value.mean(1, keepdim=True)), "nothing"),
    "of one token's logits": (Edit("logits[pos=2]", lambda value: value * 2), "nothing"),
    "of the logits": (Edit("logits", lambda value: value * 2), "nothing"),
    "of a weight": (Edit("blocks.1.mlp.W_out", lambda value: value * 0.5), "nothing"),
    "of the last block's end": (Edit("blocks.1.out", lambda value: value.flip(1)), "not short"),
    "of attention": (pc.zero("blocks.1.attn.z[head=0]"), "no attention"),
    "of attention, by a star": (pc.steer("blocks.*.*.z", torch.ones(16)), "no attention"),
    "of attention's queries": (Edit("blocks.1.attn.q", lambda value: value * 2), "no attention"),
    "before": (Edit("blocks.0.mlp.out", lambda value: value * 2), "all"),
}


@pytest.mark.parametrize("which", EDITS)
def test_edits_of_the_model_limit_what_is_spared(which, gpt2, followed):
    edit, limit = EDITS[which]
    model = gpt2.edit(edit)
    grid = pc.effects(model, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC)
    plan = followed[0]
    spared = {"nothing": (False, False, False), "not short": (False, True, True), "no attention": (True, True, False), "all": (True, True, True)}  # fmt: skip
    assert (plan.short, plan.tokens is not None, bool(plan.attention)) == spared[limit]
    run, base = model.run(CLEAN, keep="blocks.*.attn.z"), METRIC(model.run(CORRUPT).logits)
    for layer in range(model.layers):
        for head in range(model.heads):
            patched = model.edit(pc.patch(f"blocks.{layer}.attn.z[head={head}]", run)).run(CORRUPT)
            torch.testing.assert_close(grid.values[layer, head], (METRIC(patched.logits) - base)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pattern", ["logits[pos=*]", "@lm_head.in", "@lm_head.out"])
def test_places_behind_the_blocks_are_whole(pattern, gpt2):
    """The clean run, too, makes the logits of every token where they are what is patched."""
    grid, run = pc.effects(gpt2, CLEAN, CORRUPT, pattern, METRIC), gpt2.run(CLEAN, keep=pattern.partition("[")[0])
    gap = float((METRIC(run.logits) - METRIC(gpt2.run(CORRUPT).logits))[0])
    assert float(grid.values.flatten()[-1]) == pytest.approx(gap, abs=1e-5) and abs(gap) > 1e-3


def test_a_metric_that_reads_every_word_gets_every_word(gpt2, followed):
    pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", pc.prob(7))
    assert followed[0].tokens is None and followed[0].short


def test_where_places_stand_in_their_block():
    assert [before_end(f"blocks.1.{p}") for p in ("in", "attn.q", "attn.z", "attn.out", "mid", "mlp.act", "out")] == [True] * 3 + [False] * 4  # fmt: skip
    assert [after_attention(f"blocks.1.{p}") for p in ("in", "attn.pattern", "attn.z", "mlp.out")] == [False, False, True, True]
