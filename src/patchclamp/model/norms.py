"""Norms read by asking them: what a norm module does to two inputs says its weight, its bias and whether it centres.

Families disagree on conventions (a weight w or 1 + w, no weight at all, in float32 or not). Fed +x and -x, with x of zero
mean and known length, a norm gives W u + b and -W u + b. Nothing need be known about how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchclamp.core.axes import Numbers


@dataclass(frozen=True, eq=False)
class Norm:
    """y = weight * (x - mean) / length + bias, the mean only where it centres. Weights in float32."""

    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centres: bool

    def centred(self, x: Numbers) -> Numbers:
        """x without its mean, where the norm takes it away."""
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def scale(self, x: Numbers, y: Numbers) -> Float[Tensor, "*rows 1"]:
        """The number (..., 1) by which this input was divided away, read from what went in and came out."""
        u = self.weight * self.centred(x.float())
        return ((y.float() - self.bias) * u).sum(-1, keepdim=True) / (u * u).sum(-1, keepdim=True).clamp(min=1e-30)

    def carry(self, part: Numbers, scale: Float[Tensor, "*#rows 1"]) -> Numbers:
        """What a part of the norm's input becomes, its scale held: the parts of a sum add up to the output without the bias."""
        return scale * self.weight * self.centred(part)

    def pull_back(self, direction: Float[Tensor, "*#rows d_model"], scale: Float[Tensor, "*rows 1"]) -> Numbers:
        """The direction before the norm that reads the same as `direction` after it, its scale held."""
        return scale * self.centred(self.weight * direction)


def normed(module: nn.Module, x: Numbers) -> Numbers:
    """What a norm module makes of x; of several results (an integer norm returns its scale too), the first."""
    made = module.forward(x)
    return made[0] if isinstance(made, tuple) else made


def read_norm(module: nn.Module, width: int) -> Norm | None:
    """The norm a module is, or None where it is not one (it has further inputs, or does not do what norms do)."""
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    dtype = parameter.dtype if parameter is not None else torch.float32
    pattern = torch.ones(width, device=device)
    pattern[1::2] = -1
    if width % 2 and width > 2:
        pattern[-3:] = torch.tensor([1.0, 1.0, -2.0], device=device)  # zero mean at odd widths too
    unit = pattern / pattern.square().mean().sqrt()
    try:
        plus, minus, moved = (
            normed(module, (100 * x).to(dtype)[None, None])[0, 0].float() for x in (pattern, -pattern, pattern + 3)
        )
    except Exception:
        return None
    weight, bias = (plus - minus) / (2 * unit), (plus + minus) / 2
    found = Norm(weight.detach(), bias.detach(), bool((moved - plus).abs().max() < 1e-2 * plus.abs().max()))
    return found if _explains(found, module, width, dtype) else None


def _explains(norm: Norm, module: nn.Module, width: int, dtype: torch.dtype) -> bool:
    """Whether a random input comes out as this norm says."""
    x = 10 * torch.randn(width, generator=torch.Generator().manual_seed(0)).to(norm.weight.device)
    x = x.to(dtype).float()
    u = norm.centred(x)
    said = norm.weight * u / u.square().mean().sqrt() + norm.bias
    seen = normed(module, x.to(dtype)[None, None])[0, 0].float()
    return bool((said - seen).abs().max() <= (1e-3 if dtype == torch.float32 else 5e-2) * seen.abs().max().clamp(min=1e-6))
