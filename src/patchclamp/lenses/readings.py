"""Readings: what some logits say beside those of the output, token by token, each in one look.

A vocabulary is wide, and every number asked for is a sum over all of it: what a reading costs is moving logits through memory.
So a few rows at a time, as many as stay in the processor's cache, are taken through all sums before the next ones are fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

CACHED, HELD = 1 << 18, 1 << 25
"""How many logits are looked at together: on a processor a megabyte of them, elsewhere what a kernel is worth calling for."""
BLOCK = 64
"""The top token is looked for in blocks: a maximum is fast, its place is not."""

Rows = Float[Tensor, "row vocab"]
PerRow = Float[Tensor, " row"]


@dataclass(frozen=True, eq=False)
class Output:
    """What the model put out, against which readings are held.

    >>> from patchclamp.lenses.readings import Output
    >>> logits = model.run(clean).logits
    >>> found = Output(logits).read(logits / 2)
    >>> sorted(found), found["rank"].unique()
    (['KL', 'entropy', 'p(output)', 'probability', 'rank', 'token'], tensor([0.]))
    """

    logits: Float[Tensor, "*cells vocab"]

    @cached_property
    def rows(self) -> Rows:
        """One row a token."""
        return self.logits.detach().flatten(0, -2)

    @cached_property
    def first(self) -> Shaped[Tensor, "row 1"]:
        """What the output puts first."""
        return self.rows.argmax(-1, keepdim=True)

    @property
    def step(self) -> int:
        """How many rows are looked at together."""
        return max((CACHED if self.rows.device.type == "cpu" else HELD) // self.rows.shape[-1], 1)

    def read(self, said: Float[Tensor, "*cells vocab"]) -> dict[str, Tensor]:
        """Of a reading of the same shape, cell by cell: token and probability of its top, probability and rank of what the
        output puts first, entropy in nats, and KL(output || reading) in nats."""
        cells, rows = said.shape[:-1], said.detach().flatten(0, -2)
        spare = torch.empty(3, min(self.step, len(rows)), rows.shape[-1], device=rows.device)
        found: dict[str, list[Tensor]] = {}
        for n in range(0, len(rows), self.step):
            part = slice(n, n + self.step)
            for name, value in _look(rows[part].float(), self.rows[part].float(), self.first[part], spare).items():
                found.setdefault(name, []).append(value)
        return {name: torch.cat(values).reshape(cells) for name, values in found.items()}


def _look(said: Rows, truth: Rows, first: Shaped[Tensor, "row 1"], spare: Float[Tensor, "three rows vocab"]) -> dict:
    """All numbers of a few rows. `spare` is room to work in: nothing of the width of the vocabulary is allocated."""
    x, y, work = spare[:, : len(said)]
    token, peak = _top(said)
    torch.sub(said, peak, out=x)
    torch.exp(x, out=y)
    total = y.sum(-1)
    torch.mul(x, y, out=y)
    entropy = total.log() - y.sum(-1) / total
    torch.sub(truth, truth.gather(-1, first), out=y)
    torch.sub(y, x, out=x)
    y.exp_()
    whole = y.sum(-1)
    torch.mul(x, y, out=work)
    divergence = work.sum(-1) / whole + (total.log() - whole.log())
    answer = said.gather(-1, first)
    torch.gt(said, answer, out=work)
    found = {"token": token, "probability": 1 / total, "p(output)": (answer - peak).exp()[:, 0] / total,
             "KL": divergence.clamp(min=0), "entropy": entropy, "rank": work.sum(-1)}  # fmt: skip
    if bool((divergence + entropy).isnan().any()):  # a token is impossible: 0 * infinity is 0 here
        found |= _with_impossible_tokens(said, truth)
    return found


def _top(said: Rows) -> tuple[Shaped[Tensor, " row"], Shaped[Tensor, "row 1"]]:
    """The first token of the greatest logit, and that logit: the block of the greatest maximum, then the place in it."""
    blocks = said.shape[-1] // BLOCK
    if blocks < 2:
        found = said.max(-1, keepdim=True)
        return found.indices[:, 0], found.values
    best = said[:, : blocks * BLOCK].unflatten(-1, (blocks, BLOCK)).amax(-1).max(-1, keepdim=True)
    inside = best.indices * BLOCK + torch.arange(BLOCK, device=said.device)
    token, peak = best.indices * BLOCK + said.gather(-1, inside).argmax(-1, keepdim=True), best.values
    if blocks * BLOCK < said.shape[-1]:
        rest = said[:, blocks * BLOCK :].max(-1, keepdim=True)
        token = torch.where(rest.values > peak, rest.indices + blocks * BLOCK, token)
        peak = torch.maximum(peak, rest.values)
    return token[:, 0], peak


def _with_impossible_tokens(said: Rows, truth: Rows) -> dict[str, PerRow]:
    """Divergence and entropy where logits are minus infinity."""
    q, p = said.log_softmax(-1), truth.log_softmax(-1)
    divergence = torch.where(p.exp() == 0, 0, p.exp() * (p - q)).sum(-1)
    return {"KL": divergence.clamp(min=0), "entropy": torch.special.entr(q.exp()).sum(-1)}
