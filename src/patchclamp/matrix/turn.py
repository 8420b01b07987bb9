"""Turn: what happens to queries and keys between their matrices and the scores, found out by asking.

Rotary positions turn queries and keys by an angle for every position (Su et al. 2021), some families norm each head's queries
and keys before that, scores are scaled, sometimes capped. Instead of a table, random vectors are put in at `attn.in`, and what
arrives at `attn.q`, `attn.k` and `attn.scores` is explained: a linear map of `x W + b`, or of that divided by its length. What
is neither (a norm over all heads together) is refused. A turn by `d` positions is the turn by one, `d` times over; that it is
what the model does at distance `d` is checked on two further vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.edit import Edit
from patchclamp.core.errors import Unserved
from patchclamp.matrix.head import Head
from patchclamp.matrix.sources import ordinary

TINY = 1e-2
"""Queries are made this small while the scale of scores is read, so that a cap is not felt."""


@dataclass(frozen=True, eq=False)
class Turn:
    """From `x W_Q + b_Q` to the query of a score, and from `x W_K + b_K` to its key."""

    query: Float[Tensor, "d_head d_head"]
    """Linear map of queries at the asked distance from the key."""
    key: Float[Tensor, "d_head d_head"]
    """Linear map of keys, at the first token."""
    query_norm: str
    """`""`, or how a query is divided before the map: `length`, or `spread` where its mean is taken away first."""
    key_norm: str
    scale: float
    """What the product of query and key is multiplied by."""
    capped: bool
    """Whether scores are pressed through a curve afterwards."""
    bias: float = 0.0
    """What the place alone adds to the score of a key at this distance, beyond what it adds to the query's own token
    (ALiBi)."""

    def queries(self, made: Float[Tensor, "row d_head"]) -> Float[Tensor, "row d_head"]:
        """Queries as scores are made of, from the matrix's output."""
        return _divided(made, self.query_norm) @ self.query.to(made)

    def keys(self, made: Float[Tensor, "row d_head"]) -> Float[Tensor, "row d_head"]:
        """Keys as scores are made of, from the matrix's output."""
        return _divided(made, self.key_norm) @ self.key.to(made)


def turn(head: Head, distance: int = 0) -> Turn:
    """What a head's queries and keys go through when the key stands `distance` tokens before the query.

    >>> from patchclamp.matrix.head import Head
    >>> from patchclamp.matrix.turn import turn
    >>> head = Head.of(model, "blocks.1.attn.z[head=2]")
    >>> turned = turn(head, 3)
    >>> bool(torch.allclose(turned.query @ turned.query.T, torch.eye(16), atol=1e-4)), turned.scale
    (True, 0.25)
    """
    if distance < 0:
        raise Unserved(f"distance={distance}: it counts tokens from the key forward to the query, 0 or more.")
    d_head = head.weight("Q").shape[1]
    x = _vectors(head, 2 * d_head + 8)
    asked = _asked(head, x[:, None].expand(-1, 2, -1))
    made = {letter: _made(head, x, letter) for letter in "QK"}
    query_norm, first = _explained(head, "queries", made["Q"], asked["q"][:, 0])
    key_norm, key = _explained(head, "keys", made["K"], asked["k"][:, 0])
    query, bias = first, 0.0
    scale, capped = _scale(head)
    if distance:
        _, second = _explained(head, "queries", made["Q"], asked["q"][:, 1])
        step = torch.linalg.lstsq(first, second).solution
        query = first @ torch.linalg.matrix_power(step, distance)
        bias = _checked(head, distance, query_norm, query, scale)
    return Turn(query.float(), key.float(), query_norm, key_norm, scale, capped, bias)


def _explained(head: Head, what: str, made: Tensor, seen: Tensor) -> tuple[str, Tensor]:
    """How the matrix's output is divided, and the map that takes it to what was seen."""
    for norm in ("", "length", "spread"):
        given = _divided(made, norm)
        found = torch.linalg.lstsq(given, seen).solution
        if (given @ found - seen).norm() < _slack(head) * seen.norm():
            return norm, found
    raise Unserved(f"{head.path}: its {what} are not made by a matrix, a turn and a norm of one head (a norm over all heads "
                   "together?); read scores from a run instead.")  # fmt: skip


def _checked(head: Head, distance: int, norm: str, query: Tensor, scale: float) -> float:
    """Whether queries are turned so far at this distance; and what the place alone adds to the score there."""
    x = _vectors(head, 2, seed=1)
    asked = _asked(head, x[:, None].expand(-1, distance + 1, -1), TINY)
    seen = asked["q"][:, -1] / TINY
    said = _divided(_made(head, x, "Q"), norm) @ query
    if (said - seen).norm() > 10 * _slack(head) * seen.norm():
        raise Unserved(f"{head.path}: {distance} tokens on, queries are not turned {distance} times as far as one token on "
                       "(positions that are not rotary, or are rescaled in long prompts).")  # fmt: skip
    there, here = (
        (asked["scores"][:, -1, at] - scale * (asked["q"][:, -1] * asked["k"][:, at]).sum(-1)).mean() for at in (0, -1)
    )
    return float(there - here) if abs(float(there - here)) > _slack(head) else 0.0


def _scale(head: Head) -> tuple[float, bool]:
    """The factor of scores, and whether they are capped: from two prompts, so that whatever depends on places alone cancels."""
    found = []
    for size in (TINY, 1.0):
        x = _vectors(head, 8, seed=2).view(2, 4, -1)
        asked = _asked(head, x, size)
        products = asked["q"] @ asked["k"].transpose(-1, -2)
        one, other = products[1] - products[0], asked["scores"][1] - asked["scores"][0]
        here = torch.ones(4, 4).tril().bool()
        one, other = one[here], other[here]
        slope = float((one * other).sum() / (one * one).sum())
        bent = float((other - slope * one).norm() / other.norm().clamp(min=1e-30))
        found.append((slope, bent))
    (slope, bent), (whole, bent_whole) = found
    if bent > 3 * _slack(head):
        raise Unserved(f"{head.path}: its scores are not a multiple of query times key.")
    return round(slope, 6), bent_whole > 3 * _slack(head) or abs(whole / slope - 1) > 3 * _slack(head)


def _asked(head: Head, x: Float[Tensor, "prompt pos d_model"], size: float = 1.0) -> dict[str, Tensor]:
    """The head's queries, keys and scores where `x` is what its layer reads."""
    sites = [f"{head.path}.{name}" for name in ("q", "k", "scores")]
    moved = head.model.edit(Edit(f"{head.path}.in", lambda value: x.to(value)))
    if size != 1.0:
        moved = moved.edit(Edit(sites[0], lambda value: size * value))
    run = moved.run(ordinary(head.model, *x.shape[:2]), sites, logits=False)
    q, k, scores = (run[site].cpu().double() for site in sites)
    return {"q": q[:, :, head.number], "k": k[:, :, head.shared], "scores": scores[:, head.number]}


def _made(head: Head, x: Tensor, letter: str) -> Tensor:
    """What the head's matrix makes of vectors, in double precision."""
    return x.double() @ head._raw("W", letter).cpu().double() + head._raw("b", letter).cpu().double()


def _vectors(head: Head, count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, head.model.width, generator=torch.Generator().manual_seed(seed))


def _divided(made: Tensor, norm: str) -> Tensor:
    if norm == "spread":
        made = made - made.mean(-1, keepdim=True)
    return made if not norm else made / made.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)


def _slack(head: Head) -> float:
    return 2e-3 if head.model.dtype == torch.float32 else 4e-2
