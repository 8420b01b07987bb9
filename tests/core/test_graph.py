"""Graphs of named nodes."""

from dataclasses import replace

import pytest

from patchclamp.core.errors import UnknownSite
from patchclamp.core.graph import Edge, Graph, Node

GRAPH = Graph(
    (Node("embed.out"), Node("blocks.0.attn.z[head=1]", 0.7), Node("blocks.1.mlp.out", -2.0), Node("logits", 1.0)),
    (Edge("embed.out", "blocks.0.attn.z[head=1]", 0.5, "v"), Edge("blocks.0.attn.z[head=1]", "logits", 3.0),
     Edge("blocks.1.mlp.out", "logits", -0.4), Edge("embed.out", "blocks.1.mlp.out", 0.1)),
)  # fmt: skip


def test_edges_are_found_from_either_end():
    assert [e.weight for e in GRAPH.incoming("logits")] == [3.0, -0.4]
    assert [e.receiver for e in GRAPH.outgoing("embed.out")] == ["blocks.0.attn.z[head=1]", "blocks.1.mlp.out"]
    assert GRAPH["logits"].value == 1.0 and "logits" in GRAPH and "norm.out" not in GRAPH


def test_top_and_prune():
    assert GRAPH.top(1)[0].site == "blocks.1.mlp.out"
    pruned = GRAPH.prune(0.8)
    assert [e.weight for e in pruned.edges] == [3.0, 0.5]
    assert {n.site for n in pruned.nodes} == {"embed.out", "blocks.0.attn.z[head=1]", "logits"}
    assert GRAPH.prune(1.0).edges == tuple(sorted(GRAPH.edges, key=lambda e: -abs(e.weight)))


def test_unknown_nodes_are_said_so():
    with pytest.raises(UnknownSite, match='Did you mean "logits"'):
        GRAPH["logit"]
    with pytest.raises(UnknownSite, match="an edge names the node"):
        Graph((Node("logits"),), (Edge("logits", "logit", 1.0),))


def test_it_draws_itself_in_layers(capsys):
    picture = GRAPH.picture()
    assert [n.layer for n in picture.nodes] == [-1.0, 0.0, 1.5, 1000.0]
    GRAPH.show()
    assert "logits" in capsys.readouterr().out


def test_a_node_knows_its_layer():
    assert Node("blocks.3.mlp.out").layer == 3 and Node("logits").layer is None


def test_ranking_by_magnitude_or_by_weight_is_a_choice():
    assert [e.weight for e in GRAPH.strongest(2)] == [3.0, 0.5]
    assert GRAPH.strongest()[2].weight == -0.4 and GRAPH.strongest(signed=True)[-1].weight == -0.4
    assert [e.weight for e in GRAPH.prune(1.0, signed=True).edges] == [3.0, 0.5, 0.1]


def test_two_graphs_are_compared_edge_by_edge():
    other = GRAPH.only(GRAPH.edges[:3])
    told = GRAPH.compare(other)
    assert (len(told.shared), len(told.only_here), len(told.only_there)) == (3, 1, 0)
    assert told.jaccard == 0.75 and told.spearman == pytest.approx(1)
    turned = replace(other, edges=tuple(replace(e, weight=-e.weight) for e in other.edges))
    assert GRAPH.compare(turned).spearman == pytest.approx(-1)
    assert "3 edges shared" in str(told)


def test_graphs_of_two_models_are_not_compared():
    one, two = (replace(GRAPH, facts={"model": name}) for name in ("gpt2", "town"))
    with pytest.raises(UnknownSite, match="of gpt2 and the other one of town"):
        one.compare(two)
    with pytest.raises(UnknownSite, match="no node in common"):
        GRAPH.compare(Graph((Node("a"), Node("b")), (Edge("a", "b", 1.0),)))


def test_within_a_block_keys_lie_below_heads_and_heads_below_the_feed_forward_layer():
    sites = ("blocks.1.in", "blocks.1.attn.k[kv_head=0]", "blocks.1.attn.z[head=0]", "blocks.1.mlp.out", "blocks.2.in")
    layers = [n.layer for n in Graph(tuple(map(Node, sites))).picture().nodes]
    assert layers == sorted(layers) and len(set(layers[:4])) == 4


def test_nodes_of_single_tokens_have_a_column_a_token():
    sites = ("blocks.1.attn.z[head=0, pos=5]", "blocks.1.mlp.out[pos=7]", "logits[pos=7]")
    assert [n.column for n in Graph(tuple(map(Node, sites))).picture().nodes] == [5, 7, 7]


def test_edges_into_heads_say_where_they_enter():
    picture = GRAPH.picture()
    assert picture.into == ("v", "", "", "")
