"""Trees in space: planted ones are found, the town's are, an untrained town's and the order of words are not."""

from __future__ import annotations

from random import Random

import pytest
import torch
from scipy.stats import spearmanr

from patchclamp.core.errors import ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.probe.structural import Structure, agreement, attachment, corpus, fit, structure


def planted(count, seed=0):
    """Words as sums of the edges from the root, each edge its own direction (squared distances are steps), and noise beside."""
    chosen, rng, x, trees = torch.Generator().manual_seed(seed), Random(seed), [], []
    mix = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(9))).Q
    for _ in range(count):
        paths = [set()]
        for word in range(1, 7):
            paths.append(paths[rng.randrange(word)] | {word})
        edges = torch.tensor([[float(e in p) for e in range(7)] for p in paths])
        x.append(torch.cat([edges, 3 * torch.randn(7, 17, generator=chosen)], 1) @ mix)
        trees.append(torch.tensor([[float(len(p ^ q)) for q in paths] for p in paths]))
    return x, trees


def test_a_planted_tree_is_found_on_other_sentences():
    probe = fit(*planted(200), rank=8, steps=400, rate=0.02)
    x, trees = planted(30, seed=1)
    assert agreement([probe(one) for one in x], trees).mean() > 0.9  # distances that are equal keep a perfect one from 1
    assert attachment([probe(one) for one in x], trees).mean() > 0.9
    assert agreement([Structure(torch.eye(24))(one) for one in x], trees).mean() < 0.3


def test_the_score_is_the_spearman_correlation_of_scipy():
    _, trees = planted(3)
    guess = torch.rand(7, 7)
    own = [spearmanr(guess[i, o], trees[0][i, o]).statistic for i in range(7) for o in [[j for j in range(7) if j != i]]
           if len(set(trees[0][i, o].tolist())) > 1]  # fmt: skip
    assert float(agreement([guess], trees[:1])) == pytest.approx(sum(own) / len(own), abs=1e-6)


def test_the_town_lays_its_sentences_out_as_trees_and_an_untrained_town_does_not(town):
    grid = structure(town, "blocks.2:3.out", *corpus(Random(0), 500), steps=350)
    assert float(grid.at(source="trained").values.max()) > 0.8
    assert float(grid.at(source="untrained").values.abs().max()) < 0.3
    assert float(grid.at(source="word order").values.max()) < 0.3


def test_texts_and_places_fit_together(town):
    texts, places, trees = corpus(Random(3), 20)
    for text, own, tree in zip(texts, places, trees):
        said = [town.run(text, logits=False, keep="embed.out").tokens[0, i] for i in own]
        assert len(said) == len(tree) >= 3


def test_what_is_no_tree_is_refused(town):
    texts, places, trees = corpus(Random(0), 4)
    with pytest.raises(WrongAxis, match=r"write blocks\.\*\.out"):
        structure(town, "blocks.2.out", texts, places, trees)
    with pytest.raises(ShapeMismatch, match="text 0 has 2 places and a tree of"):
        structure(town, "blocks.*.out", texts, [places[0][:2], *places[1:]], trees)
    with pytest.raises(ShapeMismatch, match="4 texts, 4 lists of places and 3 trees"):
        structure(town, "blocks.*.out", texts, places, trees[:3])
    with pytest.raises(WrongPrompt, match="all equally far apart"):
        agreement([torch.ones(3, 3)], [torch.ones(3, 3)])
    with pytest.raises(WrongPrompt, match="no whole tree"):
        attachment([trees[0]], [trees[0]])
