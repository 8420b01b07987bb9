"""P(IK), "I know": a small head that foretells whether the model will answer right, before it answers.

Kadavath et al. 2022 draw answers at temperature 1 and train a value head on whether they were right; the truth of P(IK) is
the share that is. Here the head is a logistic regression, or one hidden layer, on any site with one vector a prompt; the model
itself is left as it is. `through` says in which form the head sees the activation: as it is, or, for logits, as their
`spectrum`, in which no answer has a place of its own.

Such a head is a probe: it knows the kind of question that it was fitted on. Judge it on subjects and on relations that it has
not met; its calibration there may be poor where its order is good. And hold it against what needs no head: `spectrum` of one,
the model's own certainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.model.gather import gather
from patchclamp.probe.newton import logistic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchclamp.core.site import Site
    from patchclamp.model.model import Model

Known = Float[Tensor, " prompt"]
"""How often each prompt is answered right, between 0 and 1."""
FEWEST = 10
LARGEST = 10
STEPS, RATE = 400, 1e-2


@dataclass(frozen=True, eq=False)
class ValueHead:
    """Reads the chance that the model knows from activations of the site it was fitted at."""

    site: str
    centre: Float[Tensor, " d_model"]
    scale: Float[Tensor, " d_model"]
    inner: tuple[Float[Tensor, "hidden d_model"], Float[Tensor, " hidden"]] | None
    """The hidden layer and its biases; None for a logistic head."""
    weight: Float[Tensor, " feature"]
    bias: float
    through: Callable[[Tensor], Tensor] | None = None
    """What the head sees of an activation; None for the activation itself."""

    def __call__(self, rows: Float[Tensor, "prompt d_model"]) -> Float[Tensor, " prompt"]:
        return self._odds(rows).sigmoid()

    def of(self, model: Model, prompts: Sequence[str]) -> Float[Tensor, " prompt"]:
        """P(IK) of prompts."""
        return self(gather(model, self.site, prompts))

    def _odds(self, rows: Tensor) -> Tensor:
        x = ((rows if self.through is None else self.through(rows)) - self.centre) / self.scale
        if self.inner is not None:
            x = (x @ self.inner[0].T + self.inner[1]).relu()
        return x @ self.weight + self.bias


def spectrum(logits: Float[Tensor, "prompt vocab"], largest: int = LARGEST) -> Float[Tensor, "prompt rank"]:
    """The largest log-probabilities in falling order: how sure an answer is, whichever it is.

    >>> from patchclamp.probe.value_head import spectrum
    >>> spectrum(torch.tensor([[0.0, 2.0, 1.0]]), 2).exp()
    tensor([[0.6652, 0.2447]])
    """
    return logits.log_softmax(-1).topk(largest).values


def value_head(
    model: Model,
    prompts: Sequence[str],
    known: Known,
    site: str | Site,
    through: Callable[[Tensor], Tensor] | None = None,
    hidden: int = 0,
    ridge: float = 10.0,
    seed: int = 0,
) -> ValueHead:
    """Fit a head at a site, on how often the model answers each of these prompts right (`choices.knows`).

    >>> from patchclamp.probe.value_head import value_head
    >>> prompts = [f"{name} Holt works as a" for name in ("Mary", "Anna", "Ivan", "Leo", "Paul")] * 2
    >>> head = value_head(model, prompts, torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0] * 2), "blocks.2.out[pos=-1]")
    >>> bool(head.of(model, prompts[:1]) > 0.5)
    True
    """
    return fitted(gather(model, site, list(prompts)), known, str(site), through, hidden, ridge, seed)


def fitted(
    rows: Float[Tensor, "prompt d_model"],
    known: Known,
    site: str = "",
    through: Callable[[Tensor], Tensor] | None = None,
    hidden: int = 0,
    ridge: float = 10.0,
    seed: int = 0,
) -> ValueHead:
    """The same from activations that are at hand."""
    if rows.ndim != 2 or rows.shape[0] != len(known):
        raise ShapeMismatch(
            f"{site or 'rows'}: {list(rows.shape)} activations for {len(known)} prompts; a head reads one vector each."
        )
    if len(known) < FEWEST or float(known.max()) == float(known.min()):
        raise WrongPrompt(f"a head is fitted on {FEWEST} prompts at least, some of which are answered right and some not.")
    rows = rows if through is None else through(rows)
    centre, spread = rows.mean(0), rows.std(0)
    scale = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
    x = (rows - centre) / scale
    if not hidden:
        weight, bias = logistic(x, known, ridge)
        return ValueHead(site, centre, scale, None, weight, bias, through)
    return ValueHead(site, centre, scale, *_layered(x, known, hidden, ridge, seed), through)


def _layered(x: Tensor, known: Known, hidden: int, ridge: float, seed: int) -> tuple[tuple[Tensor, Tensor], Tensor, float]:
    """A hidden layer of rectified units, trained all rows at once."""
    generator = torch.Generator().manual_seed(seed)
    first = (torch.randn(hidden, x.shape[1], generator=generator) / x.shape[1] ** 0.5).requires_grad_()
    shift = torch.zeros(hidden, requires_grad=True)
    second = (torch.randn(hidden, generator=generator) / hidden**0.5).requires_grad_()
    last = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([first, shift, second, last], lr=RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            odds = (x @ first.T + shift).relu() @ second + last
            loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, known)
            loss = loss + ridge * (first.square().sum() + second.square().sum()) / (2 * len(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (first.detach(), shift.detach()), second.detach(), float(last.detach())
