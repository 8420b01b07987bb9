"""Which matrices an attention or feed-forward layer is made of, and which of their features are whose.

Fused projections come in many layouts: one after another, interleaved by head, grouped by key-value head. Instead of a
table, the rearrangements that the model applied to a projection's output are run again on the numbers 0, 1, 2, ...; what
arrives at q, k, v, gate or up says which rows of the matrix made it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchclamp.model.anatomy import Matrix
from patchclamp.model.interior import Core, Slice, first_in, first_out, is_norm, makers, projections, way_out
from patchclamp.model.trail import SCALE
from patchclamp.model.watch import LAYOUT, SAME, Call, Recording, Visit

STILL = SAME | {"clamp", "clamp_"}
"""Functions after which every number is where it was."""


def heads_of(tape: Recording, part: Slice, core: Core, heads: int, kv_heads: int) -> dict[str, Matrix]:
    """The matrices behind q, k and v, those that are single ones (low-rank pairs are not)."""
    targets = {n: v for n, v in zip("qkv", (core.q, core.k, core.v)) if v >= 0}
    since = part.calls[0].time
    led = {n: tape.ancestors(v, {part.read}, since)[1] for n, v in targets.items()}
    found = {}
    for name, target in targets.items():
        made = makers(tape, part, target)
        count = heads if name == "q" else kv_heads
        if len(made) != 1 or not count:
            continue
        out = first_out(made[0])
        index = codes(tape, out, _own(tape, out, name, led))
        width = tape.values[out].shape[-1]
        whole = index is not None and index.numel() == tape.values[target].numel()
        if index is not None and whole and (mine := index[index < width]).numel() % count == 0:
            found[name] = Matrix(made[0].path, mine.reshape(count, -1))
    return found


def _own(tape: Recording, out: int, name: str, led: dict[str, set[int]]) -> int:
    """The rearrangement of a projection's output that goes to q (or k, v) alone, opened into heads as far as it goes."""
    at = out
    while True:
        nexts = [v for v in _rearranged(tape, at) if v in led[name]]
        if len(nexts) != 1:  # rotary embeddings take the head apart here
            return at
        at = nexts[0]


def _rearranged(tape: Recording, vn: int) -> list[int]:
    """Values made from this one by rearranging it, or by a norm in which every number keeps its place."""
    calls = [c for c in tape.consumers.get(vn, []) if c.name in LAYOUT | STILL and c.ins[0] == vn]
    found = [v for c in calls for v in c.outs if v != vn]
    for call in tape.consumers.get(vn, []):
        for visit in tape.visits_of(call):
            if is_norm(visit.module) and vn in visit.ins.values():
                found.append(first_out(visit))
    return list(dict.fromkeys(found))


def codes(tape: Recording, start: int, end: int) -> Tensor | None:
    """Where each number of a value comes from in another that it is a rearrangement of: flat indices, or None."""
    chain: list[tuple[Call | None, int, int]] = []
    at = end
    while at != start:
        call = tape.producer.get(at)
        if call is None:
            return None
        norm = next((v for v in tape.visits_of(call) if is_norm(v.module) and at in v.outs.values()), None)
        before = first_in(norm) if norm is not None else call.ins[0]
        if norm is None and call.name not in LAYOUT | STILL:
            return None
        chain.append((None if norm is not None or call.name in STILL else call, before, at))
        at = before
    value = tape.values[start]
    numbers = torch.arange(value.numel(), dtype=torch.float64).view(value.shape)
    for call, _, after in reversed(chain):
        if call is not None:
            result = call.function(numbers.contiguous(), *call.args[1:], **call.kwargs)
            numbers = result if isinstance(result, Tensor) else result[call.outs.index(after)]
    return numbers.long()


@dataclass(frozen=True, eq=False)
class FeedForward:
    """The matrices of a feed-forward layer by visit; `gate` is None where there is no gating."""

    out: Visit
    inner: Visit
    gate: Visit | None
    inner_features: Tensor | None = None
    """Which outputs of a fused matrix are the up-projection's; None for all."""
    gate_features: Tensor | None = None


