"""Calibration figures: by hand, by a naive loop, by scikit-learn where it has them, and their intervals by counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.picture import Lines
from patchclamp.probe import calibration as c


@pytest.fixture
def forecasts():
    """Bold forecasts: what is given p comes true with p's log-odds halved."""
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(4000, generator=draw)
    so = torch.rand(4000, generator=draw) < (p.logit() / 2).sigmoid()
    return p, so


def test_bins_of_equal_width_by_hand():
    p, so = torch.tensor([0.05, 0.15, 0.19, 0.95]), torch.tensor([False, True, False, True])
    found = c.reliability(p, so, bins=10, equal="width")
    assert torch.allclose(found.said, torch.tensor([0.05, 0.17, 0.95]))
    assert found.was.tolist() == [0.0, 0.5, 1.0]
    assert found.count.tolist() == [1, 2, 1]
    assert found.error == pytest.approx((0.05 + 2 * 0.33 + 0.05) / 4)
    assert found.rms == pytest.approx(((0.05**2 + 2 * 0.33**2 + 0.05**2) / 4) ** 0.5)


def test_a_forecast_of_one_is_in_the_last_bin():
    assert c.reliability(torch.ones(3), torch.ones(3) > 0, equal="width").error == 0


def test_bins_of_equal_count_hold_as_many_each_and_never_part_equals(forecasts):
    p, so = forecasts
    assert c.reliability(p, so).count.tolist() == [400] * 10
    tied = torch.cat([torch.full((55,), 0.3), torch.linspace(0.4, 0.9, 45)])
    found = c.reliability(tied, torch.rand(100) < 0.5)
    assert found.count[0] == 55
    assert found.count.sum() == 100


def test_both_errors_equal_a_naive_loop(forecasts):
    p, so = forecasts
    error = 0.0
    for part in np.array_split(np.argsort(p.numpy(), kind="stable"), 10):
        error += len(part) / len(p) * abs(p.numpy()[part].mean() - so.numpy()[part].mean())
    assert c.reliability(p, so).error == pytest.approx(error, abs=1e-6)
    error = 0.0
    for low in range(10):
        here = (p >= low / 10) & (p < (low + 1) / 10)
        error += float(here.float().mean() * (p[here].mean() - so[here].float().mean()).abs())
    assert c.reliability(p, so, equal="width").error == pytest.approx(error, abs=1e-6)


def test_scikit_learn_agrees(forecasts):
    calibration = pytest.importorskip("sklearn.calibration")
    metrics = pytest.importorskip("sklearn.metrics")
    p, so = forecasts
    for equal, strategy in (("width", "uniform"), ("count", "quantile")):
        was, said = calibration.calibration_curve(so.numpy(), p.numpy(), n_bins=10, strategy=strategy)
        found = c.reliability(p, so, equal=equal)
        assert np.allclose(found.was, was, atol=0.006)  # its quantiles fall between forecasts, ours on them
        assert np.allclose(found.said, said, atol=0.006)
    assert c.brier(p, so) == pytest.approx(metrics.brier_score_loss(so.numpy(), p.numpy()), abs=1e-6)
    assert c.nll(p, so) == pytest.approx(metrics.log_loss(so.numpy(), p.double().numpy()), abs=1e-6)
    rounded = p.round(decimals=1)
    for forecast in (p, rounded):
        assert c.auroc(forecast, so).value == pytest.approx(metrics.roc_auc_score(so.numpy(), forecast.numpy()), abs=1e-9)


def test_an_area_by_hand_and_at_its_ends():
    so = torch.tensor([True, True, False, False])
    assert c.auroc(torch.tensor([0.9, 0.5, 0.5, 0.1]), so).value == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert c.auroc(torch.tensor([0.9, 0.8, 0.2, 0.1]), so).value == 1
    with pytest.raises(WrongPrompt, match="two of either kind"):
        c.auroc(torch.rand(4), torch.ones(4) > 0)


def test_temperature_finds_how_bold_the_forecasts_were_and_changes_no_order(forecasts):
    p, so = forecasts
    by = c.temperature(p[::2], so[::2])
    assert by == pytest.approx(2, abs=0.15)
    mended = c.tempered(p[1::2], by)
    assert c.reliability(mended, so[1::2]).error < 1.5 * c.floor(mended) < 0.08 < c.reliability(p[1::2], so[1::2]).error
    assert c.auroc(mended, so[1::2]).value == c.auroc(p[1::2], so[1::2]).value


def test_temperature_is_where_the_surprise_is_least(forecasts):
    p, so = forecasts
    by = c.temperature(p, so)
    least = c.nll(c.tempered(p, by), so)
    assert all(least <= c.nll(c.tempered(p, by * factor), so) for factor in (0.9, 1.1))


def test_the_floor_is_the_error_of_a_perfect_forecaster():
    draw = torch.Generator().manual_seed(1)
    p = torch.rand(300, generator=draw)
    errors = [c.reliability(p, torch.rand(300, generator=draw) < p).error for _ in range(100)]
    assert c.floor(p) == pytest.approx(sum(errors) / 100, rel=0.15)


def test_a_bootstrap_interval_is_that_of_the_mean(forecasts):
    p, so = forecasts
    low, high = c.interval(c.brier, p, so)
    each = (p - so.float()).square()
    half = 1.96 * float(each.std()) / len(p) ** 0.5
    assert (low, high) == pytest.approx((float(each.mean()) - half, float(each.mean()) + half), abs=0.002)


def test_the_diagram_shows_itself(forecasts):
    found = c.reliability(*forecasts)
    picture = found.picture()
    assert isinstance(picture, Lines)
    assert [series.name for series in picture.series] == ["was so", "calibrated"]
    assert "ECE" in found.html() and "<svg" in found.html()
    assert found._repr_html_()
    found.show()


def test_what_is_no_probability_is_refused():
    with pytest.raises(WrongPrompt, match="between 0 and 1"):
        c.brier(torch.tensor([1.2]), torch.tensor([True]))
    with pytest.raises(ShapeMismatch, match="lists of one length"):
        c.brier(torch.rand(3), torch.tensor([True]))
    with pytest.raises(ValueError, match='"count" or "width"'):
        c.reliability(torch.rand(3), torch.rand(3) > 0.5, equal="size")
