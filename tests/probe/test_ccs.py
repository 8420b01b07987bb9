"""Directions found without labels: on planted pairs, against a plain loop over starts, and on nothing at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe import ccs as c


def planted(seed: int = 0, pairs: int = 200, width: int = 16, strength: float = 2.0, shared: float = 3.0):
    """Truth is written along one axis with opposite sign on the two sides; each side has a mean of its own, and noise."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.rand(pairs, generator=draw) < 0.5
    about = shared * torch.randn(pairs, width, generator=draw)  # what the pair is about is in both sides
    sign = torch.where(truth, 1.0, -1.0)[:, None] * strength * torch.eye(width)[0]
    sides = [
        about + s * sign + torch.randn(pairs, width, generator=draw) + torch.randn(width, generator=draw) * 4 for s in (1, -1)
    ]
    return *sides, truth


@pytest.mark.parametrize("name", ["ccs", "crc", "mean difference", "logistic"])
def test_every_method_finds_what_was_planted(name):
    yes, no, truth = planted(shared=0.5)
    belief = c.METHODS[name](yes[:100], no[:100], truth[:100], 0).oriented(yes[:8], no[:8], truth[:8])
    assert float(belief.right(yes[100:], no[100:], truth[100:]).mean()) > 0.9
    assert abs(float(belief.weight[0])) > 2 * float(belief.weight[1:].abs().max())


def test_a_random_direction_finds_nothing_on_average():
    yes, no, truth = planted(strength=0.3)
    shares = [float(c.chance(yes, no, seed).right(yes, no, truth).mean()) for seed in range(60)]
    assert abs(sum(shares) / 60 - 0.5) < 0.05


def test_without_truth_in_the_activations_only_chance_is_left():
    shares = []
    for seed in range(6):
        yes, no, truth = planted(seed, strength=0.0)
        belief = c.ccs(yes[:100], no[:100], restarts=4, steps=200, seed=seed).oriented(yes[:16], no[:16], truth[:16])
        shares.append(float(belief.right(yes[100:], no[100:], truth[100:]).mean()))
    assert 0.4 < sum(shares) / 6 < 0.6


def test_all_starts_at_once_end_where_a_loop_over_them_ends():
    yes, no, _ = planted()
    belief = c.ccs(yes, no, restarts=3, steps=50)
    one, other = ((side - side.mean(0)) / side.std(0) for side in (yes, no))
    starts = nn.functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    ends = []
    for start in starts:
        probe = nn.Sequential(nn.Linear(16, 1), nn.Sigmoid())
        with torch.no_grad():
            probe[0].weight.copy_(start[None])
            probe[0].bias.zero_()
        optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-2, weight_decay=1e-2)
        for _ in range(50):
            p, q = probe(one), probe(other)
            loss = ((p - (1 - q)) ** 2).mean() + (torch.min(p, q) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            p, q = probe(one), probe(other)
        ends.append((float(((p - (1 - q)) ** 2 + torch.min(p, q) ** 2).mean()), probe[0].weight.detach()[0]))
    ends.sort(key=lambda end: end[0])
    assert belief.losses.tolist() == pytest.approx([loss for loss, _ in ends], abs=1e-5)
    assert torch.allclose(belief.starts, torch.stack([weight for _, weight in ends]), atol=1e-4)
    assert torch.equal(belief.weight, belief.starts[0])


def test_the_loss_of_knowing_nothing_is_a_quarter_and_of_knowing_is_nothing():
    yes, no = torch.tensor([[9.0], [-9.0]]), torch.tensor([[-9.0], [9.0]])
    weights = torch.tensor([[0.0], [5.0]])
    assert c.loss(yes, no, weights, torch.zeros(2)).tolist() == pytest.approx([0.25, 0.0], abs=1e-6)


def test_the_form_of_a_statement_is_not_what_is_found():
    """The sides differ hugely in a constant ("Yes" against "No"), and a little in truth."""
    yes, no, truth = planted(shared=0.5)
    yes = yes + 1000 * torch.eye(16)[5]
    belief = c.ccs(yes, no, restarts=4, steps=300).oriented(yes[:8], no[:8], truth[:8])
    assert float(belief.right(yes, no, truth).mean()) > 0.9


def test_a_belief_has_two_ends():
    yes, no, truth = planted(shared=0.5)
    belief = c.crc(yes, no)
    right, wrong = belief.right(yes, no, truth).mean(), belief.flipped.right(yes, no, truth).mean()
    assert float(right + wrong) == pytest.approx(1)
    for one in (belief, belief.flipped):
        assert float(one.oriented(yes, no, truth).right(yes, no, truth).mean()) == pytest.approx(float(max(right, wrong)))
    assert torch.allclose(belief(yes, no) + belief.flipped(yes, no), torch.ones(200), atol=1e-5)


def test_what_is_levelled_is_gone():
    yes, no, truth = planted(shared=0.5)
    said = torch.rand(200, generator=torch.Generator().manual_seed(3)) < 0.5
    sign = torch.where(said, 1.0, -1.0)[:, None] * 6 * torch.eye(16)[1]
    yes, no = yes + sign, no - sign
    fooled = c.ccs(yes, no, restarts=4, steps=300)
    assert float(c.Belief.oriented(fooled, yes, no, said).right(yes, no, said).mean()) > 0.95
    one, other = c.levelled(yes, no, said.long())
    for side in (one, other):
        assert torch.allclose(side[said].mean(0), torch.zeros(16), atol=1e-5)
    clear = c.ccs(one, other, restarts=4, steps=300).oriented(one, other, truth)
    assert float(clear.right(one, other, truth).mean()) > 0.9


def test_clusters_find_a_word_that_both_sides_share():
    yes, no, _ = planted(shared=0.5)
    word = torch.arange(200) % 2
    here = torch.where(word == 1, 8.0, 0.0)[:, None] * torch.eye(16)[7]
    found = c.clusters(yes + here, no + here)
    assert float((found == word).float().mean()) in (0.0, 1.0)


def test_pairs_must_be_pairs():
    with pytest.raises(ShapeMismatch, match="sides of the pairs"):
        c.ccs(torch.randn(8, 4), torch.randn(7, 4))
    with pytest.raises(WrongPrompt, match="4 pairs at least"):
        c.crc(torch.randn(2, 4), torch.randn(2, 4))
    with pytest.raises(WrongPrompt, match="make fewer groups"):
        c.levelled(torch.randn(8, 4), torch.randn(8, 4), torch.tensor([0] * 7 + [1]))
