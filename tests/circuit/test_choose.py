"""From a ranking to a circuit: enough of it, and nothing that leads nowhere."""

from random import Random

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.choose import living, ranked, smallest
from patchclamp.circuit.eap import eap
from patchclamp.circuit.edges import Question, edges, kept
from patchclamp.circuit.faithful import share
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.journal import keeping

OTHER = torch.cat([torch.arange(20, 34).view(2, 7)[:, :3], torch.arange(50, 58).view(2, 4)], 1)
METRIC = pc.logit_diff(5, 9)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def asked(request):
    model = request.getfixturevalue(request.param)
    ids = torch.arange(20, 34).view(2, 7)
    return model, ids, edges(model, ids, OTHER, METRIC, estimate=eap)


def test_edges_that_lead_nowhere_are_left_out_and_nothing_changes(asked):
    model, ids, ranking = asked
    q, left = Question.of(model, ids, OTHER, METRIC), []
    for n in (15, 20, 25, 30):
        some = ranking.only(Random(n).sample(ranking.edges, n))
        alive = living(model, some)
        left.append(len(alive.edges) / n)
        assert share(q, kept(q.wires, alive.edges)) == pytest.approx(share(q, kept(q.wires, some.edges)), abs=1e-4)
        assert living(model, alive).edges == alive.edges
    assert any(0 < part < 1 for part in left)


def test_a_whole_graph_is_alive(asked):
    model, _, ranking = asked
    assert living(model, ranking).edges == ranking.edges


def test_the_smallest_is_faithful_and_one_edge_less_of_the_ranking_is_not(asked):
    model, ids, ranking = asked
    circuit = smallest(model, ranking, ids, OTHER, METRIC, faithful=0.8)
    q, order = Question.of(model, ids, OTHER, METRIC), ranked(ranking)
    assert share(q, kept(q.wires, circuit.edges)) >= 0.8 - 1e-4
    last = max(order.index(e) for e in circuit.edges)
    assert share(q, kept(q.wires, order[:last])) < 0.8


def test_sizes_that_are_known_are_not_tried_again(asked, tmp_path, monkeypatch):
    model, ids, ranking = asked
    with keeping(tmp_path):
        before = smallest(model, ranking, ids, OTHER, METRIC)
    monkeypatch.setattr("patchclamp.circuit.choose.share", pytest.fail)
    with keeping(tmp_path):
        assert smallest(model, ranking, ids, OTHER, METRIC).edges == before.edges


def test_a_share_is_a_share(asked):
    model, ids, ranking = asked
    with pytest.raises(WrongPrompt, match="above 0 and up to 1; got 90"):
        smallest(model, ranking, ids, OTHER, METRIC, faithful=90)
