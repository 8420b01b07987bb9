"""Writes: the places in and around one thing that a block adds to the stream.

Attention has q, k, v, scores, pattern and z; a feed-forward layer its neurons; a mixture its router and experts. The
values are found by `interior.py`, their matrices by `matrices.py`; here they become places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from patchclamp.model import interior
from patchclamp.model.anatomy import Matrix, Write
from patchclamp.model.interior import Core, Slice
from patchclamp.model.matrices import as_slice, feed_forward, heads_of
from patchclamp.model.place import Layout, Place
from patchclamp.model.survey import WINDOWS, Survey
from patchclamp.model.trail import SCALE
from patchclamp.model.watch import Call, Recording, Visit


@dataclass(frozen=True, eq=False)
class Part:
    """One write while it is being read: its name, its value, what led to it, and which step of the stream it is."""

    name: str
    leaf: int
    slice: Slice
    core: Core | str | None
    step: int

    @property
    def kind(self) -> str:
        """The name without its number: `mlp` of `mlp2`."""
        return self.name.rstrip("0123456789")


def read_write(s: Survey, path: str, visit: Visit, part: Part, writes_at: list[int]) -> Write:
    """A write that attention, a feed-forward layer or something else made to the stream: its sites, and what it is made of."""
    here = f"{path}.{part.name}"
    s.produced(f"{here}.out", visit, part.leaf, ("batch", "pos", "d_model"))
    if part.kind in ("attn", "cross"):
        return _attention(s, path, visit, part, writes_at)
    readers = _readers(s, part)
    if readers:
        s.read(f"{here}.in", visit, part.slice, readers, writes_at)
    if part.kind == "mlp":
        return _feed_forward(s, path, part)
    return Write(part.name)


def _readers(s: Survey, part: Part) -> list[Visit]:
    """The innermost modules of a slice that read what it reads, casts and rearrangements of it included."""
    alias = interior.alias(s.tape, part.slice.read)
    calls = [c for c in part.slice.calls if alias & set(c.ins) and not alias & set(c.outs)]
    numbers = dict.fromkeys(c.visit for c in calls)
    return [s.tape.visits[n] for n in numbers if n >= 0]


def _attention(s: Survey, path: str, visit: Visit, part: Part, writes_at: list[int]) -> Write:
    here, core = f"{path}.{part.name}", part.core
    if not isinstance(core, Core):
        for name in ("in", "q", "k", "v", "scores", "pattern", "z"):
            s.refused[f"{here}.{name}"] = str(core)
        return Write(part.name)
    heads = _core_places(s, here, core)
    kv = s.places[f"{here}.k"].sizes.get("kv_head", heads) if f"{here}.k" in s.places else heads
    way = interior.way_out(s.tape, part.slice)
    read = interior.reader(s.tape, part.slice, core.out)
    matrices, linear = {}, False
    if read is not None and heads and s.tape.values[interior.first_in(read)].shape[-1] % heads == 0:
        layout = Layout((("heads", heads),))
        s.put(f"{here}.z", "input", read, interior.first_in(read), ("batch", "pos", "head", "d_head"),
              slot=next(iter(read.ins)), layout=layout)  # fmt: skip
        matrices["o"] = Matrix(read.path)
        _gate(s, here, core, interior.first_in(read), heads)
        linear = way is not None and way.visit.number == read.number
    else:
        s.refused[f"{here}.z"] = "no single matrix reads the heads"
    matrices |= heads_of(s.tape, part.slice, core, heads, kv)
    sources = [interior.makers(s.tape, part.slice, v) for v in (core.q, core.k, core.v) if v >= 0]
    first = list({v.number: v for made in sources for v in made}.values())
    alias = interior.alias(s.tape, part.slice.read)
    readers = [v for v in first if interior.first_in(v) in alias]
    if readers:
        s.read(f"{here}.in", visit, part.slice, readers, writes_at)
    elif first and len({interior.first_in(v) for v in first}) == 1:  # a multiplier stands before the projections
        slot = next(iter(first[0].ins))
        s.put(f"{here}.in", "input", first[0], interior.first_in(first[0]), ("batch", "pos", "d_model"), slot=slot,
              modules=tuple(v.path for v in first))  # fmt: skip
    else:
        s.refused[f"{here}.in"] = "no projection reads the stream directly"
    norms, factors = (way.norms, way.factors) if way else ((), ())
    return Write(part.name, heads, kv, matrices, _norm_before(s, part.slice), norms, factors, linear)


def _gate(s: Survey, here: str, core: Core, z: int, heads: int) -> None:
    """What multiplies the heads before the output projection, where attention is gated."""
    while z not in interior.alias(s.tape, core.out):
        call = s.tape.producer.get(z)
        if call is None:
            return
        if call.name in SCALE and len(set(call.ins)) == 2:
            sides = sorted(set(call.ins), key=lambda v: core.out in s.tape.ancestors(v, {core.out}, core.begin)[1])
            value = s.tape.values[sides[0]]
            if value.shape == s.tape.values[z].shape and value.ndim == 3:
                s.consumed(f"{here}.gate", call, sides[0], ("batch", "pos", "head", "d_head"), Layout((("heads", heads),)))
            return
        z = call.ins[0]


def _norm_before(s: Survey, part: Slice) -> str:
    """The module of the norm that made what a write reads."""
    call = s.tape.producer.get(part.read)
    visits = [] if call is None else s.tape.visits_of(call)
    return next((v.path for v in visits if interior.is_norm(v.module) and part.read in v.outs.values()), "")


def _core_places(s: Survey, here: str, core: Core) -> int:
    """q, k, v, scores and pattern; returns the number of heads."""
    tape, batch = s.tape, s.batch
    if core.kind == "door":
        q = tape.values[core.q]
        for name, vn in (("q", core.q), ("k", core.k), ("v", core.v)):
            axes = ("batch", "pos", "head" if name == "q" else "kv_head", "d_head")
            s.put(f"{here}.{name}", "door", core.visit, vn, axes, slot=name, layout=Layout((("swap", 1, 2),)),
                  order=core.begin, whole=name != "q")  # fmt: skip
        for name in ("scores", "pattern"):
            if core.reason or q.shape[0] != batch:
                s.refused[f"{here}.{name}"] = core.reason or WINDOWS
            else:
                s.places[f"{here}.{name}"] = Place(
                    f"{here}.{name}", "eager", (core.visit.path,), core.visit.ordinal, slot=name,
                    axes=("batch", "head", "query", "key"), sizes={"head": q.shape[1]}, order=core.begin,
                )  # fmt: skip
        return q.shape[1]
    if core.kind == "kernel":
        return _kernel_places(s, here, core)
    return _hand_places(s, here, core, batch)


def _kernel_places(s: Survey, here: str, core: Core) -> int:
    """A fused call shows what goes in; scores and pattern never exist."""
    call = s.tape.producer[core.out]
    for name in ("scores", "pattern"):
        s.refused[f"{here}.{name}"] = core.reason
    if s.tape.values[core.q].ndim != 4:
        for name in "qkv":
            s.refused[f"{here}.{name}"] = "its fused kernel is not called on whole heads"
        return 0
    for name, vn in (("q", core.q), ("k", core.k), ("v", core.v)):
        axes = ("batch", "pos", "head" if name == "q" else "kv_head", "d_head")
        s.consumed(f"{here}.{name}", call, vn, axes, Layout((("swap", 1, 2),)), whole=name != "q")
    return s.tape.values[core.q].shape[1]


def _hand_places(s: Survey, here: str, core: Core, batch: int) -> int:
    assert core.softmax is not None and core.value_product is not None
    scores = s.tape.values[core.softmax.ins[0]]
    heads = scores.shape[1] if scores.ndim == 4 else scores.shape[0] // batch
    opened = () if scores.ndim == 4 else (("stack", heads),)
    axes = ("batch", "head", "query", "key")
    s.consumed(f"{here}.scores", core.softmax, core.softmax.ins[0], axes, Layout(opened))
    scope = s.tape.visits[core.softmax.visit]
    weights = next(
        (v for v in core.value_product.ins if v in interior.alias(s.tape, core.softmax.outs[0], interior.MASKED)), -1
    )
    raw = s.tape.values[weights]
    if core.value_product.visit == core.softmax.visit and raw.shape[-2:] == scores.shape[-2:]:  # what weights the values
        stacked = (("stack", raw.shape[0] // batch),) if raw.ndim == 3 else ()
        s.consumed(f"{here}.pattern", core.value_product, weights, axes, Layout(stacked))
    else:
        s.put(f"{here}.pattern", "result", scope, core.softmax.outs[0], axes, op=s.nth(core.softmax), slot=0,
              layout=Layout(opened), order=core.softmax.time)  # fmt: skip
    turned = {"q": (), "k": (("swap", -1, -2),), "v": ()}
    calls = {"q": core.scores_product, "k": core.scores_product, "v": core.value_product}
    for name, vn in (("q", core.q), ("k", core.k), ("v", core.v)):
        call = calls[name]
        raw = s.tape.values[vn] if vn >= 0 else None
        whole = raw is not None and raw.ndim in (3, 4) and raw.shape[0] % batch == 0
        if call is None or raw is None or not whole or s.tape.visits[call.visit] is not scope:
            s.refused[f"{here}.{name}"] = core.reason or "no one product over whole heads reads it"
            continue
        stacked = (("stack", raw.shape[0] // batch),) if raw.ndim == 3 else ()
        layout = Layout((*turned[name], *stacked, ("swap", 1, 2)))
        s.consumed(f"{here}.{name}", call, vn, ("batch", "pos", "head" if name == "q" else "kv_head", "d_head"), layout,
                   whole=name != "q")  # fmt: skip
    return heads


def _feed_forward(s: Survey, path: str, part: Part) -> Write:
    here = f"{path}.{part.name}"
    _mixture(s, path, part.slice)
    found = feed_forward(s.tape, part.slice)
    if isinstance(found, str):
        for name in ("pre", "gate", "act"):
            s.refused[f"{here}.{name}"] = found
        return Write(part.name, norm=_norm_before(s, part.slice))
    axes = ("batch", "pos", "neuron")
    act = interior.first_in(found.out)
    s.put(f"{here}.act", "input", found.out, act, axes, slot=next(iter(found.out.ins)))
    s.put(f"{here}.pre", "output", found.inner, interior.first_out(found.inner), axes, slot=next(iter(found.inner.outs)),
          layout=_part_layout(found.inner_features))  # fmt: skip
    matrices = {"in": Matrix(found.inner.path, found.inner_features), "out": Matrix(found.out.path)}
    if found.gate is None:
        s.refused[f"{here}.gate"] = "it has no gate"
    else:
        s.put(f"{here}.gate", "output", found.gate, interior.first_out(found.gate), axes,
              slot=next(iter(found.gate.outs)), layout=_part_layout(found.gate_features))  # fmt: skip
        matrices["gate"] = Matrix(found.gate.path, found.gate_features)
    way = interior.way_out(s.tape, part.slice)
    assert way is not None
    norm = _norm_before(s, part.slice)
    return Write(part.name, matrices=matrices, norm=norm, norms=way.norms, factors=way.factors, linear=True)


def _part_layout(features: Tensor | None) -> Layout:
    if features is None:
        return Layout()
    part = as_slice(features)
    assert part is not None, "a fused matrix whose halves are neither adjacent nor interleaved"
    return Layout((("part", *part),))


def _mixture(s: Survey, path: str, part: Slice) -> None:
    """The router and the experts of a mixture, where the write is one."""
    tape = s.tape
    picks = [c for c in part.calls if c.name == "topk" and len(c.outs) == 2]
    for pick in picks:
        chosen = interior.alias(tape, pick.outs[1])
        experts = next((v for v in part.visits if chosen & set(v.ins.values()) and v.begin >= pick.time), None)
        logits = _router_logits(tape, part, pick)
        if experts is None or logits is None:
            continue
        slot, vn = next((x, v) for x, v in experts.ins.items() if v in chosen)
        shape = tape.values[vn].shape
        weights = next(((x, v) for x, v in experts.ins.items() if tape.values[v].shape == shape and v != vn), None)
        hidden = next((v for v in experts.ins.values() if tape.values[v].shape[-1] != shape[-1]), None)
        made = tape.producer[logits]
        scope = tape.visits[made.visit]
        s.put(f"{path}.router.logits", "result", scope, logits, ("batch", "pos", "expert"), op=s.nth(made),
              slot=made.outs.index(logits), order=made.time)  # fmt: skip
        s.put(f"{path}.router.chosen", "input", experts, vn, ("batch", "pos", "chosen"), slot=slot)
        if weights is not None and hidden is not None:
            s.put(f"{path}.router.weights", "input", experts, weights[1], ("batch", "pos", "chosen"), slot=weights[0])
            n = tape.values[logits].shape[-1]
            s.put(
                f"{path}.experts",
                "experts",
                experts,
                hidden,
                ("batch", "pos", "d_model"),
                slot=next(iter(experts.outs)),
            )
            place = s.places[f"{path}.experts"]
            s.places[f"{path}.experts"] = replace(
                place, axes=("batch", "pos", "expert", "d_model"), sizes={"expert": n, **place.sizes}, order=experts.end
            )
        return
    if picks:
        s.refused[f"{path}.router"] = "its routing is not a choice of the top experts handed to one module"


def _router_logits(tape: Recording, part: Slice, pick: Call) -> int | None:
    """The scores that a choice of experts was made from: the last matrix product before it."""
    calls, _ = tape.ancestors(pick.ins[0], {part.read}, part.calls[0].time)
    width = tape.values[pick.ins[0]].shape[-1]
    made = [c for c in calls if c.name in ("linear", "matmul", "addmm", "mm") and tape.values[c.outs[0]].shape[-1] == width]
    return made[-1].outs[0] if made else None
