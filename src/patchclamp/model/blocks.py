"""Blocks: what a block adds to the stream, in which order, and what each addition is called.

The stream is followed through the block (`trail.py`); a write with attention in it is `attn` (or `cross`, where its keys
come from elsewhere), one that mixes tokens otherwise is a `mixer`, one that does not is `mlp`. What does not come out as
a sum is refused.
"""

from __future__ import annotations

import re
from dataclasses import replace

from patchclamp.model import interior
from patchclamp.model.anatomy import Block, Step
from patchclamp.model.interior import Core, Slice
from patchclamp.model.place import Layout
from patchclamp.model.survey import Survey
from patchclamp.model.trail import Step as Trod
from patchclamp.model.trail import inner_visit, leaves, mixes, trail
from patchclamp.model.watch import Slot, Visit
from patchclamp.model.writes import Part, read_write

FEED_FORWARD = re.compile(r"(^|[._])(mlp|ffn?|moe|ffns|experts)|feed_?forward", re.IGNORECASE)
"""Only asked of writes that mix tokens without attention: token-shifted feed-forward layers (RWKV) are still that."""


def read_block(s: Survey, path: str, visit: Visit, slots: tuple[Slot, Slot]) -> Block:
    """Put down a block's places; one that cannot be read is refused, and the rest of the model served.

    `slots` say through which argument its stream comes in, and through which output it goes out.
    """
    before = set(s.places)
    try:
        return _block(s, path, visit, slots)
    except (KeyError, IndexError, StopIteration, RuntimeError, AssertionError) as error:
        for name in set(s.places) - before:
            del s.places[name]
        return _refuse(s, path, visit, f"its code could not be followed ({type(error).__name__}: {error})", ("in", "out"))


def _block(s: Survey, path: str, visit: Visit, slots: tuple[Slot, Slot]) -> Block:
    start, end = visit.ins[slots[0]], visit.outs[slots[1]]
    if s.tape.values[start].ndim == 4:
        return _streams(s, path, visit, slots)
    extra = _more_than_tokens(s, path, start)
    if extra:
        return _refuse(s, path, visit, extra, ("in", "out"))
    trod = trail(s.tape, visit, start, end)
    if trod is None:
        return _refuse(s, path, visit, "its output is not its input plus what its parts add", ("in", "out"))
    axes = ("batch", "pos", "d_model")
    s.put(f"{path}.in", "input", visit, start, axes, slot=slots[0])
    s.put(f"{path}.out", "output", visit, end, axes, slot=slots[1])
    return _writes(s, path, visit, start, trod)


def _more_than_tokens(s: Survey, path: str, start: int) -> str:
    """Why positions would not be tokens: a stream that is longer than the prompt (learned prompts put before it)."""
    ids = [s.tape.values[v] for v in s.tape.visits[0].ins.values()]
    lengths = {i.shape[1] for i in ids if not i.is_floating_point() and i.ndim == 2 and i.shape[0] == s.batch}
    shape = s.tape.values[start].shape
    stream = shape[1] if shape[0] == s.batch else shape[0]
    if not path.startswith(("blocks.", "encoder.blocks.")) or not lengths or len(lengths) != len(ids) or stream in lengths:
        return ""
    return f"its stream holds {stream} places for {max(lengths)} tokens, so positions would not be tokens"


def _refuse(s: Survey, path: str, visit: Visit, reason: str, more: tuple[str, ...] = ()) -> Block:
    for name in (*more, "mid", "attn", "mlp"):
        s.refused[f"{path}.{name}"] = reason
    return Block(path, visit.path, visit.ordinal)


def _streams(s: Survey, path: str, visit: Visit, slots: tuple[Slot, Slot]) -> Block:
    """Several streams side by side (hyper-connections, AltUp): one place that holds them all, and no `in | mid | out`."""
    vn = visit.outs[slots[1]]
    shape = s.tape.values[vn].shape
    if shape[0] != s.batch:  # (stream, batch, pos, d)
        count, steps = shape[0], (("swap", 0, 1), ("swap", 1, 2))
    else:  # (batch, pos, stream, d) or (batch, stream, pos, d); the token axis is the longer one of the small pass
        ids = s.tape.values[0]
        swapped = shape[1] != ids.shape[-1] and shape[2] == ids.shape[-1]
        count, steps = shape[1 if swapped else 2], (("swap", 1, 2),) if swapped else ()
    axes = ("batch", "pos", "stream", "d_model")
    s.put(f"{path}.streams", "output", visit, vn, axes, slot=slots[1], layout=Layout(steps))
    reason = f"it has {count} residual streams; see {path}.streams"
    for name in ("in", "mid", "out", "attn", "mlp"):
        s.refused[f"{path}.{name}"] = reason
    return Block(path, visit.path, visit.ordinal)


