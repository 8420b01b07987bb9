"""Logistic regression by Newton's method: a ridge, few steps, no step size. Belief probes and value heads are fitted with it.

The ridge is on the sum of losses, as in scikit-learn's `LogisticRegression(C=1 / ridge)`, with which it agrees; the intercept
has none. Every step solves a system as wide as the activations, or as there are rows, if those are fewer: the weight is a sum
of rows, so the search stays among these. Not meant for thousands of both.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

STEPS, TOLERANCE = 50, 1e-9


def logistic(
    rows: Float[Tensor, "row d_model"],
    target: Float[Tensor, " row"],
    ridge: float = 1.0,
    intercept: bool = True,
) -> tuple[Float[Tensor, " d_model"], float]:
    """Weight and intercept. The target is a probability: 0 or 1, or how often something was so.

    >>> from patchclamp.probe.newton import logistic
    >>> weight, bias = logistic(torch.tensor([[-1.0], [1.0], [3.0]]), torch.tensor([0.0, 1.0, 1.0]))
    >>> bool(weight > 0)
    True
    """
    x, span = rows.double(), None
    if x.shape[0] < x.shape[1]:
        span, inside = torch.linalg.qr(x.T)
        x = inside.T
    width = x.shape[1]
    if intercept:
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    y, penalty = target.double(), torch.full((x.shape[1],), float(ridge), dtype=torch.float64)
    penalty[width:] = 1e-9  # a perfectly separated intercept would run away
    weight = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(STEPS):
        p = (x @ weight).sigmoid()
        slope = x.T @ (p - y) + penalty * weight
        bend = (x.T * (p * (1 - p)).clamp(min=1e-12)) @ x + penalty.diag()
        step = torch.linalg.solve(bend, slope)
        weight = weight - _shortened(x, y, penalty, weight, step) * step
        if step.abs().max() < TOLERANCE * (1 + weight.abs().max()):
            break
    normal = weight[:width] if span is None else span @ weight[:width]
    return normal.float(), float(weight[width:].sum())


def _shortened(x: Tensor, y: Tensor, penalty: Tensor, weight: Tensor, step: Tensor) -> float:
    """What part of Newton's step to take: all of it, or half as often as the loss would not fall."""

    def loss(w: Tensor) -> Tensor:
        said = x @ w
        return (torch.nn.functional.softplus(said) - y * said).sum() + (penalty * w.square()).sum() / 2

    now, part = loss(weight), 1.0
    while part > 1e-6 and loss(weight - part * step) > now + 1e-12 * now.abs():
        part /= 2
    return part
