"""The shipped network is what its card says, and its recipe makes it."""

import json

import pytest
import torch
from scipy.stats import spearmanr

import patchclamp as pc
from patchclamp.core.errors import NotAModel
from patchclamp.matrix.maximum import Recipe, measure, train
from patchclamp.matrix.tables import Tables
from patchclamp.model.load import SPECIMENS, specimens

CARD = json.loads((SPECIMENS / "maximum" / "card.json").read_text(encoding="utf-8"))


def test_it_ships_with_its_recipe():
    recipe = Recipe(**{**CARD["recipe"], "lengths": tuple(CARD["recipe"]["lengths"])})
    assert "maximum" in specimens() and recipe == Recipe()
    assert CARD["parameters"] == sum(p.numel() for p in pc.load("specimen:maximum").hf.parameters())


def test_its_circuits_are_copying_and_order():
    tables = Tables.of(pc.load("specimen:maximum"))
    assert (tables.values.argmax(1) == torch.arange(64)).all()
    orders = [spearmanr(row, range(64)).statistic for row in tables.scores.tolist()]
    assert min(orders) > 0.99
    blank = Tables.of(pc.load(Recipe().network().eval()))  # the control: before training
    assert (blank.values.argmax(1) == torch.arange(64)).sum() < 8
    assert max(abs(spearmanr(row, range(64)).statistic) for row in blank.scores.tolist()) < 0.6


def test_it_is_what_its_card_says():
    figures = measure(Recipe(), pc.load("specimen:maximum"))
    for name, value in figures.items():
        assert value == pytest.approx(CARD["figures"][name], abs=2e-4), name


def test_a_training_that_was_interrupted_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    recipe = Recipe(vocab=8, d_model=4, d_head=4, steps=6, batch=4)
    whole = train(recipe, tmp_path / "whole", save_every=100)
    assert not list((tmp_path / "whole").glob("checkpoint*"))

    def stopped(module, *rest, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("patchclamp.model.specimen.Specimen.save_pretrained", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", save_every=4)
    again = train(recipe, tmp_path / "cut", save_every=4)
    assert all(torch.equal(a, b) for a, b in zip(whole.hf.parameters(), again.hf.parameters()))


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, monkeypatch):
    recipe = Recipe(vocab=8, d_model=4, d_head=4, steps=2, batch=4)
    monkeypatch.setattr("patchclamp.core.checkpoint.forget", lambda folder: None)
    train(recipe, tmp_path, save_every=1)
    with pytest.raises(NotAModel, match="another recipe"):
        train(Recipe(vocab=8, d_model=4, d_head=4, steps=3, batch=4), tmp_path)
