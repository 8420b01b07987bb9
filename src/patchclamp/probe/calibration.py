"""Whether a probability means what it says: calibration errors, Brier score, AUROC, temperature, and the reliability diagram.

A forecast is a probability and whether the thing was so. Two questions are asked of many of them. *Calibrated*: of what was
given 70 %, are 70 % so? Bins answer it, of equal width (ECE as usually meant) or of equal count (Kadavath et al. 2022, who
plot and average over such bins). *Discriminating*: are true things given more than false ones? The AUROC answers it, blind to
the scale. The Brier score is a proper score and mixes both.

`temperature` fits one number that the log-odds are divided by (Guo et al. 2017): it can mend a scale that is too bold or too
shy throughout, and changes no order, so no AUROC. Fit it on other forecasts than those it is judged by.

A calibration error of finite data is never zero: with n forecasts in b bins a perfect forecaster has about 0.4 √(b / n) (half
as much where most forecasts are sure). `floor` says how much, by drawing outcomes from the forecasts themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from patchclamp.core import uncertain
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.picture import Lines, Series

Forecast = Float[Tensor, " forecast"]
"""Probabilities."""
Outcome = Bool[Tensor, " forecast"]
"""Whether it was so."""
BINS = 10
HOTTEST = 100.0
"""Temperatures are sought between its inverse and itself."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Forecasts in bins: what was said, what was so, and how sure that is."""

    said: Float[Tensor, " bin"]
    """Mean forecast of each bin that holds any."""
    was: Float[Tensor, " bin"]
    """Share of them that was so."""
    count: Float[Tensor, " bin"]
    low: Float[Tensor, " bin"]
    """Lower end of Wilson's 95 % interval of the share."""
    high: Float[Tensor, " bin"]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of said and was, each forecast counting once."""
        return float(((self.said - self.was).abs() * self.count).sum() / self.count.sum())

    @property
    def rms(self) -> float:
        """The same as a root mean square, which minds large distances more."""
        return float((((self.said - self.was).square() * self.count).sum() / self.count.sum()).sqrt())

    def picture(self, title: str = "Reliability") -> Lines:
        """What was so against what was said, with its interval; on the other line a calibrated forecaster would be."""
        x = self.said.numpy()
        band = Series("was so", self.was.numpy(), self.low.numpy(), self.high.numpy())
        note = f"{int(self.count.sum())} forecasts in {len(x)} bins; ECE {self.error:.3f}, RMS {self.rms:.3f}."
        return Lines(x, (band, Series("calibrated", x)), "forecast", "share that was so", "probability", title=title, note=note)

    def show(self, title: str = "Reliability") -> None:
        """Draw the reliability diagram in the terminal or notebook."""
        self.picture(title).show()

    def html(self) -> str:
        """The diagram as one self-contained HTML page."""
        return self.picture().html()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()

    def __rich__(self):
        return self.picture().__rich__()


def reliability(forecast: Forecast, outcome: Outcome, bins: int = BINS, equal: str = "count") -> Reliability:
    """Forecasts sorted into bins of `equal` "count" or "width". Equal forecasts are never parted.

    >>> from patchclamp.probe.calibration import reliability
    >>> found = reliability(torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([False, False, True, False]), bins=2)
    >>> found.said, found.was, f"{found.error:.2f}"
    (tensor([0.1500, 0.8500]), tensor([0.0000, 0.5000]), '0.25')
    """
    p, y = _checked(forecast, outcome)
    if equal == "width":
        place = (p * bins).floor().clamp(max=bins - 1).long()
    elif equal == "count":
        place = _by_count(p, bins)
    else:
        raise ValueError(f'bins are of equal "count" or "width", not "{equal}".')
    count = torch.bincount(place, minlength=bins).double()
    kept = count > 0
    said, was = (torch.bincount(place, v, minlength=bins)[kept] / count[kept] for v in (p, y))
    low, high = uncertain.wilson(was, count[kept])
    return Reliability(*(v.float() for v in (said, was, count[kept], low, high)))


def brier(forecast: Forecast, outcome: Outcome) -> float:
    """Mean squared distance of forecast and outcome."""
    p, y = _checked(forecast, outcome)
    return float((p - y).square().mean())


def nll(forecast: Forecast, outcome: Outcome) -> float:
    """Mean surprisal of the outcomes, in nats."""
    p, y = _checked(forecast, outcome)
    return float(torch.nn.functional.binary_cross_entropy(p.clamp(1e-12, 1 - 1e-12), y))


@dataclass(frozen=True)
class Ranked:
    """An area under the ROC curve, and where it lies for all forecasts there are."""

    value: float
    low: float
    high: float


def auroc(forecast: Forecast, outcome: Outcome, level: float = 0.95) -> Ranked:
    """How often something that was so was given more than something that was not; equal forecasts count half.

    The area with its interval, of forecasts and outcomes; `core.uncertain` has both for any two heaps of numbers.

    >>> from patchclamp.probe.calibration import auroc
    >>> auroc(torch.tensor([0.9, 0.8, 0.3, 0.4, 0.2]), torch.tensor([True, True, True, False, False])).value
    0.8333333333333334
    """
    p, y = _checked(forecast, outcome)
    so, not_so = p[y > 0.5], p[y < 0.5]
    if min(len(so), len(not_so)) < 2:
        raise WrongPrompt(f"{len(so)} forecasts were so and {len(not_so)} were not; an area needs two of either kind.")
    return Ranked(uncertain.auroc(so, not_so), *uncertain.auroc_interval(so, not_so, level))


def temperature(forecast: Forecast, outcome: Outcome) -> float:
    """The number to divide log-odds by so that these outcomes surprise least; above 1 the forecasts were too bold."""
    p, y = _checked(forecast, outcome)
    odds = p.clamp(1e-7, 1 - 1e-7).logit()

    def surprise(logarithm: float) -> float:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(odds / math.exp(logarithm), y))

    wide = float(torch.tensor(HOTTEST).log())
    found: Any = minimize_scalar(surprise, bounds=(-wide, wide), method="bounded")
    return float(math.exp(found.x))


def tempered(forecast: Forecast, by: float) -> Forecast:
    """The forecasts with their log-odds divided by a temperature.

    >>> from patchclamp.probe.calibration import tempered
    >>> tempered(torch.tensor([0.5, 0.9]), 2.0)
    tensor([0.5000, 0.7500])
    """
    return (forecast.double().clamp(1e-7, 1 - 1e-7).logit() / by).sigmoid().to(forecast.dtype)


def floor(forecast: Forecast, bins: int = BINS, equal: str = "count", draws: int = 200, seed: int = 0) -> float:
    """The calibration error that these forecasts would have on average if they were exactly right."""
    generator = torch.Generator().manual_seed(seed)
    draw = (torch.rand(draws, len(forecast), generator=generator) < forecast).unbind()
    return sum(reliability(forecast, outcome, bins, equal).error for outcome in draw) / draws


def interval(
    figure: Callable[[Forecast, Outcome], float],
    forecast: Forecast,
    outcome: Outcome,
    level: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """Where a figure such as `brier` lies for all forecasts there are: bootstrap percentiles over forecasts.

    Not for calibration errors, which drawing with replacement makes larger; compare those with their `floor`.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(forecast), (draws, len(forecast)), generator=generator)
    drawn = torch.tensor([figure(forecast[pick], outcome[pick]) for pick in picks], dtype=torch.float64)
    low, high = torch.quantile(drawn, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high


def _by_count(p: Tensor, bins: int) -> Tensor:
    """The bin of each forecast; one whose equal lies in an earlier bin is put there too."""
    _, which, count = p.unique(return_inverse=True, return_counts=True)
    before = count.cumsum(0) - count
    return (before * bins // len(p))[which]


def _checked(forecast: Tensor, outcome: Tensor) -> tuple[Tensor, Tensor]:
    if forecast.shape != outcome.shape or forecast.ndim != 1:
        raise ShapeMismatch(
            f"forecasts are {list(forecast.shape)} and outcomes {list(outcome.shape)}; both are lists of one length."
        )
    if not len(forecast) or not bool(((forecast >= 0) & (forecast <= 1)).all()):
        raise WrongPrompt("forecasts are probabilities, between 0 and 1, and there is at least one.")
    return forecast.double(), outcome.double()
