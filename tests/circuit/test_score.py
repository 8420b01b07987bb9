"""Scores: perfect, reversed and blind rankings, and ties."""

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.acdc import acdc
from patchclamp.circuit.compile import compile
from patchclamp.circuit.edges import Question, edges, exact, graph_of
from patchclamp.circuit.programs import deduplicate, fraction_of_previous, histogram
from patchclamp.circuit.score import average_precision, chance, magnitude, pooled, score, score_nodes, swept
from patchclamp.core.errors import UnknownSite, WrongPrompt
from patchclamp.core.graph import Edge, Graph, Node
from patchclamp.core.uncertain import auroc

KNOWN = torch.tensor([True, False, True, False, False, True])


@pytest.fixture(scope="module")
def case():
    """(made, model, pairs, question) of a compiled program among junk."""
    made = compile(deduplicate(length=4), junk=3, rotate=True, seed=1)
    model, pairs = pc.load(made.hf), made.pairs(16)
    return made, model, pairs, Question.of(model, pairs.clean, pairs.corrupt, pairs.metric)


def ranked(case, estimate):
    return graph_of(case[3].wires, estimate(case[3]))


def area(values, true):
    return auroc(values[true], values[~true])


def test_perfect_reversed_and_blind():
    values = KNOWN.double()
    assert area(values, KNOWN) == average_precision(values, KNOWN) == 1
    assert area(-values, KNOWN) == 0 and average_precision(-values, KNOWN) == 0.5  # all at one threshold
    assert area(torch.zeros(6), KNOWN) == 0.5 and average_precision(torch.zeros(6), KNOWN) == 0.5


def test_the_average_precision_by_hand():
    """In order: true, false, true, false, false, true: (1/1 + 2/3 + 3/6) / 3."""
    values = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert average_precision(values, KNOWN) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)


def test_nothing_to_tell_apart_is_refused():
    for true in (torch.ones(3).bool(), torch.zeros(3).bool()):
        with pytest.raises(WrongPrompt, match="a score needs some inside and some outside"):
            average_precision(torch.arange(3.0), true)


def test_exact_edges_find_a_compiled_circuit_and_lots_do_not(case):
    truth = case[0].varying
    found = ranked(case, exact)
    assert score(found, truth).auroc == score_nodes(found, truth).auroc == score(found, truth).precision == 1
    lots = [score(ranked(case, chance(n)), truth).auroc for n in range(30)]
    assert sum(lots) / len(lots) == pytest.approx(0.5, abs=0.06)
    assert 0.5 < score(ranked(case, magnitude), truth).auroc < 0.9


def test_magnitude_is_the_loudness_times_the_reading_matrix(case):
    made, model, pairs, q = case
    table = magnitude(q)
    run, other = (model.run(ids, keep="blocks.0.mlp.out") for ids in (pairs.clean, pairs.corrupt))
    loud = (run["blocks.0.mlp.out"] - other["blocks.0.mlp.out"]).norm(dim=-1).mean()
    receiver, sender = q.wires.receivers.index("logits"), q.wires.senders.index("blocks.0.mlp.out")
    assert float(table[receiver, sender]) == pytest.approx(float(loud * made.hf.unembed.weight.detach().norm()), rel=1e-5)
    head = q.wires.receivers.index("blocks.0.attn.q[head=1]")
    d = made.hf.config.d_head
    loud = (q.ours - q.theirs)[0].norm(dim=-1).mean()
    assert float(table[head, 0]) == pytest.approx(
        float(loud * made.hf.blocks[0].attn.q.weight.detach()[d : 2 * d].norm()), rel=1e-5
    )


def test_a_sweep_of_thresholds_is_a_ranking(case):
    made, model, pairs, _ = case
    every = ranked(case, chance())
    thresholds = (1.0, 7.0)
    circuits = {t: acdc(model, pairs.clean, pairs.corrupt, t, pairs.metric) for t in thresholds}
    found = swept(circuits.__getitem__, thresholds[::-1], every)
    assert score(found, made.varying).auroc == 1
    for edge in found.edges:
        key = (edge.sender, edge.receiver, edge.into)
        survived = [t for t, c in circuits.items() if key in {(e.sender, e.receiver, e.into) for e in c.edges}]
        assert edge.weight == max(survived, default=0.0)


def test_signs_count_where_they_are_asked_to():
    nodes = tuple(map(Node, ("blocks.0.in", "blocks.0.attn.z[head=0]", "logits")))
    against, junk = Edge("blocks.0.in", "logits", -2.0), Edge("blocks.0.attn.z[head=0]", "logits", 1.0)
    ranking, truth = Graph(nodes, (against, junk)), Graph(nodes, (against,))
    assert score(ranking, truth).auroc == 1 and score(ranking, truth, signed=True).auroc == 0


def test_edges_into_one_head_are_pooled_by_the_strongest(case):
    made, found = case[0], ranked(case, exact)
    whole = pooled(found)
    assert len({(e.sender, e.receiver) for e in found.edges}) == len(whole.edges)
    strongest = max(abs(e.weight) for e in found.edges if e.receiver == "blocks.0.attn.z[head=1]")
    assert max(abs(e.weight) for e in whole.edges if e.receiver == "blocks.0.attn.z[head=1]") == strongest
    assert score(whole, pooled(made.varying)).auroc == 1


def test_a_circuit_is_no_ranking(case):
    made, model, pairs, _ = case
    circuit = acdc(model, pairs.clean, pairs.corrupt, 1000.0, pairs.metric)
    with pytest.raises(UnknownSite, match="Score a ranking of every edge"):
        score(circuit, made.varying)


def test_of_numbers_the_clean_one_is_larger():
    """So that effects of several pairs do not cancel, which had ACDC find nothing."""
    made = compile(fraction_of_previous(length=4), junk=3, rotate=True)
    pairs = made.pairs(16)
    with torch.no_grad():
        ours, theirs = (pairs.metric(made.hf(ids).logits) for ids in (pairs.clean, pairs.corrupt))
    assert (ours > theirs + 0.05).all()
    every = edges(pc.load(made.hf), pairs.clean, pairs.corrupt, pairs.metric, estimate=chance())
    gap = float((ours - theirs).mean())
    found = swept(lambda t: acdc(pc.load(made.hf), pairs.clean, pairs.corrupt, t, pairs.metric), (0.1 * gap,), every)
    assert score(found, made.varying).auroc == 1


def test_a_score_reads_as_a_sentence():
    made = compile(histogram(length=4), junk=2)
    pairs = made.pairs(4)
    found = score(edges(pc.load(made.hf), pairs.clean, pairs.corrupt, pairs.metric), made.varying)
    assert str(found).startswith("AUROC 1.000, average precision 1.000 (4 true of ")
