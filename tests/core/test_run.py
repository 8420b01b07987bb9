"""Runs: what a pass leaves behind and how it is asked for."""

import pytest
import torch

from patchclamp.core.errors import NotKept, ShapeMismatch
from patchclamp.core.metric import logit_diff


def test_a_pattern_of_sites_is_stacked_layers_first(gpt2, ids):
    run = gpt2.run(ids, keep="blocks.*.out")
    assert run["blocks.*.out"].shape == (2, 2, 7, 64)
    assert torch.equal(run["blocks.*.out"][1], run["blocks.1.out"])
    assert torch.equal(run["blocks.-1.out[pos=-1]"], run["blocks.1.out"][:, -1])
    assert "blocks.1.out" in run and "blocks.1.in" not in run


def test_only_the_indexed_part_is_kept(gpt2, ids):
    run = gpt2.run(ids, keep="blocks.1.attn.z[head=2, pos=-1]")
    whole = gpt2.run(ids, keep="blocks.1.attn.z")
    part = run["blocks.1.attn.z[head=2, pos=-1]"]
    assert torch.equal(part, whole["blocks.1.attn.z"][:, -1, 2])
    assert part.untyped_storage().nbytes() == part.numel() * 4  # the rest is not held in memory
    with pytest.raises(NotKept, match=r"only blocks.1.attn.z\[head=2, pos=-1\] was kept"):
        run["blocks.1.attn.z"]


def test_what_was_not_kept_says_how_to_keep_it(gpt2, ids):
    run = gpt2.run(ids, keep="blocks.0.out")
    with pytest.raises(NotKept, match='keep="blocks.1.out"'):
        run["blocks.1.out"]
    with pytest.raises(NotKept, match="kept nothing"):
        gpt2.run(ids)["blocks.0.out"]
    with pytest.raises(NotKept, match="logits=True"):
        gpt2.run(ids, keep="blocks.0.out", logits=False).logits  # noqa: B018


def test_places_of_different_shape_are_not_stacked(gpt2, ids):
    run = gpt2.run(ids, keep=["blocks.0.attn.z", "blocks.0.attn.out"])
    with pytest.raises(ShapeMismatch, match="different shape"):
        run["blocks.0.attn.*"]


def test_next_is_a_grid_of_probabilities(gpt2, ids):
    both, one = gpt2.run(ids).next(), gpt2.run(ids[0]).next()
    assert both.axes == ("prompt", "vocab") and one.axes == ("vocab",)
    assert torch.allclose(both.values.sum(-1), torch.ones(2))
    assert torch.allclose(both.values[0], one.values, atol=1e-6)


def test_gradients_are_those_of_autograd(gpt2, ids):
    metric = logit_diff(3, 4)
    run = gpt2.run(ids, keep=["blocks.*.out", "blocks.0.attn.z", "blocks.1.mlp.act", "blocks.0.attn.pattern"], grad=True)
    slope = run.gradient(metric, retain=True)
    for site in run.kept:
        (expected,) = torch.autograd.grad(metric(run.output).sum(), run[site], retain_graph=True)
        assert torch.equal(slope[site], expected), site


def test_a_gradient_predicts_a_small_step(gpt2, ids):
    import patchclamp as pc

    metric, step = logit_diff(3, 4), torch.randn(64) * 1e-3
    run = gpt2.run(ids, keep="blocks.0.out", grad=True)
    slope = run.gradient(metric)["blocks.0.out"]
    moved = metric(gpt2.edit(pc.steer("blocks.0.out", step)).run(ids).logits)
    predicted = (slope * step).sum((-1, -2))
    assert torch.allclose(moved - metric(run.logits).detach(), predicted, rtol=0.05, atol=1e-5)


def test_a_run_without_a_graph_says_so(gpt2, ids):
    with pytest.raises(NotKept, match="grad=True"):
        gpt2.run(ids, keep="blocks.0.out").gradient(logit_diff(1, 2))


def test_it_says_what_it_is(gpt2, ids):
    run = gpt2.run(ids, keep="blocks.*.out")
    assert repr(run) == "Run(2 prompts, kept 2 places, logits)"
    assert str(gpt2.run(ids[0])) == "20 21 22 23 24 25 26"
