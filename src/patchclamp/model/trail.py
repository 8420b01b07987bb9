"""The trail of the residual stream through a block: which values were added to it, in which order, read off a recording.

Walking back from what a block returns, every addition has a side that leads on to what the block read; the other side is
a write. Norms that stand in the stream (BERT) and constant factors are steps of the trail too. Nothing is told by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from patchclamp.model.watch import LAYOUT, Call, Recording, Visit

ADD = {"add", "__add__", "__radd__", "__iadd__", "add_"}
SCALE = {"mul", "__mul__", "__rmul__", "__imul__", "mul_", "div", "__truediv__", "div_"}
FUNCTIONAL_NORMS = {"layer_norm", "rms_norm"}


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the stream: a write added to it, a norm standing in it, a factor applied to it or a constant added."""

    kind: str
    """`write`, `norm`, `scale` or `shift`"""
    base: int
    """The stream before the step (a value number)."""
    result: int
    """The stream after it."""
    branch: int = -1
    """What was added, for a write or a shift."""


def trail(tape: Recording, block: Visit, start: int, end: int) -> list[Step] | None:
    """The steps from the value a block read to the value it returned, or None where they are not joined by additions."""
    return _walk(tape, start, end, block.begin, 0)


def _walk(tape: Recording, goal: int, at: int, begin: int, depth: int) -> list[Step] | None:
    if tape.source(at) == tape.source(goal):
        return []
    at = tape.source(at)
    call = tape.producer.get(at)
    if call is None or call.time < begin or depth > 64:
        return None
    norm = norm_of(tape, at)
    if norm is not None:
        steps = _walk(tape, goal, norm, begin, depth + 1)
        return None if steps is None else [*steps, Step("norm", norm, at)]
    shape = tape.values[at].shape
    if call.name in ADD and not call.kwargs.get("alpha"):
        sides = [v for v in call.ins if tape.values[v].shape == shape]
        for base in sorted(sides, key=lambda v: tape.source(v) != tape.source(goal)):
            steps = _walk(tape, goal, base, begin, depth + 1)
            others = [v for v in call.ins if v != base] or [base]
            if steps is not None and len(call.ins) == 2:
                kind = "shift" if constant(tape, others[0], begin) else "write"
                return [*steps, Step(kind, base, at, others[0])]
        return None
    if call.name in SCALE:
        base = _scaled(tape, call, shape, begin)
        steps = None if base is None else _walk(tape, goal, base, begin, depth + 1)
        return None if steps is None else [*steps, Step("scale", base or 0, at)]
    if call.name in LAYOUT and tape.values[call.ins[0]].numel() == tape.values[at].numel():
        return _walk(tape, goal, call.ins[0], begin, depth + 1)
    return None


def norm_of(tape: Recording, vn: int) -> int | None:
    """The value that a norm turned into this one, or None where no norm made it."""
    call = tape.producer.get(vn)
    if call is None:
        return None
    for visit in tape.visits_of(call):
        if vn in visit.outs.values() and is_norm(visit.module) and len(visit.ins) == 1:
            return next(iter(visit.ins.values()))
    return call.ins[0] if call.name in FUNCTIONAL_NORMS else None


def is_norm(module: nn.Module) -> bool:
    """LayerNorm, RMSNorm and their many namesakes: called a norm, and holding vectors only."""
    named = "norm" in type(module).__name__.lower() or isinstance(module, nn.LayerNorm)
    return named and all(p.ndim <= 1 for p in module.parameters())


def leaves(tape: Recording, block: Visit, branch: int) -> list[int]:
    """A write that is itself a sum made in the block (parallel attention and MLP) is taken apart into its terms."""
    branch = tape.source(branch)
    call = tape.producer.get(branch)
    if call is None or call.name not in ADD or len(call.ins) != 2 or inner_visit(tape, block, branch) is not None:
        return [branch]
    shape = tape.values[branch].shape
    if any(tape.values[v].shape != shape or constant(tape, v, block.begin) for v in call.ins):
        return [branch]
    return [leaf for side in call.ins for leaf in leaves(tape, block, side)]


def inner_visit(tape: Recording, block: Visit, vn: int) -> Visit | None:
    """The outermost module inside a block that returned this value (or what it is a mere cast of)."""
    found = None
    for visit in tape.visits[block.number + 1 :]:
        if visit.begin >= block.end and visit.number > block.number and not _inside(tape, visit, block):
            break
        if not _inside(tape, visit, block):
            continue
        if any(tape.source(out) == tape.source(vn) for out in visit.outs.values()) and (
            found is None or not _inside(tape, visit, found)
        ):
            found = visit if found is None else found
    return found


def _inside(tape: Recording, visit: Visit, outer: Visit) -> bool:
    return any(v.number == outer.number for v in tape.chain(visit.parent))


def mixes(tape: Recording, leaf: int, stream: list[int]) -> bool | None:
    """Whether a write at the last token depends on the stream it read at earlier tokens; None where that cannot be told.

    `stream` lists the values of the stream before the write; the write read the last of them that it depends on.
    """
    y = tape.values[leaf]
    if leaf in tape.changed or not y.requires_grad:
        return None
    for base in reversed(stream):
        x = tape.values[base]
        if base in tape.changed or not x.requires_grad or x.ndim != 3 or x.numel() != y.numel():
            continue
        (gradient,) = torch.autograd.grad(askew(y.reshape(x.shape)[0, -1]), x, retain_graph=True, allow_unused=True)
        if gradient is not None and gradient.shape[1] > 1 and bool(gradient[0, -1].abs().max() > 0):
            return bool(gradient[0, :-1].abs().max() > 0)
    return None


def _scaled(tape: Recording, call: Call, shape: torch.Size, begin: int) -> int | None:
    """The side of a product that is the stream, where the other is a number or a parameter."""
    sides = [v for v in dict.fromkeys(call.ins) if tape.values[v].shape == shape]
    moving = [v for v in sides if not constant(tape, v, begin)] or sides
    if len(moving) != 1 or any(v != moving[0] and not constant(tape, v, begin) for v in call.ins):
        return None
    return moving[0]


def constant(tape: Recording, vn: int, begin: int) -> bool:
    """Whether a value is made of nothing but parameters and numbers from before a block began."""
    call = tape.producer.get(vn)
    if call is None or call.time < begin:
        return tape.values[vn].ndim < 3
    return all(constant(tape, v, begin) for v in call.ins)


def askew(vector: Tensor) -> Tensor:
    """A vector along a fixed direction that no norm takes out: what a layer norm returns sums to zero whatever it reads."""
    direction = torch.randn(vector.shape, generator=torch.Generator().manual_seed(0)).to(vector.device)
    return vector.float() @ direction
