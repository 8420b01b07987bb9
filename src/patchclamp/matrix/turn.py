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
LOUD = 30.0
"""How large the vectors are that a turn is read from: what a norm adds under its root is then not felt."""


@dataclass(frozen=True)
class Division:
    """What a norm of one head's queries or keys does before its weight comes in."""

    kind: str = ""
    """`length`, or `spread` where the mean is taken away first; `""` for no norm."""
    eps: float = 0.0
    """What is added under the root."""

    def __call__(self, made: Float[Tensor, "*rows d_head"]) -> Float[Tensor, "*rows d_head+1"]:
        """Vectors divided, with a one behind for what is added afterwards."""
        if self.kind == "spread":
            made = made - made.mean(-1, keepdim=True)
        if self.kind:
            made = made / (made.square().mean(-1, keepdim=True) + self.eps).sqrt().clamp(min=1e-12)
        return torch.cat([made, torch.ones_like(made[..., :1])], -1)


@dataclass(frozen=True, eq=False)
class Turn:
    """From `x W_Q + b_Q` to the query of a score, and from `x W_K + b_K` to its key."""

    query: Float[Tensor, "augmented d_head"]
    """Map of queries at the asked distance from the key; its last row is added to all (the bias of a norm, else zero)."""
    key: Float[Tensor, "augmented d_head"]
    """Map of keys, at the first token."""
    query_norm: Division
    """How a query is divided before the map."""
    key_norm: Division
    scale: float
    """What the product of query and key is multiplied by."""
    capped: bool
    """Whether scores are pressed through a curve afterwards."""
    bias: float = 0.0
    """What the place alone adds to the score of a key at this distance, beyond what it adds to the query's own token
    (ALiBi)."""

    def queries(self, made: Float[Tensor, "row d_head"]) -> Float[Tensor, "row d_head"]:
        """Queries as scores are made of, from the matrix's output."""
        return self.query_norm(made) @ self.query.to(made)

    def keys(self, made: Float[Tensor, "row d_head"]) -> Float[Tensor, "row d_head"]:
        """Keys as scores are made of, from the matrix's output."""
        return self.key_norm(made) @ self.key.to(made)


def turn(head: Head, distance: int = 0) -> Turn:
    """What a head's queries and keys go through when the key stands `distance` tokens before the query.

    >>> from patchclamp.matrix.head import Head
    >>> from patchclamp.matrix.turn import turn
    >>> head = Head.of(model, "blocks.1.attn.z[head=2]")
    >>> turned = turn(head, 3)
    >>> bool(torch.allclose(turned.query[:16] @ turned.query[:16].T, torch.eye(16), atol=1e-4)), turned.scale
    (True, 0.25)
    """
    if distance < 0:
        raise Unserved(f"distance={distance}: it counts tokens from the key forward to the query, 0 or more.")
    x = _vectors(head, 2 * head.weight("Q").shape[1] + 8)
    loud, quiet = (_asked(head, (size * x)[:, None].expand(-1, 2, -1)) for size in (LOUD, 1.0))
    query_norm, first = _explained(head, "Q", x, loud["q"][:, 0], quiet["q"][:, 0])
    key_norm, key = _explained(head, "K", x, loud["k"][:, 0], quiet["k"][:, 0])
    query, bias = first, 0.0
    scale, capped = _scale(head)
    if distance:
        second = _fitted(query_norm.kind, _made(head, LOUD * x, "Q"), loud["q"][:, 1])[0]
        query = first @ torch.linalg.matrix_power(_solved(first, second), distance)
        bias = _checked(head, distance, query_norm, query, scale)
    return Turn(query.float(), key.float(), query_norm, key_norm, scale, capped, bias)


