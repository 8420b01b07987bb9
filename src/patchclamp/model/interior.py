"""What is inside a block's writes: attention (q, k, v, scores, pattern, z), feed-forward layers, routers and experts.

Read off a recording by following values, not names. Attention is where a doorway was passed, or where a softmax over keys
is multiplied with values; the projections are found by walking from there to the matrices that made and read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from patchclamp.model.trail import SCALE, is_norm
from patchclamp.model.watch import DOOR, LAYOUT, SAME, Call, Recording, Slot, Visit

PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm", "einsum"}


@dataclass(frozen=True, eq=False)
class Core:
    """The heart of one attention: where scores become a pattern and the pattern takes values."""

    kind: str
    """`door` (transformers' interface), `hand` (a softmax in the module's own code) or `kernel` (a fused call)."""
    visit: Visit
    """The attention module."""
    begin: int
    q: int = -1
    k: int = -1
    v: int = -1
    out: int = -1
    softmax: Call | None = None
    scores_product: Call | None = None
    value_product: Call | None = None
    reason: str = ""
    """Why some of it cannot be served."""
    pattern: tuple[int, ...] = ()
    """The pattern's shape, where a doorway's eager function was seen to make one."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The calls that made a write, from the value that its first reader read."""

    leaf: int
    calls: list[Call]
    values: set[int]
    read: int
    """The value it reads: the stream, or the norm of it."""
    base: int = -1
    """The value of the stream that it, or its norm, reads."""
    visits: list[Visit] = field(default_factory=list)
    """The module visits inside the block that it passes."""


def slice_of(tape: Recording, block: Visit, leaf: int, stream: list[int]) -> Slice:
    """Everything between the stream and a write."""
    origin = {w: v for v in stream for w in alias(tape, v) if tape.values[w].numel() == tape.values[v].numel()}
    stop = {*origin, *(tape.source(v) for v in stream)}
    calls, values = tape.ancestors(leaf, stop, block.begin)
    met = [v for v in values if v in stop]
    base = read = max((origin.get(v, v) for v in met), key=lambda v: _made(tape, v), default=-1)
    normed = [v for v in values if v not in stop and _norm_of_stream(tape, v, stop)]
    if normed:
        read = max(normed, key=lambda v: _made(tape, v))
    numbers = {visit.number for call in calls for visit in tape.chain(call.visit)}
    visits = [tape.visits[n] for n in sorted(numbers) if n > block.number]
    return Slice(leaf, calls, values, read, base, visits)


def _made(tape: Recording, vn: int) -> int:
    call = tape.producer.get(vn)
    return -1 if call is None else call.time


def _norm_of_stream(tape: Recording, vn: int, stop: set[int]) -> bool:
    call = tape.producer.get(vn)
    if call is None:
        return False
    for visit in tape.visits_of(call):
        if is_norm(visit.module) and vn in visit.outs.values():
            return any(tape.source(v) in stop for v in visit.ins.values())
    return call.name in ("layer_norm", "rms_norm") and tape.source(call.ins[0]) in stop


def core_of(tape: Recording, part: Slice) -> Core | str | None:
    """The attention in a slice; a string says why one that is there cannot be read; None where there is none."""
    core = _core_of(tape, part)
    if isinstance(core, Core) and core.out >= 0:
        after = [v for v in projections(part) if v.begin >= _made(tape, core.out)]
        if len(after) > 2:
            return "what is added holds more than attention (a bottleneck around it)"
    return core


def _core_of(tape: Recording, part: Slice) -> Core | str | None:
    doors = [v for v in part.visits if v.path == DOOR]
    if len(doors) == 1:
        door = doors[0]
        facts = door.facts
        return Core("door", tape.visits[door.parent], door.begin, door.ins["q"], door.ins["k"], door.ins["v"],
                    door.outs.get(0, door.outs.get(None, -1)), reason=facts["reason"], pattern=facts["pattern"])  # fmt: skip
    if len(doors) > 1:
        return "its attention passes the interface more than once"
    kernels = [c for c in part.calls if c.name == "scaled_dot_product_attention"]
    if len(kernels) == 1:
        q, k, v = kernels[0].ins[:3]
        reason = 'a fused kernel computes it; load the model with attn_implementation="eager"'
        return Core("kernel", tape.visits[kernels[0].visit], kernels[0].time, q, k, v, kernels[0].outs[0], reason=reason)
    return _by_hand(tape, part)


def _by_hand(tape: Recording, part: Slice) -> Core | str | None:
    found = []
    for call in part.calls:
        if call.name == "softmax" and tape.values[call.outs[0]].ndim in (3, 4):
            after = _value_product(tape, part, call)
            if after is not None:
                found.append((call, after))
    if not found:
        return None
    if len(found) > 1:
        return f"it takes {len(found)} softmaxes"
    softmax, after = found[0]
    before = _score_products(tape, part, softmax)
    pattern = alias(tape, softmax.outs[0], MASKED)
    value = next(v for v in after.ins if v not in pattern)
    visit = tape.visits[softmax.visit]
    core = Core("hand", visit, softmax.time, v=value, out=after.outs[0], softmax=softmax, value_product=after)
    if len(before) == 1 and before[0].name != "einsum" and before[0].visit == softmax.visit:
        q, k = before[0].ins[-2:]
        return replace(core, q=q, k=k, scores_product=before[0])
    return replace(core, reason="its scores are a sum of several products (relative positions)" if len(before) > 1 else "")


def alias(tape: Recording, vn: int, through: frozenset[str] = frozenset()) -> set[int]:
    """Values that hold the same numbers: casts, dropouts that are off, rearrangements (and what `through` names)."""
    found, todo = {vn}, [vn]
    while todo:
        at = todo.pop()
        for call in tape.consumers.get(at, []):
            if call.name in SAME | LAYOUT | through and call.ins[0] == at:  # type_as(x, y) hands on x, not y
                new = [v for v in call.outs if v not in found]
                found.update(new)
                todo.extend(new)
    return found