def feed_forward(tape: Recording, part: Slice) -> FeedForward | str:
    """Take a feed-forward write apart, or say why that cannot be done."""
    way = way_out(tape, part)
    if way is None:
        return "it has no single output matrix (a mixture of experts, or a layer with a shortcut)"
    act = first_in(way.visit)
    readers = [v for v in projections(part) if v.number != way.visit.number and _reads(tape, v, part.read)]
    product = _gating(tape, act)
    if product is None:
        if len(readers) != 1:
            return f"{len(readers)} matrices read what it reads"
        return FeedForward(way.visit, readers[0], None)
    sides = [(v, makers(tape, part, v)) for v in product.ins]
    if any(len(made) != 1 for _, made in sides):
        return "its gating joins more than two matrices"
    curved = [_curved(tape, v, first_out(made[0])) for v, made in sides]
    if sum(curved) != 1:
        if len({made[0].number for _, made in sides}) == 1 and len(readers) == 1:
            return FeedForward(way.visit, readers[0], None)  # an activation written as x * f(x)
        return "its gate cannot be told from its other half"
    (gate_side, (gate,)), (up_side, (up,)) = sides if curved[0] else sides[::-1]
    if gate.number != up.number:
        return FeedForward(way.visit, up, gate)
    ups, gates = (_features(tape, first_out(up), v) for v in (up_side, gate_side))
    if ups is None or gates is None:
        return "the halves of its fused matrix cannot be told apart"
    if ups.numel() == gates.numel() == tape.values[first_out(up)].shape[-1]:
        return FeedForward(way.visit, up, None)  # both sides are the whole output: an activation, not a gate
    return FeedForward(way.visit, up, gate, ups, gates)


def _reads(tape: Recording, visit: Visit, vn: int) -> bool:
    at = first_in(visit)
    while at != vn and tape.source(at) != tape.source(vn):
        call = tape.producer.get(at)
        if call is None or call.name not in LAYOUT | SAME:
            return False
        at = call.ins[0]
    return True


def _gating(tape: Recording, act: int) -> Call | None:
    """The product of two activations that an output matrix reads, behind casts, norms and rearrangements."""
    at = act
    for _ in range(16):
        at = tape.source(at)
        call = tape.producer.get(at)
        if call is None:
            return None
        norm = next((v for v in tape.visits_of(call) if is_norm(v.module) and at in v.outs.values()), None)
        if norm is not None:
            at = first_in(norm)
        elif (
            call.name in SCALE
            and len(set(call.ins)) == 2
            and all(tape.values[v].shape == tape.values[at].shape for v in call.ins)
        ):
            return call
        elif call.name in LAYOUT | SAME:
            at = call.ins[0]
        else:
            return None
    return None


def _curved(tape: Recording, vn: int, matrix_out: int) -> bool:
    """Whether something other than rearranging happens between a matrix's output and a value."""
    calls, _ = tape.ancestors(vn, {matrix_out})
    return any(c.name not in LAYOUT | SAME for c in calls)


def _features(tape: Recording, out: int, side: int) -> Tensor | None:
    """Which outputs of a fused matrix a side of the gating is made from."""
    _, values = tape.ancestors(side, {out})
    at = out
    while True:
        nexts = [v for v in _rearranged(tape, at) if v in values]
        if len(nexts) != 1:
            break
        at = nexts[0]
    index = codes(tape, out, at)
    if index is None:
        return None
    return index[index < tape.values[out].shape[-1]]


def as_slice(features: Tensor | None) -> tuple[int, int, int] | None:
    """Indices that follow each other at equal steps, as (start, stop, step)."""
    if features is None or features.numel() < 2:
        return None
    step = int(features[1] - features[0])
    start, n = int(features[0]), features.numel()
    stop = start + step * n
    return (start, stop, step) if step > 0 and torch.equal(features, torch.arange(start, stop, step)) else None
