"""The specimen that finds the third smallest of eight numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import patchclamp as pc
from patchclamp.model.load import SPECIMENS
from patchclamp.probe.smallest import LISTED, NUMBERS, Recipe, accuracy, answers, heights, lists, train


def test_the_card_tells_the_truth():
    card = json.loads((SPECIMENS / "smallest" / "card.json").read_text())
    model = pc.load("specimen:smallest")
    assert accuracy(model.hf) == pytest.approx(card["figures"]["accuracy"], abs=0.002) and card["figures"]["accuracy"] >= 0.95
    assert accuracy(pc.load("specimen:smallest/by-place").hf, "place") > 0.99
    assert sum(p.numel() for p in model.hf.parameters()) == card["parameters"]


def test_it_is_small():
    assert sum(p.stat().st_size for p in Path(SPECIMENS / "smallest").rglob("*") if p.is_file()) < 1_000_000


def test_lists_and_answers_are_what_they_say():
    prompts = lists(50, 3)
    for row, answer, own in zip(prompts.tolist(), answers(prompts).tolist(), heights(prompts).tolist()):
        numbers = row[:LISTED]
        assert len(set(numbers)) == LISTED and max(numbers) < NUMBERS and sorted(numbers)[2] == answer
        assert numbers[own.index(2)] == answer and {n for n, h in zip(numbers, own) if h} == set(sorted(numbers)[:3])
    assert answers(prompts, "place").tolist() == prompts[:, 2].tolist()


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    recipe = Recipe(layers=1, heads=1, d_model=8, d_head=8, d_mlp=8, steps=6, batch=8)
    whole = train(recipe, tmp_path / "whole", save_every=3)
    seen: list[int] = []

    def stop(step):
        seen.append(step)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return lists_before(recipe.batch, step)

    import patchclamp.probe.smallest as module

    lists_before = module.lists
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "lists", lambda n, seed: stop(seed))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "stopped", save_every=3)
    again = train(recipe, tmp_path / "stopped", save_every=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))
