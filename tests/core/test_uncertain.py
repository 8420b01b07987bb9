"""Intervals hold what they say they hold, and permutations call noise noise."""

import pytest
import torch

from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.uncertain import interval, p_values


@pytest.mark.parametrize("prompts", [12, 30])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_an_interval_covers_the_truth_as_often_as_it_says(prompts, kind):
    """500 draws with a known mean: the 95 % interval holds it in 92 to 98 of a hundred."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(prompts, 500, generator=generator)
    truth = 0.0
    if kind == "skewed":
        drawn, truth = (0.5 * drawn).exp(), 0.125
        truth = float(torch.tensor(truth).exp())
    low, high = interval(drawn)
    assert 0.92 <= float(((low <= truth) & (truth <= high)).float().mean()) <= 0.98


def test_noise_is_called_noise_and_an_effect_an_effect():
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(200, 20, 50, generator=generator)  # 200 analyses of 50 cells over 20 prompts
    wrong = sum(bool((p_values(each, draws=400) < 0.05).any()) for each in noise)
    assert wrong <= 20  # one in twenty is promised
    assert sum(bool((p_values(each, draws=400, corrected=False) < 0.05).any()) for each in noise) > 150
    assert float(p_values(noise[0] + torch.eye(50)[0] * 3)[0]) < 0.01


def test_grids_say_how_sure_they_are():
    each = torch.randn(10, 2, 3, generator=torch.Generator().manual_seed(0)) + 5
    grid = Grid(each.mean(0), ("layer", "head"), each=each)
    assert grid.interval().shape == {"bound": 2, "layer": 2, "head": 3}
    assert bool((grid.interval().at(bound="low").values < grid.values).all())
    assert bool((grid.p_values().values < 0.05).all())


def test_few_prompts_and_none_are_refused():
    with pytest.raises(WrongPrompt, match="there are 3"):
        interval(torch.zeros(3, 2))
    with pytest.raises(Unserved, match="prompt by prompt"):
        Grid(torch.zeros(2), ("layer",)).interval()


def test_what_never_varies_has_an_interval_of_no_width():
    low, high = interval(torch.ones(8, 1))
    assert float(low) == float(high) == 1.0
