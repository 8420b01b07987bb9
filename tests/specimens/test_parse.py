"""Trees of the town's sentences: every word hangs on one other, and the links on the subject."""

from __future__ import annotations

from random import Random

import networkx as nx
import pytest

from patchclamp.specimens.town.agreement import sentence
from patchclamp.specimens.town.item import words
from patchclamp.specimens.town.parse import nested, parse


def test_a_sentence_by_hand():
    found = parse("According to the potter, the blue keys to the strange boat in front of the wall have been there for years.")
    tree = {found.words[i]: found.words[h] for i, h in enumerate(found.heads) if h is not None and h >= 0}
    assert {k: tree[k] for k in ("keys", "boat", "in", "wall", "front", "potter", "blue", "According", "been", "years")} == {
        "keys": "have", "boat": "to", "in": "keys", "wall": "in", "front": "in", "potter": "to", "blue": "keys",
        "According": "have", "been": "have", "years": "for",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_every_sentence_is_one_tree_with_the_verb_as_root(seed):
    rng = Random(seed)
    for _ in range(300):
        found = parse(sentence(rng))
        graph = nx.Graph([(i, h) for i, h in enumerate(found.heads) if h is not None and h >= 0])
        assert nx.is_tree(graph) and set(graph) == set(found.inside)
        assert [found.heads[i] for i in found.inside].count(-1) == 1
        assert all(found.words[i] in ".," for i in range(len(found.words)) if i not in found.inside)
        real = dict(nx.all_pairs_shortest_path_length(graph))
        assert found.distances() == [[float(real[a][b]) for b in found.inside] for a in found.inside]


def test_links_hang_on_the_subject_however_far():
    rng = Random(1)
    for _ in range(50):
        text, found, start = nested(rng)
        assert words(text)[start:] == list(found.words)
        subject, *others = found.nouns
        assert found.distances((subject, *others))[0][1:] == [2.0] * len(others)
        assert all(d == 4.0 for i, row in enumerate(found.distances(tuple(others))) for j, d in enumerate(row) if i != j)
