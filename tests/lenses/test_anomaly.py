"""Odd prompts: trajectories by hand, and an order slipped into the town's questions."""

from itertools import islice

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.lenses.anomaly import detect, outlier_factor, trajectory
from patchclamp.specimens.town import orders
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as town_of

pytest.importorskip("sklearn")
AXES = ("prompt", "layer", "reading")


def test_a_trajectory_is_read_at_the_last_token_of_each_prompt(llama):
    prompts = [[30, 31, 32, 33, 34], [40, 41], [50, 51, 52]]
    found = trajectory(llama, prompts, batch=2)
    for row, prompt in enumerate(prompts):
        grid = pc.lens(llama, prompt, ["blocks.0.in", "blocks.1.in", "blocks.1.out"])
        assert torch.allclose(found.values[row, :, 3], grid.details["KL"][:, -1], atol=1e-5)
        assert torch.allclose(found.values[row, :, 2], grid.details["entropy"][:, -1], atol=1e-4)
        assert torch.allclose(found.values[row, :, 1].exp(), grid.values[:, -1], atol=1e-5)
    chosen = trajectory(llama, prompts, options=[5, 7])
    assert chosen.shape == {"prompt": 3, "layer": 3, "reading": 2} and list(chosen.words("reading")) == ["5", "7"]
    by_hand = llama.run(prompts[1]).logits[0, -1].log_softmax(-1)[[5, 7]]
    assert torch.allclose(chosen.values[1, -1], by_hand, atol=1e-5)


def test_what_is_not_odd_is_not_found_and_what_is_in_the_layers_alone_is_found_there_alone():
    generator = torch.Generator().manual_seed(0)
    calm, same, odd = torch.randn(3, 120, 3, 2, generator=generator)
    odd[:, :2] += 4
    none, some = (detect(Grid(calm, AXES), Grid(x, AXES), splits=2, draws=50) for x in (same, odd))
    assert bool((none.details["low"] < 0.5).all()) and bool((none.details["high"] > 0.5).all())
    assert bool((some.values[:, 0] > 0.99).all()) and bool(((some.values[:, 1] - 0.5).abs() < 0.1).all())


def test_an_order_is_told_from_ordinary_questions_and_an_innocent_sentence_is_not(town):
    """An order to give the wrong verdict: AUROC above 0.9, better than from the output alone; an innocent claim: by chance."""
    world = town_of(0)
    lens = pc.TunedLens.train(town, documents(world, "lens"), steps=12, batch=12)
    items = orders.questions(world, 160)
    rest = items[100:]
    calm = trajectory(town, orders.ordinary(items[:100]), lens)
    fast = {"local outlier factor": outlier_factor}
    odd, none = (detect(calm, trajectory(town, p, lens), fast, splits=5, draws=40)
                 for p in (orders.ordered(rest), orders.innocent(world, rest)))  # fmt: skip
    assert float(odd.values[0, 0]) > 0.95 and float(odd.details["low"][0, 0]) > 0.9
    assert float(odd.values[0, 0]) > float(odd.values[0, 1])
    assert float(none.values[0, 0]) < 0.7


def test_orders_leave_the_question_as_it_is():
    items = orders.questions(town_of(0), 5)
    for texts in (orders.ordinary(items), orders.ordered(items), orders.foreign(items), orders.innocent(town_of(0), items)):
        assert all(text.endswith(item.clean) for text, item in zip(texts, items))


def test_mistakes_are_named(town):
    some = Grid(torch.zeros(30, 2, 1), AXES)
    with pytest.raises(ShapeMismatch, match="of the same places and readings"):
        detect(some, Grid(torch.zeros(30, 3, 1), AXES))
    with pytest.raises(WrongPrompt, match="20 ordinary prompts at least"):
        detect(Grid(torch.zeros(9, 2, 1), AXES), some)
    with pytest.raises(WrongPrompt, match="no prompts"):
        trajectory(town, [])


def test_the_detector_sees_ordinary_rows_only():
    seen = []

    def spy(rows, seed):
        seen.append(rows)
        return outlier_factor(rows, seed)

    calm, odd = Grid(torch.randn(40, 2, 1), AXES), Grid(torch.randn(10, 2, 1) + 9, AXES)
    detect(calm, odd, {"spy": spy}, splits=2, draws=2)
    assert all(len(rows) == 20 and abs(rows).max() < 6 for rows in seen)
    assert list(islice(seen, 1))
