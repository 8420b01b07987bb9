"""Anomalies: prompts on which a model's answer comes about in an unusual way, told by the trajectory of a lens's readings.

Belrose et al. 2023 find prompt injections so: an outlier detector sees the trajectories of ordinary prompts only, and is then
asked which of others, ordinary and injected, are odd. Detectors are scikit-learn's: the isolation forest (Liu et al. 2008) and
the local outlier factor (Breunig et al. 2000).

Whether the layers are needed at all is said by the baseline: the same detector on the last row, the model's own answer. What
is found to be odd is odd; that it is an attack is not known. An injection that leaves the computation as it is cannot be found
this way, nor does it do anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.uncertain import auroc
from patchclamp.lenses.translator import Translator
from patchclamp.model.ending import Ending, Read
from patchclamp.model.model import Model

Scores = Callable[[np.ndarray], np.ndarray]
"""How odd each row is; larger is odder."""
Detector = Callable[[np.ndarray, int], Scores]
"""Fitted on ordinary rows, with a seed."""
FEATURES = ("of the answer", "of its own top", "entropy", "KL")
FEWEST = 20
"""Ordinary prompts below which no detector is fitted."""


def trajectory(
    model: Model, prompts: Sequence[Any], through: Translator | None = None, options: Sequence[str | int] = (), batch: int = 64
) -> Grid:
    """What a lens reads at the last token, layer by layer: Grid(prompt, layer, reading). The last row is the output.

    With `options` the readings are the log-probabilities of those tokens, as in the paper, where all prompts offer the same
    answers. Without, they are the log-probability of the token that the output puts first and of the reading's own first
    token, the reading's entropy, and KL(output || reading), in nats.

    >>> from patchclamp.lenses.anomaly import trajectory
    >>> trajectory(model, [clean, corrupt], options=[" Mary", " John"]).shape
    {'prompt': 2, 'layer': 5, 'reading': 2}
    """
    ids = [model.token(o) for o in options]
    found = []
    for n in progress(range(0, len(prompts), batch), label="trajectories"):
        passed = Ending.of(model, model.inputs(list(prompts[n : n + batch])))
        at = passed.tokens.sum(1).cumsum(0) - 1
        truth = passed.logits[at].float().log_softmax(-1)
        rows = []
        for layer, stream in enumerate(passed.streams):
            here = stream[at] if through is None else through(f"blocks.{layer}.in", stream[at])
            with torch.no_grad():
                rows.append(_features(passed.read(here).float().log_softmax(-1), truth, ids))
        found.append(torch.stack([*rows, _features(truth, truth, ids)], 1))
    if not found:
        raise WrongPrompt("there are no prompts to follow.")
    layers = [*(f"blocks.{i}.in" for i in range(model.layers)), "output"]
    labels = {"layer": layers, "reading": [str(o) for o in options] or list(FEATURES)}
    return Grid(torch.cat(found).cpu(), ("prompt", "layer", "reading"), labels, unit="nats", title="Trajectories")


def _features(said: Read, truth: Read, ids: list[int]) -> Float[Tensor, "prompt reading"]:
    if ids:
        return said[:, ids]
    p = said.exp()
    kl = torch.where(truth.isinf(), 0, truth.exp() * (truth - said)).sum(-1)
    answer = said.gather(-1, truth.argmax(-1, keepdim=True))[:, 0]
    return torch.stack([answer, said.amax(-1), torch.special.entr(p).sum(-1), kl], -1)


def isolation_forest(ordinary: np.ndarray, seed: int = 0) -> Scores:
    """How soon random cuts part a row from the others."""
    from sklearn.ensemble import IsolationForest

    fitted = IsolationForest(random_state=seed).fit(ordinary)
    return lambda rows: -fitted.score_samples(rows)


def outlier_factor(ordinary: np.ndarray, seed: int = 0) -> Scores:
    """How much sparser it is around a row than around its neighbours."""
    from sklearn.neighbors import LocalOutlierFactor

    fitted = LocalOutlierFactor(n_neighbors=min(20, len(ordinary) - 1), novelty=True).fit(ordinary)
    return lambda rows: -fitted.score_samples(rows)


DETECTORS: Mapping[str, Detector] = {"local outlier factor": outlier_factor, "isolation forest": isolation_forest}


def detect(
    ordinary: Grid, suspect: Grid, detectors: Mapping[str, Detector] = DETECTORS, splits: int = 10, draws: int = 100
) -> Grid:
    """How well odd trajectories are told from ordinary ones: Grid(detector, features) of AUROC, mean over random splits.

    Half of the ordinary prompts fit the detector, the other half and the suspects are judged. `features` are the whole
    trajectory and, as the baseline, its last row, the output alone. Details `low` and `high` bound 95 % of what is found
    when prompts and splits are drawn again.

    >>> from patchclamp.lenses.anomaly import detect
    >>> from patchclamp.core.grid import Grid
    >>> some = torch.randn(2, 60, 3, 2, generator=torch.Generator().manual_seed(0))
    >>> axes = ("prompt", "layer", "reading")
    >>> found = detect(Grid(some[0], axes), Grid(some[1] + 3, axes), splits=2)
    >>> found.axes, bool((found.values > 0.95).all())
    (('detector', 'features'), True)
    """
    if ordinary.axes != suspect.axes or ordinary.values.shape[1:] != suspect.values.shape[1:]:
        raise ShapeMismatch(
            f"trajectories of the same places and readings are compared; these are {ordinary.shape} and {suspect.shape}."
        )
    if len(ordinary.values) < FEWEST or not len(suspect.values):
        raise WrongPrompt(f"{FEWEST} ordinary prompts at least, and some others, are needed to judge by; "
                          f"there are {len(ordinary.values)} and {len(suspect.values)}.")  # fmt: skip
    parts = {
        "trajectory": (ordinary.values.flatten(1).numpy(), suspect.values.flatten(1).numpy()),
        "output": (ordinary.values[:, -1].numpy(), suspect.values[:, -1].numpy()),
    }
    found = torch.tensor([[_judged(*pair, detector, splits, draws) for pair in parts.values()]
                          for detector in detectors.values()])  # fmt: skip
    return Grid(found[..., 0], ("detector", "features"), {"detector": list(detectors), "features": list(parts)}, unit="AUROC",
                title="Odd prompts told from ordinary ones", scale="sequential",
                details={"low": found[..., 1], "high": found[..., 2]}, baseline={"chance": 0.5})  # fmt: skip


def _judged(
    ordinary: np.ndarray, suspect: np.ndarray, detector: Detector, splits: int, draws: int
) -> tuple[float, float, float]:
    """AUROC, its mean over splits, and where 95 % of it lies."""
    values, again = [], []
    for seed in range(splits):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(ordinary))
        fit, held = ordinary[order[: len(order) // 2]], ordinary[order[len(order) // 2 :]]
        centre, spread = fit.mean(0), fit.std(0)
        spread = np.where(spread > 1e-6, spread, 1.0)  # what never varies (the output's distance from itself) says nothing
        scores = detector((fit - centre) / spread, seed)
        calm, odd = (scores((rows - centre) / spread) for rows in (held, suspect))
        values.append(_area(calm, odd))
        again += [_area(rng.choice(calm, len(calm)), rng.choice(odd, len(odd))) for _ in range(draws)]
    low, high = np.quantile(again, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def _area(calm: np.ndarray, odd: np.ndarray) -> float:
    return auroc(torch.from_numpy(odd), torch.from_numpy(calm))