def _writes(s: Survey, path: str, visit: Visit, start: int, trod: list[Trod]) -> Block:
    """Name what a block adds, and put down the places in and around each write."""
    parts = _parts(s, visit, start, trod)
    parts = _numbered(_told_apart(s, visit, parts))
    names = [p.name for p in parts]
    if "bottleneck" in names:
        return _refuse(s, path, visit, "what it adds holds attention and feed-forward layers together (a bottleneck)")
    writes_at = [s.tape.producer[t.result].time for t in trod if t.kind == "write"]
    writes = tuple(read_write(s, path, visit, part, writes_at) for part in parts)
    after = _mid(s, path, visit, start, trod, parts)
    steps = tuple(_step(s, t, [p for p in parts if p.step == i]) for i, t in enumerate(trod))
    for name in ("attn", "mlp"):
        if name not in names:
            s.refused[f"{path}.{name}"] = f"this block has none; it has {', '.join(names) or 'no writes'}"
    return Block(path, visit.path, visit.ordinal, writes, steps, after)


def _parts(s: Survey, visit: Visit, start: int, trod: list[Trod]) -> list[Part]:
    stream, found = [start], []
    for i, step in enumerate(trod):
        if step.kind == "write":
            for leaf in leaves(s.tape, visit, step.branch):
                part = interior.slice_of(s.tape, visit, leaf, stream)
                core = interior.core_of(s.tape, part)
                found.append(Part(_name(s, visit, part, core, stream), leaf, part, core, i))
        stream = [*stream, step.result]
    return found


def _name(s: Survey, visit: Visit, part: Slice, core: Core | str | None, stream: list[int]) -> str:
    if isinstance(core, Core):
        since = part.calls[0].time
        read = interior.alias(s.tape, part.read)
        own = core.k < 0 or bool(read & s.tape.ancestors(core.k, read, since)[1])
        return "attn" if own else "cross"
    if core is not None:
        return "attn" if "bottleneck" not in core else "bottleneck"
    mixing = mixes(s.tape, part.leaf, stream)
    module = inner_visit(s.tape, visit, part.leaf)
    words = "" if module is None else module.path.removeprefix(visit.path)
    return "mixer" if mixing and not FEED_FORWARD.search(words) else "mlp"


def _told_apart(s: Survey, visit: Visit, parts: list[Part]) -> list[Part]:
    """Where a block writes more than one feed-forward-like thing, the one whose module says so is `mlp`, one other `extra`."""
    if sum(p.name == "mlp" for p in parts) != 2:
        return parts
    modules = [inner_visit(s.tape, visit, p.leaf) for p in parts]
    said = [m is not None and bool(FEED_FORWARD.search(m.path.removeprefix(visit.path))) for m in modules]
    if sum(yes for yes, p in zip(said, parts) if p.name == "mlp") != 1:
        return parts
    return [replace(p, name="extra") if p.name == "mlp" and not yes else p for p, yes in zip(parts, said)]


def _numbered(parts: list[Part]) -> list[Part]:
    """A block that writes the same kind of thing again (a conformer's two feed-forward layers) has `mlp` and then `mlp2`."""
    names = [p.name for p in parts]
    return [
        replace(p, name=f"{p.name}{count}") if (count := names[: i + 1].count(p.name)) > 1 else p for i, p in enumerate(parts)
    ]


def _mid(s: Survey, path: str, visit: Visit, start: int, trod: list[Trod], parts: list[Part]) -> int:
    """`mid` is the stream that the feed-forward layer reads, where something was written before it."""
    mlp = next((p for p in parts if p.name == "mlp"), None)
    earlier = [p for p in parts if mlp is not None and p.step < mlp.step]
    if mlp is None or not earlier:
        together = mlp is not None and any(p.step == mlp.step for p in parts if p is not mlp)
        s.refused[f"{path}.mid"] = (
            "it has one write only" if len(parts) == 1
            else "attention and MLP are added together" if together
            else "nothing is added before its feed-forward layer" if mlp is not None
            else "no feed-forward layer reads the stream after another write"
        )  # fmt: skip
        return 0
    after = mlp.step
    while after and trod[after - 1].kind in ("scale", "shift"):
        after -= 1
    value = trod[after - 1].result
    if s.tape.source(mlp.slice.base) == s.tape.source(start):
        s.refused[f"{path}.mid"] = "attention and MLP read the same stream (a parallel block)"
        return 0
    s.produced(f"{path}.mid", visit, value, ("batch", "pos", "d_model"))
    return after


def _step(s: Survey, trod: Trod, parts: list[Part]) -> Step:
    if trod.kind == "write":
        return Step("write", tuple(p.name for p in parts))
    call = s.tape.producer[trod.result]
    if trod.kind == "scale":
        return Step("scale", factor=interior.factor(s.tape, call, trod.base))
    if trod.kind == "shift":
        return Step("shift", shift=s.tape.values[trod.branch].detach())
    norm = next((v.path for v in s.tape.visits_of(call) if interior.is_norm(v.module)), "")
    return Step("norm", norm=norm)