MASKED = frozenset({"masked_fill", "mul", "nan_to_num"})
"""What may happen to a pattern before it meets the values: masks by head, rows without any key."""


def _value_product(tape: Recording, part: Slice, softmax: Call) -> Call | None:
    pattern = alias(tape, softmax.outs[0], MASKED)
    for call in part.calls:
        if call.time > softmax.time and call.name in PRODUCTS and pattern & set(call.ins) and len(call.ins) >= 2:
            return call
    return None


def _score_products(tape: Recording, part: Slice, softmax: Call) -> list[Call]:
    calls, _ = tape.ancestors(softmax.ins[0], {part.read}, part.calls[0].time)
    scope = tape.visits[softmax.visit]
    return [
        c for c in calls
        if c.name in PRODUCTS and not any(isinstance(tape.values[v], nn.Parameter) for v in c.ins)
        and any(v.number == scope.number for v in tape.visits_of(c)) and _looks_like_scores(tape, c)
    ]  # fmt: skip


def _looks_like_scores(tape: Recording, call: Call) -> bool:
    out = tape.values[call.outs[0]]
    return out.ndim in (3, 4) and len(call.ins) >= 2 and all(tape.values[v].ndim >= 2 for v in call.ins)


def is_projection(module: nn.Module) -> bool:
    """A matrix with or without a bias: Linear, GPT-2's Conv1D, and quantised linears."""
    name, weight = type(module).__name__, getattr(module, "weight", None)
    named = name == "Conv1D" or ("Linear" in name and isinstance(weight, Tensor) and weight.ndim == 2)  # not KimiLinearRMSNorm
    return isinstance(module, nn.Linear) or named


def projections(part: Slice) -> list[Visit]:
    """The matrices of a slice in the order they ran."""
    return [v for v in part.visits if is_projection(v.module) and v.ins and v.outs]


def first_in(visit: Visit) -> int:
    """The value a one-input module read."""
    return next(iter(visit.ins.values()))


def first_out(visit: Visit) -> int:
    """The value a module returned first."""
    return next(iter(visit.outs.values()))


def makers(tape: Recording, part: Slice, vn: int) -> list[Visit]:
    """The projections whose outputs led to a value, first the ones that read the stream."""
    _, values = tape.ancestors(vn, {part.read}, part.calls[0].time if part.calls else 0)
    return [v for v in projections(part) if first_out(v) in values]


def reader(tape: Recording, part: Slice, vn: int) -> Visit | None:
    """The first projection after a value that reads something made from it."""
    start = _made(tape, vn)
    for visit in projections(part):
        if visit.begin >= start and (first_in(visit) == vn or vn in tape.ancestors(first_in(visit), {vn}, start)[1]):
            return visit
    return None


@dataclass(frozen=True, eq=False)
class Way:
    """How the output of a write's last matrix becomes the write: through norms, and constant factors."""

    visit: Visit
    """The matrix."""
    norms: tuple[str, ...] = ()
    """Paths of norms on the way, first met first."""
    factors: tuple[float | Tensor, ...] = ()


def way_out(tape: Recording, part: Slice) -> Way | None:
    """The matrix that makes a write, and what lies between the two; None where there is no single such matrix."""
    vn, norms, factors = part.leaf, [], []
    for _ in range(32):
        vn = tape.source(vn)
        for visit in projections(part):
            if vn in visit.outs.values():
                return Way(visit, tuple(reversed(norms)), tuple(reversed(factors)))
        call = tape.producer.get(vn)
        if call is None or not part.calls or call.time < part.calls[0].time:
            return None
        norm = next((v for v in tape.visits_of(call) if is_norm(v.module) and vn in v.outs.values()), None)
        if norm is not None:
            norms.append(norm.path)
            vn = first_in(norm)
            continue
        shape = tape.values[vn].shape
        moving = [v for v in call.ins if tape.values[v].shape == shape and not _parameter(tape, v)]
        if call.name in LAYOUT and tape.values[call.ins[0]].numel() == tape.values[vn].numel():
            vn = call.ins[0]
        elif len(moving) == 1 and call.name in SCALE:
            factors.append(factor(tape, call, moving[0]))
            vn = moving[0]
        else:
            return None
    return None


def factor(tape: Recording, call: Call, moving: int) -> float | Tensor:
    """The constant that a product or quotient applies to its moving side."""
    other = next((v for v in call.ins if v != moving), None)
    constant: float | Tensor
    if other is not None:
        constant = tape.values[other].detach()
    else:
        constant = next(float(a) for a in (*call.args, *call.kwargs.values()) if isinstance(a, (int, float)))
    return 1 / constant if "div" in call.name else constant


def _parameter(tape: Recording, vn: int) -> bool:
    while vn in tape.producer and tape.producer[vn].name in SAME | LAYOUT:
        vn = tape.producer[vn].ins[0]
    return vn not in tape.producer


def enclosing(tape: Recording, block: Visit, readers: list[int], vn: int, writes: list[int]) -> tuple[Visit, Slot] | None:
    """The smallest module, inside a block, that reads a value on behalf of all its readers (visit numbers)."""
    source = tape.source(vn)
    for visit in tape.chain(readers[0]):
        if visit.number == block.number:
            return None
        inside = all(any(v.number == visit.number for v in tape.chain(r)) for r in readers)
        slot = next((s for s, v in visit.ins.items() if v == vn or tape.source(v) == source), "none")
        if inside and slot != "none" and not any(visit.begin <= w < visit.end for w in writes):
            return visit, slot
    return None
