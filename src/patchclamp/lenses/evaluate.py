"""What a lens is worth: layer by layer its distance from the output, its surprise at the text, and its bias.

Belrose et al. 2023 report all three in bits. Bias is what is wrong on average: the divergence of the readings' mean over all
tokens from the output's mean. A lens may be far from each single answer because the layer does not know it yet; a lens with a
bias is wrong about how often words are said at all, and that is the lens's fault.

What it does not know: whether the model uses what the lens reads (`causal_basis`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.lenses.tuning import IMPOSSIBLE, PIECE, Texts, grouped
from patchclamp.model.ending import Ending, Read
from patchclamp.model.model import Model


def evaluate(lenses: Mapping[str, Any], model: Model, texts: Texts, batch: int = 64) -> Grid:
    """KL(output || reading) in bits for every lens and every block's input, over all tokens of some texts.

    Details hold the cross-entropy against the token that comes next, its perplexity, the bias (all in bits but perplexity), and
    the readings' entropy; the baseline is what the model itself reaches. `Grid.each` has every prompt's part in the mean, so
    intervals are over prompts. With strings the baseline says how many bits per byte one bit per token is.
    """
    texts = list(texts)
    sums = [[_Sums() for _ in range(model.layers)] for _ in lenses]
    own = _Sums()
    groups = list(grouped(iter(texts), batch))
    for some in progress(groups, label=f"evaluating on {model.name}"):
        passed = Ending.of(model, model.inputs(some))
        _add(passed, list(lenses.values()), sums, own, _following(passed))
    if not own.tokens:
        raise WrongPrompt("a lens is evaluated on text, and there is none.")
    kl = torch.stack([torch.stack([layer.kl_mean for layer in row]) for row in sums])
    ce = torch.stack([torch.stack([layer.ce_mean for layer in row]) for row in sums])
    bias = torch.stack([torch.stack([_divergence(own.marginal, layer.marginal) for layer in row]) for row in sums])
    entropy = torch.stack([torch.stack([layer.entropy_mean for layer in row]) for row in sums])
    each = torch.stack([torch.stack([torch.tensor(layer.kl_each) for layer in row]) for row in sums])
    parts = each.movedim(-1, 0) * each.shape[-1] / own.tokens
    baseline = {"cross-entropy": float(own.ce_mean), "perplexity": 2 ** float(own.ce_mean), "entropy": float(own.entropy_mean)}
    if all(isinstance(t, str) for t in texts):
        baseline["bits per byte of one bit per token"] = own.tokens / sum(len(t.encode()) for t in texts)
    labels = {"lens": list(lenses), "layer": [f"blocks.{i}.in" for i in range(model.layers)]}
    details = {"cross-entropy": ce, "perplexity": 2**ce, "bias": bias, "entropy": entropy}
    return Grid(kl, ("lens", "layer"), labels, unit="bits", title=f"Distance from the output of {model.name}",
                scale="sequential", details=details, baseline=baseline, each=parts)  # fmt: skip


@dataclass
class _Sums:
    """Running sums over tokens, of one lens at one layer, or of the output itself."""

    tokens: int = 0
    followed: int = 0
    kl: float = 0.0
    ce: float = 0.0
    entropy: float = 0.0
    mass: Any = 0.0

    def __post_init__(self) -> None:
        self.kl_each: list[float] = []

    @property
    def kl_mean(self) -> Tensor:
        return torch.tensor(self.kl / self.tokens / math.log(2))

    @property
    def ce_mean(self) -> Tensor:
        return torch.tensor(self.ce / self.followed / math.log(2) if self.followed else float("nan"))

    @property
    def entropy_mean(self) -> Tensor:
        return torch.tensor(self.entropy / self.tokens / math.log(2))

    @property
    def marginal(self) -> Float[Tensor, " vocab"]:
        """How often each token is said, on average."""
        return self.mass / self.tokens


def _following(passed: Ending) -> Tensor:
    """For every token the one after it in its prompt; -1 for the last."""
    tokens, mask = passed.end.inputs.tokens, passed.tokens
    after = torch.full_like(tokens, -1)
    after[:, :-1] = torch.where(mask[:, 1:], tokens[:, 1:], -1)
    return after[mask]


@torch.no_grad()
def _add(passed: Ending, lenses: list, sums: list[list[_Sums]], own: _Sums, after: Tensor) -> None:
    """One batch, some tokens at a time."""
    prompts = passed.tokens.nonzero()[:, 0]
    size = max((PIECE if passed.logits.device.type == "cpu" else 100 * PIECE) // passed.logits.shape[-1], 1)
    kls = torch.zeros(len(lenses), len(passed.streams), int(prompts[-1]) + 1, dtype=torch.float64)
    for n in range(0, len(after), size):
        some = slice(n, n + size)
        truth = _log(passed.logits[some])
        _count(own, truth, truth, after[some])
        for i, lens in enumerate(lenses):
            for layer, stream in enumerate(passed.streams):
                if stream.shape[-1] != lens.bias.shape[-1] or len(passed.streams) != len(lens.bias):
                    raise ShapeMismatch(
                        f"this lens was trained on {len(lens.bias)} blocks of width {lens.bias.shape[-1]}; "
                        f"{passed.end.model.name} has {len(passed.streams)} of width {stream.shape[-1]}."
                    )
                here = lens.translated(layer, stream[some].float()).to(stream.dtype)
                kl = _count(sums[i][layer], truth, _log(passed.read(here)), after[some])
                kls[i, layer].index_add_(0, prompts[some].cpu(), kl.double().cpu())
    for i, row in enumerate(sums):
        for layer, one in enumerate(row):
            one.kl_each += (kls[i, layer] / math.log(2)).tolist()


def _log(logits: Read) -> Read:
    return logits.float().log_softmax(-1).clamp_(min=IMPOSSIBLE)


def _count(sums: _Sums, truth: Read, said: Read, after: Tensor) -> Float[Tensor, " token"]:
    """Add some tokens; their divergences."""
    p, q = truth.exp(), said.exp()
    kl = torch.linalg.vecdot(p, truth - said).clamp_(min=0)
    known = after >= 0
    sums.tokens += len(after)
    sums.followed += int(known.sum())
    sums.kl += float(kl.double().sum())
    sums.ce -= float(said[known].gather(-1, after[known][:, None]).double().sum())
    sums.entropy -= float(torch.linalg.vecdot(q, said).double().sum())
    sums.mass = sums.mass + q.double().sum(0)
    return kl


def _divergence(p: Float[Tensor, " vocab"], q: Float[Tensor, " vocab"]) -> Tensor:
    """KL(p || q) in bits, of two distributions."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q.clamp(min=1e-300))).sum().clamp(min=0).float() / math.log(2)
