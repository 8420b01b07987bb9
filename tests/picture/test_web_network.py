"""Networks: layers from the bottom up, a slot for each node, the strongest edges."""

from __future__ import annotations

import re

import picture_samples as samples

from patchclamp.picture import Network, Node
from patchclamp.picture.web import network


def test_higher_layers_stand_higher():
    places, across, up = network.layout([Node("low", "", 0), Node("high", "", 5)])
    assert places["high"][1] < places["low"][1]
    assert (across, up) == (1, 2)


def test_no_two_nodes_share_a_place():
    nodes = [Node(str(at), "", at % 3, at % 2) for at in range(30)]
    places, across, _ = network.layout(nodes)
    assert len(set(places.values())) == 30
    assert across == 10
    assert all(0 < x < 100 and 0 < y < 100 for x, y in places.values())


def test_an_edge_knows_its_sign_and_ends():
    drawn = network.network(samples.network())
    assert re.search(r'class="negative" style="--share:0.778" data-ends="1 2" data-weight="−0.7"', drawn)
    assert re.search(r'class="positive" style="--share:1" data-ends="0 1" data-weight="0.9"', drawn)


def test_a_node_says_its_value_and_note():
    assert 'title="9.9\n0.8 logits\nname mover"' in network.network(samples.network())


def test_weak_edges_are_left_out_and_counted():
    nodes = tuple(Node(str(at), str(at), at) for at in range(40))
    edges = tuple((str(a), str(b), 1.0 + a) for a in range(40) for b in range(a))
    drawn = network.network(Network(nodes, edges))
    assert drawn.count("data-ends") == network.MOST_EDGES
    assert "380 weaker edges are not drawn" in drawn


def test_nodes_without_values_are_not_coloured():
    drawn = network.network(Network((Node("a", "x"),), ()))
    assert 'class="node"' in drawn
    assert "legend" not in drawn


def test_an_edge_says_which_input_it_enters():
    nodes = (Node("a", "a", 0), Node("b", "b", 1))
    drawn = network.network(Network(nodes, (("a", "b", 1.0), ("a", "b", -0.5)), into=("q", "")))
    assert 'class="positive q"' in drawn and 'data-into="q"' in drawn
    assert "into queries" in drawn and "takes away" in drawn and "into keys" not in drawn
    assert "<td>q</td>" in drawn


def test_an_edge_goes_around_a_node_that_stands_between_its_ends():
    column = tuple(Node(name, name, at) for at, name in enumerate("abc"))
    past, straight = (re.findall(r'd="M50 [\d.]+C(\S+) ', network.network(Network(column, (edge,))))[0]
                      for edge in (("a", "c", 1.0), ("a", "b", 1.0)))  # fmt: skip
    assert float(past) < 0 and float(straight) == 50


def test_a_note_stands_below_the_name():
    assert 'data-note="name mover"' in network.network(samples.network())
