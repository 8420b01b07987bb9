"""Edges and their estimates: exact weights are those of cutting each wire, estimates are their first order."""

from dataclasses import replace

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.eap import check, eap, eap_ig
from patchclamp.circuit.edges import Question, edges, end, exact, kept, label
from patchclamp.core.errors import ShapeMismatch, UnknownSite, WrongPrompt
from patchclamp.core.graph import Edge
from patchclamp.model.wires import Wires

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def question(request):
    return Question.of(request.getfixturevalue(request.param), CLEAN, CORRUPT, METRIC)


def test_an_exact_weight_is_the_metrics_fall_when_that_wire_is_cut(question):
    weights = exact(question)
    base = question.ends[0].mean()
    for r, s in question.wires.joined.nonzero()[::7].tolist():
        cut = torch.zeros(weights.shape)
        cut[r, s] = 1
        assert float(weights[r, s]) == pytest.approx(float(base - question.cut(cut).mean()), abs=2e-5)


def test_eap_is_the_first_order_of_the_exact_weights(question):
    """Where the two runs hardly differ, the first order is all there is."""
    near = replace(question, theirs=question.ours + 0.01 * (question.theirs - question.ours))
    weights = eap(near)
    for r, s in (weights.abs() > 0.1 * weights.abs().max()).nonzero().tolist():
        cut = torch.zeros(weights.shape)
        cut[r, s] = 1
        assert float(near.ends[0].mean() - near.cut(cut).mean()) == pytest.approx(float(weights[r, s]), rel=0.1)


def test_integrated_gradients_with_one_step_are_plain_ones(question):
    assert torch.allclose(eap_ig(1)(question), eap(question), atol=1e-6)
    assert torch.allclose(eap_ig(1, "activations")(question), eap(question), atol=1e-6)


def test_a_check_measures_an_estimate_against_exact_weights(question):
    found = check(question, exact(question), sample=20)
    assert found.spearman == pytest.approx(1.0, abs=1e-3)
    assert found.error < 1e-3
    assert found.grid.shape == {"kind": 2, "edge": 20}
    noise = torch.randn(question.wires.joined.shape, generator=torch.Generator().manual_seed(0))
    assert check(question, noise, sample=40).spearman < 0.6


def test_a_saturated_estimate_is_flagged(question):
    weights = exact(question)
    missed = weights.clone()
    missed[weights.abs() == weights.abs().max()] = 0
    joined = int(question.wires.joined.sum())
    assert len(check(question, missed, sample=joined).saturated) == 1


def test_heads_that_share_keys_share_an_edge(llama):
    wires = Wires.of(llama)
    graph = edges(llama, CLEAN, CORRUPT, METRIC, estimate=eap)
    assert len(graph.edges) == int(wires.joined.sum())
    assert "blocks.1.attn.k[kv_head=0]" in graph
    assert end(wires, "blocks.1.attn.q[head=1]") == ("blocks.1.attn.z[head=1]", "q")
    assert label("blocks.1.attn.k[kv_head=0]") == "1 k 0"


def test_a_graph_leaves_its_own_wires_whole(gpt2):
    graph = edges(gpt2, CLEAN, CORRUPT, METRIC, estimate=eap)
    wires = Wires.of(gpt2)
    assert not kept(wires, graph.edges).any()
    assert int(kept(wires, graph.edges[5:]).sum()) == 5


def test_a_graph_of_another_model_is_refused(gpt2):
    with pytest.raises(UnknownSite, match="another model"):
        kept(Wires.of(gpt2), [Edge("blocks.0.in", "blocks.7.mlp.out", 1.0, "mlp")])


def test_prompts_of_unequal_length_and_metrics_of_no_number_are_refused(gpt2):
    with pytest.raises(WrongPrompt, match="token by token"):
        edges(gpt2, CLEAN, CORRUPT[:, :5], METRIC)
    with pytest.raises(ShapeMismatch, match="one number per prompt"):
        edges(gpt2, CLEAN, CORRUPT, lambda logits: logits[:, -1])


@pytest.fixture(scope="module")
def by_token(gpt2):
    return Question.of(gpt2, CLEAN, CORRUPT, METRIC, positions=True)


def test_by_token_an_exact_weight_is_the_fall_when_the_wire_is_cut_at_that_token(by_token):
    weights = exact(by_token)
    base = by_token.ends[0].mean()
    for r, s, p in by_token.all().nonzero()[::41].tolist():
        cut = by_token.table()
        cut[r, s, p] = 1
        assert float(weights[r, s, p]) == pytest.approx(float(base - by_token.cut(cut).mean()), abs=2e-5)
    assert not weights[..., : by_token.since].any()


def test_the_first_order_by_token_adds_up_to_the_pooled_one(by_token):
    pooled = replace(by_token, positions=False)
    assert torch.allclose(eap(by_token).sum(-1), eap(pooled), atol=1e-5)


def test_edges_of_single_tokens_keep_their_own_wires_whole(gpt2, by_token):
    graph = edges(gpt2, CLEAN, CORRUPT, METRIC, estimate=eap, positions=True)
    assert "blocks.1.attn.z[head=2, pos=5]" in graph and "blocks.1.attn.k[kv_head=2, pos=5]" in graph
    assert graph["blocks.1.attn.k[kv_head=2, pos=5]"].label == "1 k 2 @5"
    assert not by_token.kept(graph.edges).any()
    one = next(e for e in graph.edges if e.receiver == "logits[pos=6]")
    cut = by_token.kept([one])
    assert int((cut == 0).sum() - (~by_token.wires.joined).sum() * 7) == 1
    assert cut[-1, 0, 6] == 0 and cut[-1, 0, 5] == 1


def test_a_token_beyond_the_prompt_and_tokens_mixed_with_pools_are_refused(by_token):
    far = Edge("blocks.0.in[pos=9]", "logits[pos=9]", 1.0)
    with pytest.raises(UnknownSite, match="at token 9, and the prompts have 7"):
        by_token.kept([far])
    with pytest.raises(UnknownSite, match="no edge"):
        by_token.kept([Edge("blocks.0.in[pos=3]", "logits[pos=3]", 1.0), Edge("blocks.0.in", "logits", 1.0)])


def test_where_a_way_is_sampled_is_a_choice(question):
    """With one step, the end of the way is the clean run and its beginning the corrupt one."""
    there = replace(question, clean=question.corrupt, corrupt=question.clean, ours=question.theirs, theirs=question.ours)
    assert torch.allclose(eap_ig(1, start=0)(question), -eap(there), atol=1e-5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        eap_ig(5, start=2)
