"""Trajectories, each against a loop over the lens's own answers or over bare logits."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

import patchclamp as pc
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.lenses.trajectory import between, curve, depth, evolution, steps

IDS = torch.tensor([[30, 31, 32, 33, 34, 35, 36]])


def said(llama):
    """The logits of both layers, by hand."""
    run = llama.run(IDS, "blocks.0.out")
    with torch.no_grad():
        return torch.stack([llama.hf.lm_head(llama.hf.model.norm(run["blocks.0.out"])), run.logits])[:, 0]


def test_numbers_become_grids_of_their_own(llama):
    grid = pc.lens(llama, IDS)
    kl = evolution(grid, "KL")
    assert torch.equal(kl.values, grid.details["KL"]) and (kl.unit, kl.text) == ("nats", grid.text)
    line = curve(grid, "rank")
    assert line.series[0].y.shape == (2,) and bool((line.series[0].low <= line.series[0].high).all())
    assert "Logit lens: rank" in line.html() and "Logit lens: KL" in kl.html()
    with pytest.raises(Unserved, match='no "kl"; a lens has KL, entropy, rank'):
        evolution(grid, "kl")


def test_depth_is_the_first_layer_that_stays():
    def grid(tokens):
        values = torch.tensor(tokens, dtype=torch.float).T
        return Grid(values * 0, ("layer", "pos"), details={"token": values})

    found = depth(grid([[1, 1, 1, 1], [2, 1, 1, 1], [1, 2, 1, 1], [4, 3, 2, 1]]))
    assert found.values.tolist() == [0.0, 1.0, 2.0, 3.0] and found.axes == ("pos",)


def test_depth_leaves_padding_out(llama):
    found = depth(pc.lens(llama, [[30, 31, 32], [40]]))
    assert found.axes == ("prompt", "pos") and found.values[1, 1:].isnan().all() and not found.values[0].isnan().any()


def test_steps_are_divergences_of_layer_and_next(llama):
    before, after = said(llama)
    grid = steps(llama, IDS)
    by_hand = kl_divergence(Categorical(logits=after), Categorical(logits=before))
    assert list(grid.words("layer")) == ["1"] and torch.allclose(grid.values[0], by_hand, atol=1e-5)


def test_layers_are_compared_each_with_each(llama):
    logits = said(llama)[:, 3]
    grid = between(llama, IDS, pos=3)
    for i in range(2):
        for j in range(2):
            by_hand = kl_divergence(Categorical(logits=logits[i]), Categorical(logits=logits[j]))
            assert float(grid.values[i, j]) == pytest.approx(float(by_hand), abs=1e-5)


def test_the_town_comes_to_its_answer_downwards(town):
    """On gift sentences: divergence and the answer's rank fall from layer to layer, on average."""
    people = [("Mary", "John"), ("Alice", "Hugo"), ("Emma", "Felix"), ("Nora", "Oscar")]
    prompts = [f"When {a} and {b} went to the store, {b} gave a drink to" for a, b in people]
    grid = pc.lens(town, prompts)
    kl = grid.details["KL"].mean((1, 2))
    assert bool((kl[1:] < kl[:-1]).all()) and float(kl[-1]) == 0.0
    assert float(depth(grid).values[:, -1].min()) >= 2.0  # nobody is named before the last blocks


def test_what_has_no_layers_has_no_trajectory(llama):
    with pytest.raises(WrongAxis, match="a trajectory goes over layers"):
        depth(pc.lens(llama, IDS, "blocks.*.attn.z[head=*]"))
    with pytest.raises(WrongAxis, match="two or more places on one prompt"):
        steps(llama, IDS, "blocks.0.out")
    with pytest.raises(WrongAxis, match="on one prompt, not on 2"):
        between(llama, [[3, 4], [5, 6]])
