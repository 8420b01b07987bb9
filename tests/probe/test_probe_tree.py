"""The reasoning tree in attention: found where the task was learned, not where nothing or something else was."""

from __future__ import annotations

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.smallest import LISTED, heights, lists
from patchclamp.probe.tree import attended, nearest, tree


@pytest.fixture(scope="module")
def asked():
    prompts = lists(500, 11)
    return prompts, torch.arange(LISTED).expand(len(prompts), -1), heights(prompts)


@pytest.mark.parametrize(("name", "learned"), [("smallest", True), ("smallest/by-place", False)])
def test_the_tree_is_there_where_the_task_was_learned(asked, name, learned):
    grid = tree(pc.load(f"specimen:{name}"), *asked, seeds=[0, 1])
    last = grid.values[:, -1]
    assert (last > 0.3).all() if learned else (last < 0.1).all()
    assert max(float(grid.details[f"untrained, {end}"][:, -1].abs().max()) for end in ("least", "most")) < 0.1


def test_attention_is_that_of_the_last_token_averaged_over_heads(asked):
    model = pc.load("specimen:smallest")
    found = attended(model, *asked[:2])
    by_hand = torch.stack([model.run(asked[0][:3], f"blocks.{i}.attn.pattern")[f"blocks.{i}.attn.pattern"].mean(1)[:, -1, :LISTED]
                           for i in range(4)], -1)  # fmt: skip
    assert torch.allclose(found[:3], by_hand / by_hand.amax((1, 2), keepdim=True), atol=1e-6)


def test_prompts_of_different_length_are_read_at_their_own_places(town):
    texts = ["Mary and John went to the store", "Anna saw John"]
    alone = torch.cat([attended(town, [t], torch.tensor([[1, 3]])) for t in texts])
    assert torch.allclose(attended(town, texts, torch.tensor([[1, 3], [1, 3]])), alone, atol=1e-5)


def test_neighbours_find_what_is_planted_and_nothing_in_noise():
    y = torch.randint(2, (200, 6), generator=torch.Generator().manual_seed(0))
    noise = torch.randn(200, 6, 3, generator=torch.Generator().manual_seed(1))
    everything = torch.ones_like(y).bool()
    assert nearest(y[..., None] + 0.1 * noise, y, everything) > 0.99 and abs(nearest(noise, y, everything) - 0.5) < 0.07


def test_what_does_not_fit_is_refused(asked):
    model = pc.load("specimen:smallest")
    with pytest.raises(ShapeMismatch, match="one row a prompt"):
        tree(model, asked[0], asked[1][:3], asked[2])
    with pytest.raises(WrongPrompt, match="give seeds= one at least"):
        tree(model, *asked, seeds=[])
