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
KEPT = 1 << 26
"""As many probabilities of the output are kept; of a longer output they are taken anew for each reading."""
BLOCK = 64
"""The top token is looked for in blocks: a maximum is fast, its place is not."""

Rows = Float[Tensor, "row vocab"]
PerRow = Float[Tensor, " row"]


@dataclass(frozen=True, eq=False)
class Look:
    """A few rows of logits, looked at once."""

    token: Shaped[Tensor, " row"]
    """The first of the greatest."""
    peak: PerRow
    top: PerRow
    """The probability of `token`: the partition sum over the peak is one over it."""
    entropy: PerRow
    """In nats."""
    expected: PerRow
    """The logit, less the peak, that the output expects: the output's cross entropy with these is `-expected - log(top)`."""


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
    def own(self) -> list[tuple[Rows, Rows | None, Look]]:
        """The output's rows, as many as are looked at together, their probabilities, and what they say by themselves."""
        rows = self.logits.detach().flatten(0, -2)
        step = max((CACHED if rows.device.type == "cpu" else HELD) // rows.shape[-1], 1)
        spare, found = _room(rows, step), []
        for some in rows.split(step):
            p = some.float().softmax(-1) if rows.numel() <= KEPT else None
            found.append((some, p, look(some.float(), some, p, spare)))
        return found

    def read(self, said: Float[Tensor, "*cells vocab"]) -> dict[str, Tensor]:
        """Of a reading of the same shape, cell by cell: token and probability of its top, probability and rank of what the
        output puts first, entropy in nats, and KL(output || reading) in nats."""
        rows = said.detach().flatten(0, -2)
        spare = _room(rows, len(self.own[0][0]))
        found = [_beside(some.float(), *own, spare) for some, own in zip(rows.split(len(spare[0])), self.own)]
        return {name: torch.cat([f[name] for f in found]).reshape(said.shape[:-1]) for name in found[0]}


def look(said: Rows, truth: Rows, p: Rows | None, spare: Float[Tensor, "two rows vocab"]) -> Look:
    """All sums over the vocabulary, `p` the output's probabilities. `spare` is room to work in: nothing wide is allocated."""
    x, y = spare[:, : len(said)]
    token, peak = _top(said)
    torch.sub(said, peak[:, None], out=x)
    torch.softmax(said, -1, out=y)
    top = y.gather(-1, token[:, None])[:, 0]
    entropy = -torch.mul(x, y, out=y).sum(-1) - top.log()
    p = torch.softmax(truth.float(), -1, out=y) if p is None else p
    return Look(token, peak, top, entropy, torch.mul(x, p, out=y).sum(-1))


def _beside(said: Rows, truth: Rows, p: Rows | None, own: Look, spare: Float[Tensor, "two rows vocab"]) -> dict[str, Tensor]:
    """A few rows of a reading beside the output's. Of equal rows the divergence is zero, and not only nearly."""
    seen = look(said, truth, p, spare)
    divergence, entropy = (own.expected - seen.expected) + (own.top.log() - seen.top.log()), seen.entropy
    if not bool((divergence + entropy).isfinite().all()):  # a token is impossible: 0 * infinity is 0 here
        divergence, entropy = _with_impossible_tokens(said, truth.float())
    answer = said.gather(-1, own.token[:, None])
    above = torch.gt(said, answer, out=spare[0, : len(said)]).sum(-1)
    return {"token": seen.token, "probability": seen.top, "p(output)": (answer[:, 0] - seen.peak).exp() * seen.top,
            "KL": divergence.clamp(min=0), "entropy": entropy, "rank": above}  # fmt: skip


def _top(said: Rows) -> tuple[Shaped[Tensor, " row"], PerRow]:
    """The first token of the greatest logit, and that logit: the block of the greatest maximum, then the place in it."""
    blocks = said.shape[-1] // BLOCK
    if blocks < 2:
        found = said.max(-1)
        return found.indices, found.values
    best = said[:, : blocks * BLOCK].unflatten(-1, (blocks, BLOCK)).amax(-1).max(-1, keepdim=True)
    inside = best.indices * BLOCK + torch.arange(BLOCK, device=said.device)
    token, peak = best.indices * BLOCK + said.gather(-1, inside).argmax(-1, keepdim=True), best.values
    if blocks * BLOCK < said.shape[-1]:
        rest = said[:, blocks * BLOCK :].max(-1, keepdim=True)
        token = torch.where(rest.values > peak, rest.indices + blocks * BLOCK, token)
        peak = torch.maximum(peak, rest.values)
    return token[:, 0], peak[:, 0]


def _with_impossible_tokens(said: Rows, truth: Rows) -> tuple[PerRow, PerRow]:
    """Divergence and entropy where logits are minus infinity."""
    q, p = said.log_softmax(-1), truth.log_softmax(-1)
    divergence = torch.where(p.exp() == 0, 0, p.exp() * (p - q)).sum(-1)
    return divergence, torch.special.entr(q.exp()).sum(-1)


def _room(rows: Rows, step: int) -> Float[Tensor, "two rows vocab"]:
    return torch.empty(2, min(step, len(rows)), rows.shape[-1], device=rows.device)
