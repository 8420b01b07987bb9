"""A direction: counted in gaps, kept on disk, and refused where it is one for many layers."""

import json

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongAxis
from patchclamp.probe.direction import Direction, random_like

LIKED = [f"The {show} was {word}. We went home" for show in ("film", "play") for word in ("lovely", "superb", "perfect")]
DISLIKED = [f"The {show} was {word}. We went home" for show in ("film", "play") for word in ("dull", "boring", "terrible")]


@pytest.fixture(scope="module")
def joy(town):
    return pc.contrast(town, "blocks.*.out", LIKED, DISLIKED)


def test_one_step_is_the_gap_between_the_two_kinds(town, joy):
    line = joy.at(layer=2)
    mean = [town.run(prompts, keep="blocks.2.out")["blocks.2.out[pos=-1]"].mean(0) for prompts in (LIKED, DISLIKED)]
    assert float(line.vector.norm()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(1 * line, mean[0] - mean[1], atol=1e-3)  # the method is the mean difference, so a step is all of it
    assert float((mean[0] + mean[1]) / 2 @ line) == pytest.approx(float(line.middle), abs=1e-3)


def test_arithmetic_is_that_of_the_step(joy):
    line, other = joy.at(layer=1), joy.at(layer=2)
    step = line.scale * line.vector
    for made, wanted in (
        (2 * line, 2 * step),
        (line * 2, 2 * step),
        (line / 2, step / 2),
        (-line, -step),
        (line - line, 0 * step),
        (line + other, step + 1 * other),
        (1 * other - line, 1 * other - step),
    ):
        assert torch.allclose(made, wanted, atol=1e-4)


def test_a_direction_for_every_layer_is_no_step(joy):
    with pytest.raises(ShapeMismatch, match="use direction.at\\(layer=...\\)"):
        2 * joy
    with pytest.raises(WrongAxis, match="those of 0, 1, 2, 3"):
        joy.at(layer=9)
    with pytest.raises(WrongAxis, match="no layer to choose"):
        joy.at(layer=1).at(layer=1)


def test_saved_and_loaded_it_is_the_same(joy, tmp_path):
    again = Direction.load(joy.save(tmp_path / "joy"))
    assert torch.equal(again.vector, joy.vector) and repr(again) == repr(joy) and again.facts == joy.facts
    assert torch.equal(2 * again.at(layer=2), 2 * joy.at(layer=2))


def test_what_is_no_direction_is_not_loaded(joy, tmp_path):
    with pytest.raises(NotSaved, match="no direction that can be read"):
        Direction.load(tmp_path)
    folder = joy.save(tmp_path / "joy")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "version": 2}))
    with pytest.raises(NotSaved, match="version 2, not a Direction of version 1"):
        Direction.load(folder)


def test_random_ones_are_as_long_and_another_every_seed(joy):
    step = 1 * joy.at(layer=2)
    one, other = random_like(step, 1), random_like(step, 2)
    assert float(one.norm()) == pytest.approx(float(step.norm()), rel=1e-4)
    assert abs(float(torch.cosine_similarity(one, other, dim=0))) < 0.5
    assert torch.equal(one, random_like(step, 1))


def test_it_shows_itself(joy, capsys):
    joy.show()
    assert "AUROC" in capsys.readouterr().out
