"""Sweeps: every way of sparing work gives what the naive loop gives."""

import itertools

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.site import Site
from patchclamp.model import replay
from patchclamp.model.ride import Cell

KINDS = ["gpt2", "llama", "gemma2", "gemma3_text", "qwen3", "gpt_neox", "gpt_oss", "olmo2", "bloom", "gptj", "falcon", "mixtral", "opt",
         "phi3", "mpt", "granite", "modernbert-decoder", "deepseek_v3", "mamba", "qwen3_next", "xlnet"]  # fmt: skip
PATTERNS = ["blocks.*.out[pos=*]", "blocks.*.in[pos=*]", "blocks.*.mid[pos=*]", "blocks.*.attn.z[head=*]", "blocks.*.attn.k[kv_head=*]",
            "blocks.*.attn.pattern[head=*]", "blocks.*.mlp.act[neuron=0:3, pos=*]", "blocks.*.attn.out[pos=-1]"]  # fmt: skip
CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36]])
METRIC = pc.logit_diff(7, 8)


def naive(model, clean, corrupt, pattern, shape):
    """Every cell by itself, one whole pass each."""
    site, paths = Site.parse(pattern), model.places(pattern)
    run = model.run(clean, keep=paths)
    base = METRIC(model.run(corrupt).logits)
    values = torch.zeros(len(corrupt), *shape)
    for cell in itertools.product(*map(range, shape)):
        axes = iter(cell[1:])
        index = tuple((a, v if isinstance(v, int) else next(axes)) for a, v in site.index)
        one = Site(Site.parse(paths[cell[0]]).parts, index)
        values[(slice(None), *cell)] = METRIC(model.edit(pc.patch(one, run)).run(corrupt).logits) - base
    return values


def ways(monkeypatch):
    """Records which way each wave went."""
    taken, run = [], replay._run
    monkeypatch.setattr(
        replay,
        "_run",
        lambda base, cells, wave, plan, check: (taken.append(plan.way), run(base, cells, wave, plan, check))[1],
    )
    return taken


@pytest.mark.parametrize("kind", KINDS)
def test_replay_is_exact(kind, monkeypatch):
    with zoo.quiet():
        model = pc.load(zoo.build(kind))
        for pattern in PATTERNS:
            try:
                model.places(pattern)
            except pc.PatchclampError:
                continue
            for worth in (0, 1e18):  # a wave for every first token, or one wave of whole sequences
                monkeypatch.setattr(replay, "_fixed", lambda base, worth=worth: worth)
                grid = pc.effects(model, CLEAN, CORRUPT, pattern, METRIC)
            expected = naive(model, CLEAN, CORRUPT, pattern, grid.values.shape)
            assert torch.allclose(grid.each, expected, atol=1e-5), (pattern, float((grid.each - expected).abs().max()))


@pytest.mark.parametrize(
    ("kind", "way"), [("gpt2", "suffix"), ("gemma3_text", "suffix"), ("mamba", "prefix"), ("xlnet", "plain")]
)
def test_the_most_saving_way_is_taken(kind, way, monkeypatch):
    taken = ways(monkeypatch)
    with zoo.quiet():
        pc.effects(pc.load(zoo.build(kind)), CLEAN, CORRUPT, "blocks.*.out[pos=*]", METRIC)
    assert set(taken) == {way}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bloom", "bert"])
def test_batches_of_prompts(kind):
    clean = torch.cat([CLEAN, CLEAN + 5])
    corrupt = torch.cat([CORRUPT, CORRUPT + 3])
    model = pc.load(zoo.build(kind))
    for pattern in ("blocks.*.out[pos=*]", "blocks.*.attn.z[head=*]"):
        grid = pc.effects(model, clean, corrupt, pattern, METRIC)
        assert torch.allclose(grid.each, naive(model, clean, corrupt, pattern, grid.values.shape), atol=1e-5)
        assert torch.allclose(grid.values, grid.each.mean(0))


def test_a_sweep_of_an_edited_model(gpt2):
    edited = gpt2.edit(pc.steer("blocks.0.attn.out[pos=1]", torch.ones(64)), pc.zero("blocks.1.attn.z[head=0]"))
    grid = pc.effects(edited, CLEAN, CORRUPT, "blocks.*.out[pos=*]", METRIC)
    assert torch.allclose(grid.each, naive(edited, CLEAN, CORRUPT, "blocks.*.out[pos=*]", grid.values.shape), atol=1e-5)
    assert not torch.allclose(grid.values, pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out[pos=*]", METRIC).values, atol=1e-3)


def test_a_metric_of_any_make(gpt2):
    def spread(logits):
        return logits.std((1, 2))

    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out[pos=*]", spread)
    run, base = gpt2.run(CLEAN, keep="blocks.1.out"), spread(gpt2.run(CORRUPT).logits)
    for pos in range(7):
        expected = spread(gpt2.edit(pc.patch(f"blocks.1.out[pos={pos}]", run)).run(CORRUPT).logits) - base
        assert torch.allclose(grid.values[1, pos], expected[0], atol=1e-5)


def test_a_sweep_falls_back_where_replay_is_not_faithful(gpt2, monkeypatch):
    taken = ways(monkeypatch)
    ride = replay.Ride.run
    monkeypatch.setattr(replay.Ride, "run", lambda self: ride(self) + 1.0)
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out[pos=*]", METRIC)
    assert taken == ["suffix", "suffix", "prefix", "prefix", "plain"]  # each way with all that it may spare, then without
    assert torch.allclose(grid.each, naive(gpt2, CLEAN, CORRUPT, "blocks.*.out[pos=*]", grid.values.shape), atol=1e-5)


def test_a_users_mistake_is_not_swallowed(gpt2):
    def wrong(value):
        raise KeyError("the user's own mistake")

    cells = [Cell((("blocks.0.out", pc.Edit("blocks.0.out", wrong)),), 0)]
    with pytest.raises(KeyError, match="own mistake"):
        list(replay.sweep(gpt2, gpt2.inputs(CORRUPT), cells, True))


def test_waves_are_cut_to_the_room_there_is(gpt2, monkeypatch):
    monkeypatch.setattr(replay, "TOKENS", 20)
    taken = ways(monkeypatch)
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.mlp.act[neuron=*]", METRIC)
    assert grid.values.shape == (2, 96) and len(taken) > 10
    assert torch.allclose(
        grid.at(layer=1).values[5],
        pc.effects(gpt2, CLEAN, CORRUPT, "blocks.1.mlp.act[neuron=5:6]", METRIC).values[0],
        atol=1e-5,
    )