def _explained(head: Head, letter: str, x: Tensor, loud: Tensor, quiet: Tensor) -> tuple[Division, Tensor]:
    """How the matrix's output is divided, and the map that takes it to what was seen of loud vectors and of the same as they
    are."""
    for kind in ("", "length", "spread"):
        found, missed = _fitted(kind, _made(head, LOUD * x, letter), loud)
        if missed < _slack(head):
            return Division(kind, _eps(kind, _made(head, x, letter), found, quiet)), found
    what = "queries" if letter == "Q" else "keys"
    raise Unserved(f"{head.path}: its {what} are not made by a matrix, a turn and a norm of one head (a norm over all heads "
                   "together?); read scores from a run instead.")  # fmt: skip


def _fitted(kind: str, made: Tensor, seen: Tensor) -> tuple[Tensor, float]:
    """The map from divided vectors to what was seen, and the share of it that is missed."""
    given = Division(kind)(made)
    found = _solved(given, seen)
    return found, float((given @ found - seen).norm() / seen.norm())


def _eps(kind: str, made: Tensor, found: Tensor, quiet: Tensor) -> float:
    """What the norm adds under its root: by how much vectors that are not loud come out shorter than without it."""
    if not kind:
        return 0.0
    whole, seen = Division(kind)(made)[..., :-1] @ found[:-1], quiet - found[-1]
    short = (whole * seen).sum(-1) / (whole * whole).sum(-1)
    centred = made - made.mean(-1, keepdim=True) if kind == "spread" else made
    return max(float((centred.square().mean(-1) * (short**-2 - 1)).median()), 0.0)


def _solved(given: Tensor, seen: Tensor) -> Tensor:
    """Least squares, of least size where a direction is missing (where means are taken away)."""
    return torch.linalg.lstsq(given, seen, driver="gelsd").solution


def _checked(head: Head, distance: int, norm: Division, query: Tensor, scale: float) -> float:
    """Whether queries are turned so far at this distance; and what the place alone adds to the score there."""
    x = _vectors(head, 2, seed=1)
    asked = _asked(head, x[:, None].expand(-1, distance + 1, -1), TINY)
    seen = asked["q"][:, -1] / TINY
    said = norm(_made(head, x, "Q")) @ query
    if (said - seen).norm() > 10 * _slack(head) * seen.norm():
        raise Unserved(f"{head.path}: {distance} tokens on, queries are not turned {distance} times as far as one token on "
                       "(positions that are not rotary, or are rescaled in long prompts).")  # fmt: skip
    there, here = (
        (asked["scores"][:, -1, at] - scale * (asked["q"][:, -1] * asked["k"][:, at]).sum(-1)).mean() for at in (0, -1)
    )
    return float(there - here) if abs(float(there - here)) > _slack(head) else 0.0


def _scale(head: Head) -> tuple[float, bool]:
    """The factor of scores, and whether they are capped.

    Two prompts are compared, so that what depends on places alone cancels; and each score with that of the query's own token,
    since some families take the largest score of a row away from all of it.
    """
    found = []
    for size in (TINY, 1.0):
        x = _vectors(head, 8, seed=2).view(2, 4, -1)
        asked = _asked(head, x, size)
        products = asked["q"] @ asked["k"].transpose(-1, -2)
        one, other = _moved(products), _moved(asked["scores"])
        here = torch.ones(4, 4).tril(-1).bool()
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
    return {
        "q": q[:, :, head.number],
        "k": k[:, :, head.shared],
        "scores": scores[:, head.number, :, : x.shape[1]],
    }  # a sink stands behind


def _moved(scores: Float[Tensor, "two query key"]) -> Float[Tensor, "query key"]:
    """How far a score moves against that of the query's own token, from one prompt to the other."""
    change = scores[1] - scores[0]
    return change - change.diagonal()[:, None]


def _made(head: Head, x: Tensor, letter: str) -> Tensor:
    """What the head's matrix makes of vectors, in double precision."""
    return x.double() @ head._raw("W", letter).cpu().double() + head._raw("b", letter).cpu().double()


def _vectors(head: Head, count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, head.model.width, generator=torch.Generator().manual_seed(seed))


def _slack(head: Head) -> float:
    return 2e-3 if head.model.dtype == torch.float32 else 4e-2
