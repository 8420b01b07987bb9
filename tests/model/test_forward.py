"""One pass: what is changed, what is kept, where it stops, and dictionaries spliced in."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import ShapeMismatch, UnknownSite, WrongAxis


class Pca:
    """A dictionary whose latents are projections on orthonormal directions; what they miss is its error."""

    def __init__(self, width=64, latents=10):
        torch.manual_seed(0)
        self.basis = torch.linalg.qr(torch.randn(width, latents)).Q

    def encode(self, x):
        return x @ self.basis

    def decode(self, latents):
        return latents @ self.basis.T


class Double:
    """A transcoder that says a feed-forward layer adds twice what it reads."""

    def encode(self, x):
        return 2 * x

    def decode(self, latents):
        return latents


def test_a_run_stops_when_nothing_later_is_asked_for(gpt2, ids):
    gpt2.anatomy  # read from a pass of its own, on first need  # noqa: B018
    passed = []
    handle = gpt2.hf.transformer.h[1].register_forward_hook(lambda *a: passed.append(1))
    try:
        run = gpt2.run(ids, keep="blocks.0.mlp.out", logits=False)
        assert not passed and run.output is None
        gpt2.run(ids, keep="blocks.0.mlp.out")
        assert passed
    finally:
        handle.remove()
    assert torch.equal(run["blocks.0.mlp.out"], gpt2.run(ids, keep="blocks.0.mlp.out")["blocks.0.mlp.out"])


def test_keeping_several_places_stops_after_the_last(gpt2, ids):
    run = gpt2.run(ids, keep=["blocks.1.in", "embed.out", "blocks.0.attn.pattern"], logits=False)
    assert set(run.kept) == {"blocks.1.in", "embed.out", "blocks.0.attn.pattern"}


def test_edits_come_in_order(gpt2, ids):
    a, b = pc.clamp("blocks.0.out", 2.0), pc.Edit("blocks.0.out", lambda v: v * 3)
    assert (gpt2.edit(a, b).run(ids, keep="blocks.0.out")["blocks.0.out"] == 6).all()
    assert (gpt2.edit(b, a).run(ids, keep="blocks.0.out")["blocks.0.out"] == 2).all()


def test_what_is_kept_is_what_the_model_goes_on_with(gpt2, ids):
    run = gpt2.edit(pc.zero("blocks.0.out")).run(ids, keep=["blocks.0.out", "blocks.1.in"])
    assert (run["blocks.0.out"] == 0).all() and (run["blocks.1.in"] == 0).all()


def test_an_edited_pattern_takes_effect(gpt2, ids):
    uniform = pc.Edit("blocks.0.attn.pattern[head=1]", lambda p: torch.full_like(p, 1 / p.shape[-1]))
    run = gpt2.edit(uniform).run(ids, keep=["blocks.0.attn.pattern", "blocks.0.attn.z", "blocks.0.attn.v"])
    assert torch.allclose(run["blocks.0.attn.z"][:, 3, 1], run["blocks.0.attn.v"][:, :, 1].mean(1), atol=1e-5)


def test_edited_scores_go_through_the_softmax(gpt2, ids):
    blind = pc.clamp("blocks.0.attn.scores[key=0]", float("-inf"))
    pattern = gpt2.edit(blind).run(ids, keep="blocks.0.attn.pattern")["blocks.0.attn.pattern"]
    assert (pattern[:, :, 1:, 0] == 0).all() and torch.allclose(pattern[:, :, 1:].sum(-1), torch.ones(2, 4, 6))


def test_wrong_axes_are_refused_when_the_edit_is_made(gpt2):
    with pytest.raises(WrongAxis, match='no axis "neuron"; its axes are batch pos head d_head'):
        gpt2.edit(pc.zero("blocks.0.attn.z[neuron=3]"))
    with pytest.raises(UnknownSite, match="numbered 0 to 1"):
        gpt2.edit(pc.zero("blocks.7.out"))
    with pytest.raises(TypeError, match="takes edits such as"):
        gpt2.edit("blocks.0.out")
    with pytest.raises(ShapeMismatch, match="another model"):
        gpt2.edit(pc.steer("blocks.0.out", torch.ones(32))).run([3, 4])


def test_positions_outside_the_prompt_are_an_error(gpt2, ids):
    with pytest.raises(WrongAxis, match="prompt 0 has 7 tokens, pos 0 to 6"):
        gpt2.edit(pc.zero("blocks.0.out[pos=7]")).run(ids)
    with pytest.raises(WrongAxis, match="pos 0 to 6"):
        gpt2.run(ids, keep="blocks.0.out[pos=-8]")


def test_a_splice_with_its_error_is_silent(gpt2, ids):
    spliced = gpt2.edit(pc.splice("blocks.0.out", Pca()))
    assert torch.equal(spliced.run(ids).logits, gpt2.run(ids).logits)
    run = spliced.run(ids, keep=["blocks.0.out.latents", "blocks.0.out.error", "blocks.0.out"])
    assert torch.allclose(run.logits, gpt2.run(ids).logits, atol=1e-5)
    assert torch.allclose(
        run["blocks.0.out.latents"] @ Pca().basis.T + run["blocks.0.out.error"], run["blocks.0.out"], atol=1e-5
    )


def test_latents_are_places(gpt2, ids):
    spliced = gpt2.edit(pc.splice("blocks.0.out", Pca()))
    assert "blocks.0.out.latents" in spliced.sites and "blocks.0.out.latents" not in gpt2.sites
    clamped = spliced.edit(pc.clamp("blocks.0.out.latents[latent=7]", 5.0))
    run = clamped.run(ids, keep=["blocks.0.out", "blocks.0.out.latents"])
    assert torch.allclose((run["blocks.0.out"] @ Pca().basis)[..., 7], torch.full((2, 7), 5.0), atol=1e-4)
    assert (run["blocks.0.out.latents"][..., 7] == 5).all()
    with pytest.raises(UnknownSite, match="no dictionary is spliced"):
        gpt2.edit(pc.zero("blocks.0.out.latents[latent=1]"))


def test_without_its_error_a_splice_takes_the_place_over(gpt2, ids):
    run = gpt2.edit(pc.splice("blocks.0.out", Pca(), error=False)).run(ids, keep="blocks.0.out")
    clean = gpt2.run(ids, keep="blocks.0.out")["blocks.0.out"]
    assert torch.allclose(run["blocks.0.out"], clean @ Pca().basis @ Pca().basis.T, atol=1e-5)


def test_latents_have_gradients_through_the_decoder(gpt2, ids):
    metric = pc.logit_diff(3, 4)
    spliced = gpt2.edit(pc.splice("blocks.0.out", Pca()))
    run = spliced.run(ids, keep=["blocks.0.out.latents", "blocks.0.out", "blocks.0.in"], grad=True)
    slope = run.gradient(metric)
    assert torch.allclose(slope["blocks.0.out.latents"], slope["blocks.0.out"] @ Pca().basis, atol=1e-6)
    plain = gpt2.run(ids, keep="blocks.0.in", grad=True).gradient(metric)
    assert torch.allclose(slope["blocks.0.in"], plain["blocks.0.in"], atol=1e-6)  # the splice passes gradients on


def test_a_transcoder_reads_one_place_and_writes_another(gpt2, ids):
    site = pc.splice("blocks.*.mlp.out", Double(), reads="blocks.*.mlp.in", error=False)
    run = gpt2.edit(site).run(ids, keep=["blocks.*.mlp.in", "blocks.*.mlp.out"])
    assert torch.equal(run["blocks.*.mlp.out"], 2 * run["blocks.*.mlp.in"])
    silent = gpt2.edit(pc.splice("blocks.1.mlp.out", Double(), reads="blocks.1.mlp.in"))
    assert torch.equal(silent.run(ids).logits, gpt2.run(ids).logits)


def test_experts_add_up_to_what_the_mixture_adds():
    with zoo.quiet():
        model = pc.load(zoo.build("mixtral"))
        ids = torch.arange(20, 34).view(2, 7)
        run = model.run(ids, keep=["blocks.0.experts", "blocks.0.mlp.out", "blocks.0.router.*"])
    experts, chosen = run["blocks.0.experts"], run["blocks.0.router.chosen"]
    assert experts.shape == (2, 7, 4, 64) and chosen.shape == (2, 7, 2)
    assert torch.allclose(experts.sum(2), run["blocks.0.mlp.out"], atol=1e-5)
    idle = torch.ones(2, 7, 4, dtype=torch.bool).scatter(2, chosen, False)
    assert (experts[idle] == 0).all()
    assert run["blocks.0.router.logits"].shape == (2, 7, 4)
    with zoo.quiet():
        muted = model.edit(pc.zero("blocks.0.experts[expert=2]")).run(ids, keep="blocks.0.mlp.out")
    assert torch.allclose(muted["blocks.0.mlp.out"], run["blocks.0.mlp.out"] - experts[:, :, 2], atol=1e-5)


def test_routing_can_be_changed():
    with zoo.quiet():
        model = pc.load(zoo.build("mixtral"))
        ids = torch.arange(20, 27)
        sent = model.edit(pc.Edit("blocks.0.router.chosen", lambda chosen: torch.zeros_like(chosen)))
        experts = sent.run(ids, keep="blocks.0.experts")["blocks.0.experts"]
    assert (experts[:, :, 1:] == 0).all() and (experts[:, :, 0] != 0).any()


def test_a_gate_multiplies_the_heads():
    with zoo.quiet():
        model = pc.load(zoo.build("qwen3_next"))
        shut = model.edit(pc.zero("blocks.1.attn.gate[head=2]")).run([5, 6, 7], keep="blocks.1.attn.z")
    assert (shut["blocks.1.attn.z"][:, :, 2] == 0).all() and (shut["blocks.1.attn.z"][:, :, 1] != 0).any()


def test_kept_values_are_not_overwritten_by_the_model():
    with zoo.quiet():  # falcon adds in place
        model = pc.load(zoo.build("falcon"))
        run = model.run([5, 6, 7], keep=["blocks.*.mlp.out", "blocks.*.attn.out", "blocks.*.in", "blocks.*.out"])
    for i in range(2):
        total = run[f"blocks.{i}.in"] + run[f"blocks.{i}.attn.out"] + run[f"blocks.{i}.mlp.out"]
        assert torch.allclose(total, run[f"blocks.{i}.out"], atol=1e-5)
