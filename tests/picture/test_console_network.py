"""Networks as sentences: what comes into each node."""

from __future__ import annotations

import picture_samples as samples

from patchclamp.picture import Network, Node
from patchclamp.picture.console import network
from patchclamp.picture.console.room import Room


def plain(lines) -> list[str]:
    return [line.plain.strip() for line in lines]


def test_the_top_comes_first_with_its_strongest_edges():
    lines = plain(network.network(samples.network(), Room(80, False)))
    assert lines[1:3] == ["out  ← 9.9 −0.7", "9.9 name mover  ← ·Mary +0.9"]


def test_many_edges_are_counted():
    nodes = (Node("top", "top", 1), *(Node(str(at), str(at)) for at in range(9)))
    lines = plain(network.network(Network(nodes, tuple((str(at), "top", at / 9) for at in range(9))), Room(120, False)))
    assert lines[0].endswith("and 4 more")
    assert lines[0].startswith("top  ← 8 +0.89 ← 7")


def test_without_edges_the_nodes_are_named():
    assert plain(network.network(Network((Node("a", "alone"),), ()), Room(80, False)))[0] == "alone"


def test_an_edge_says_which_input_it_enters():
    nodes = (Node("a", "a", 0), Node("b", "b", 1))
    drawn = Network(nodes, (("a", "b", 1.0),), into=("q",))
    assert plain(network.network(drawn, Room(80, False)))[0] == "b  ← a q +1"
