"""Intervals hold what they say they hold, permutations call noise noise, and areas and shares are other people's."""

import math

import pytest
import torch
from scipy.stats import binomtest, mannwhitneyu
from sklearn.metrics import roc_auc_score

from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.uncertain import auroc, auroc_interval, interval, p_values, wilson


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


# ---- shares and areas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_interval_of_a_share_is_scipys(level):
    for n in (1, 7, 100):
        right = torch.arange(n + 1)
        low, high = wilson(right.double() / n, n, level)
        theirs = [binomtest(int(k), n).proportion_ci(level, method="wilson") for k in right]
        assert low.tolist() == pytest.approx([ends.low for ends in theirs], abs=1e-9)
        assert high.tolist() == pytest.approx([ends.high for ends in theirs], abs=1e-9)


def test_shares_may_be_of_different_numbers_and_keep_their_kind():
    low, high = wilson(torch.tensor([[0.5, 1.0]]), torch.tensor([[4, 100]]))
    assert low.shape == (1, 2) and low.dtype == torch.float32
    assert (float(low[0, 0]), float(high[0, 0])) == pytest.approx((0.1500, 0.8500), abs=1e-4)
    assert float(low[0, 1]) == pytest.approx(0.963, abs=1e-3) and float(high[0, 1]) == 1.0


def test_an_area_is_the_share_of_pairs_in_order_and_scikit_learns_and_mann_and_whitneys():
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        ones, others = torch.randint(5, (40,), generator=rng), torch.randint(4, (30,), generator=rng)  # many ties
        pairs = [(a > b) + 0.5 * (a == b) for a in ones.tolist() for b in others.tolist()]
        found = auroc(ones, others)
        assert found == pytest.approx(sum(pairs) / len(pairs))
        assert found == pytest.approx(mannwhitneyu(ones.numpy(), others.numpy()).statistic / (40 * 30))
        truth = torch.cat([torch.ones(40), torch.zeros(30)])
        assert found == pytest.approx(roc_auc_score(truth.numpy(), torch.cat([ones, others]).numpy()))


def test_an_area_at_its_ends_and_of_nothing():
    up, down = torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])
    assert auroc(up, down) == 1 and auroc(down, up) == 0 and auroc_interval(up, down) == (1, 1)
    assert math.isnan(auroc(up, down[:0])) and math.isnan(auroc(up, torch.tensor([0.0, torch.nan])))
    with pytest.raises(WrongPrompt, match="two of either kind; there are 1 and 2"):
        auroc_interval(up[:1], down)


def test_the_interval_of_an_area_holds_the_truth_about_as_often_as_it_says():
    """Of normal scores one standard deviation apart the area is Φ(1/√2) = 0.760."""
    held = 0
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        low, high = auroc_interval(torch.randn(50, generator=draw) + 1, torch.randn(50, generator=draw))
        held += low < 0.7602 < high
    assert 0.90 <= held / 200 <= 0.99
