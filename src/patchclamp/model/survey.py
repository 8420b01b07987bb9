"""Survey: fills in a model's anatomy from a recording of one small forward pass.

The residual stream is followed through every block (`trail.py`), what writes into it is taken apart (`interior.py`), and
each value that has a name becomes a place. What cannot be read with certainty is refused, with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from patchclamp.model import interior
from patchclamp.model.anatomy import Anatomy, Block, Matrix, Step, Tower, Write
from patchclamp.model.interior import Core, Slice
from patchclamp.model.matrices import as_slice, feed_forward, heads_of
from patchclamp.model.place import Layout, Place
from patchclamp.model.trail import SCALE, inner_visit, leaves, mixes, trail
from patchclamp.model.trail import Step as Trod
from patchclamp.model.watch import DOOR, Call, Recording, Slot, Visit

FEED_FORWARD = re.compile(r"(^|[._])(mlp|ffn?|moe|ffns|experts)|feed_?forward", re.IGNORECASE)
"""Only asked of writes that mix tokens without attention: token-shifted feed-forward layers (RWKV) are still that."""


PLAIN = Layout()


@dataclass(eq=False)
class Survey:
    """What is being filled in, and the recording it is read from."""

    tape: Recording
    batch: int
    places: dict[str, Place] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, kind: str, visit: Visit, vn: int, axes: tuple[str, ...], **more) -> None:
        """Write down a place whose raw tensor is a value of the recording."""
        raw = self.tape.values[vn]
        layout = more.pop("layout", Layout())
        if raw.ndim == 2 and "pos" in axes and raw.shape[0] != self.batch:
            layout = Layout((("tokens",), *layout.steps))
        elif raw.ndim == 3 and raw.shape[0] != self.batch and raw.shape[1] == self.batch and axes[:2] == ("batch", "pos"):
            layout = Layout((("swap", 0, 1), *layout.steps))  # XLNet keeps tokens first
        value = layout.read(raw, self.batch)
        sizes = {a: n for a, n in zip(axes, value.shape) if a not in ("batch", "pos", "query", "key")}
        modules = more.pop("modules", (visit.path,))
        order = more.pop("order", visit.begin if kind == "input" else visit.end)
        self.places[path] = Place(path, kind, modules, visit.ordinal, axes=axes, sizes=sizes, layout=layout,
                                  copy=vn in self.tape.changed, order=order, **more)  # fmt: skip

    def produced(self, path: str, block: Visit, vn: int, axes: tuple[str, ...], layout: Layout = PLAIN) -> None:
        """A value tapped where it is made: as a module's output, else as the result of one function call."""
        visit = inner_visit(self.tape, block, vn)
        if visit is not None and visit.path != DOOR:
            source = self.tape.source(vn)
            slot = next(s for s, v in visit.outs.items() if self.tape.source(v) == source)
            self.put(path, "output", visit, vn, axes, slot=slot, layout=layout)
            return
        call = self.tape.producer[vn]
        scope = self.tape.visits[call.visit]
        self.put(path, "result", scope, vn, axes, op=self.nth(call), slot=call.outs.index(vn), layout=layout, order=call.time)

    def consumed(self, path: str, call: Call, vn: int, axes: tuple[str, ...], layout: Layout = PLAIN, **more) -> None:
        """A value tapped where one function call reads it."""
        scope = self.tape.visits[call.visit]
        self.put(path, "operand", scope, vn, axes, op=self.nth(call), slot=call.ins.index(vn), layout=layout,
                 order=call.time, **more)  # fmt: skip

    def nth(self, call: Call) -> tuple[str, int]:
        """A call's name, and how many of that name its module made before it."""
        before = [c for c in self.tape.calls[: call.time] if c.visit == call.visit and c.name == call.name]
        return call.name, len(before)

    def read(self, path: str, block: Visit, part: Slice, readers: list[Visit], writes: list[int]) -> None:
        """What a write reads: tapped at the smallest module that reads it, else at each of its readers."""
        found = interior.enclosing(self.tape, block, [v.number for v in readers], part.read, writes)
        axes = ("batch", "pos", "d_model")
        if found is not None:
            self.put(path, "input", found[0], part.read, axes, slot=found[1])
            return
        alias = interior.alias(self.tape, part.read)
        slots = [next(((s, v) for s, v in r.ins.items() if v in alias), None) for r in readers]
        if slots[0] is not None and len(set(slots)) == 1:
            slot, vn = slots[0]
            self.put(path, "input", readers[0], vn, axes, slot=slot, modules=tuple(r.path for r in readers))
        elif all(c in part.calls for v in alias for c in self.tape.consumers.get(v, [])):
            self.produced(path, block, part.read, axes)
        else:
            self.refused[path] = "what it reads passes through no module of its own"


def survey(module: nn.Module, tape: Recording, batch: int, stack: str = "") -> Anatomy:
    """The anatomy of a model whose forward pass over `batch` rows was recorded; `stack` names its list of blocks."""
    s = Survey(tape, batch)
    stacks = _stacks(module, tape, batch, stack)
    main = _main(module, tape, stacks)
    towers = []
    for container, visits in stacks.items():
        prefix = "" if container == main else _prefix(container, towers)
        blocks = tuple(_block_or_not(s, f"{prefix}blocks.{i}", visit) for i, visit in enumerate(visits))
        if any(b.steps for b in blocks) or any(p.startswith(f"{prefix}blocks.") for p in s.places):
            towers.append(_tower(s, prefix, visits, blocks))
    _ends(s, module, towers)
    result = tape.visits[0].outs
    vocab = tape.values[result["logits"]].shape[-1] if "logits" in result else 0
    places = dict(sorted(s.places.items(), key=lambda item: item[1].order))
    return Anatomy(places, s.refused, tuple(towers), vocab)


def _stacks(module: nn.Module, tape: Recording, batch: int, only: str) -> dict[str, list[Visit]]:
    """Visits of the members of module lists that read a stream and return one of the same shape, outermost lists only."""
    found: dict[str, list[Visit]] = {}
    for visit in tape.visits:
        container = visit.path.rpartition(".")[0]
        if not container or visit.path == DOOR or (only and container != only):
            continue
        if not only and not isinstance(module.get_submodule(container), nn.ModuleList):
            continue
        if any(_within(tape, visit, outer) for visits in found.values() for outer in visits):
            continue
        if _stream_slots(tape, visit, batch) is not None and next(visit.module.parameters(), None) is not None:
            found.setdefault(container, []).append(visit)
    return {c: v for c, v in found.items() if any(len(list(x.module.children())) for x in v)}


def _within(tape: Recording, visit: Visit, outer: Visit) -> bool:
    return any(v.number == outer.number for v in tape.chain(visit.parent))


def _stream_slots(tape: Recording, visit: Visit, batch: int) -> tuple[Slot, Slot] | None:
    """Through which slots a block's stream comes in and goes out."""
    for slot, vn in visit.ins.items():
        x = tape.values[vn]
        if not x.is_floating_point() or not (_is_stream(x, batch) or _is_streams(tape, x, batch)):
            continue
        for out, made in visit.outs.items():
            if tape.values[made].shape == x.shape and made != vn:
                return slot, out
    return None


def _is_stream(x: Tensor, batch: int) -> bool:
    return x.ndim == 3 and batch in x.shape[:2]


def _is_streams(tape: Recording, x: Tensor, batch: int) -> bool:
    """Several streams side by side, of a model that reads tokens; four dimensions are pictures elsewhere."""
    ids = tape.values[0]
    return x.ndim == 4 and batch in x.shape[:2] and not ids.is_floating_point() and ids.shape[-1] in x.shape[1:3]


def _main(module: nn.Module, tape: Recording, stacks: dict[str, list[Visit]]) -> str:
    """The stack that leads to the output: the only one, or the last to run where there are logits or a decoder."""
    if len(stacks) == 1:
        return next(iter(stacks))
    config = getattr(module, "config", None)
    ends = "logits" in tape.visits[0].outs or getattr(config, "is_encoder_decoder", False)
    if not ends or not stacks:
        return ""
    return max(stacks, key=lambda c: stacks[c][-1].end)


def _prefix(container: str, towers: list[Tower]) -> str:
    word, taken = _word(container), {t.prefix for t in towers}
    return next(name for i in range(1, 99) if (name := f"{word}{i if i > 1 else ''}.") not in taken)


def _word(container: str) -> str:
    for word, names in {
        "vision": ("vision", "visual", "image", "vit", "dino"), "audio": ("audio", "speech", "wav"),
        "text": ("text", "language"), "encoder": ("encoder",), "decoder": ("decoder",),
    }.items():  # fmt: skip
        if any(n in container.lower() for n in names):
            return word
    return re.sub(r"\W", "_", container.rsplit(".", 1)[0])


def _tower(s: Survey, prefix: str, visits: list[Visit], blocks: tuple[Block, ...]) -> Tower:
    """The stack as a whole: its width, its final norm, whether later tokens are hidden from earlier ones."""
    slots = _stream_slots(s.tape, visits[0], s.batch)
    assert slots is not None
    width = s.tape.values[visits[0].ins[slots[0]]].shape[-1]
    last = visits[-1].outs[_stream_slots(s.tape, visits[-1], s.batch)[1]]  # type: ignore[index]
    norm = _final_norm(s, prefix, visits[-1], last)
    causal = _forward_only(s.tape, visits, slots, s.batch)
    return Tower(prefix, width, blocks, causal, norm, 0 if prefix else _head(s, last))


def _head(s: Survey, last: int) -> int:
    """How many matrices lie between what the last block returns and the logits."""
    top = s.tape.visits[0].outs
    if not top:
        return 0
    calls, _ = s.tape.ancestors(top.get("logits", next(iter(top.values()))), {last, s.tape.source(last)})
    since = s.tape.producer[last].time
    return sum(c.time > since and c.name in ("linear", "matmul", "addmm", "__matmul__", "einsum") for c in calls)


def _forward_only(tape: Recording, visits: list[Visit], slots: tuple[Slot, Slot], batch: int) -> bool:
    """True where no earlier token sees a later one: the stream's gradient at token 0 stops at token 0."""
    x, y = tape.values[visits[0].ins[slots[0]]], tape.values[visits[-1].outs[slots[1]]]
    if not (x.requires_grad and y.requires_grad) or x.ndim != 3:
        return False
    try:
        (g,) = torch.autograd.grad(y[0, 0].float().sum(), x, retain_graph=True, allow_unused=True)
    except RuntimeError:
        return False
    if g is None:
        return False
    g = g if g.shape[0] == batch else g.transpose(0, 1)
    return g.shape[1] > 1 and not bool(g[0, 1:].abs().max() > 0)


def _final_norm(s: Survey, prefix: str, last_block: Visit, out: int) -> str:
    for visit in s.tape.visits[last_block.number :]:
        if visit.begin >= last_block.end and interior.is_norm(visit.module) and len(visit.ins) == 1:
            if s.tape.source(interior.first_in(visit)) == s.tape.source(out):
                s.put(f"{prefix}norm.out", "output", visit, interior.first_out(visit), ("batch", "pos", "d_model"),
                      slot=next(iter(visit.outs)))  # fmt: skip
                return visit.path
    s.refused[f"{prefix}norm.out"] = "no norm reads what the last block returns"
    return ""


def _ends(s: Survey, module: nn.Module, towers: list[Tower]) -> None:
    """`embed.out` and `logits`."""
    embedding = None
    if hasattr(module, "get_input_embeddings"):
        try:
            embedding = module.get_input_embeddings()  # type: ignore[operator]
        except (NotImplementedError, AttributeError):
            embedding = None
    visit = next((v for v in s.tape.visits if v.module is embedding and v.path != DOOR), None)
    if visit is not None and s.tape.values[interior.first_out(visit)].ndim == 3:
        s.put(
            "embed.out",
            "output",
            visit,
            interior.first_out(visit),
            ("batch", "pos", "d_model"),
            slot=next(iter(visit.outs)),
        )
    else:
        s.refused["embed.out"] = "no single module embeds the tokens"
    top = s.tape.visits[0]
    if "logits" in top.outs and s.tape.values[top.outs["logits"]].ndim == 3:
        s.put("logits", "output", top, top.outs["logits"], ("batch", "pos", "vocab"), slot="logits")
    elif None in top.outs and s.tape.values[top.outs[None]].ndim == 3:
        s.put("logits", "output", top, top.outs[None], ("batch", "pos", "vocab"), slot=None)
    else:
        s.refused["logits"] = "it returns no logits per token"


def _block_or_not(s: Survey, path: str, visit: Visit) -> Block:
    """A block that cannot be read is refused, and the rest of the model served."""
    before = set(s.places)
    try:
        return _block(s, path, visit)
    except (KeyError, IndexError, StopIteration, RuntimeError, AssertionError) as error:
        for name in set(s.places) - before:
            del s.places[name]
        return _refuse(s, path, visit, f"its code could not be followed ({type(error).__name__}: {error})", ("in", "out"))


def _block(s: Survey, path: str, visit: Visit) -> Block:
    slots = _stream_slots(s.tape, visit, s.batch)
    assert slots is not None
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
    if not path.startswith("blocks.") or not lengths or len(lengths) != len(ids) or stream in lengths:
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


@dataclass(frozen=True, eq=False)
class _Part:
    name: str
    leaf: int
    slice: Slice
    core: Core | str | None
    step: int


def _writes(s: Survey, path: str, visit: Visit, start: int, trod: list[Trod]) -> Block:
    """Name what a block adds, and put down the places in and around each write."""
    parts = _parts(s, visit, start, trod)
    parts = _told_apart(s, visit, parts)
    names = [p.name for p in parts]
    doubled = sorted({n for n in names if names.count(n) > 1})
    if doubled:
        return _refuse(s, path, visit, f"it writes {len(parts)} times ({', '.join(names)}); {doubled[0]} is not one place")
    if "bottleneck" in names:
        return _refuse(s, path, visit, "what it adds holds attention and feed-forward layers together (a bottleneck)")
    writes_at = [s.tape.producer[t.result].time for t in trod if t.kind == "write"]
    writes = tuple(_write(s, path, visit, part, writes_at) for part in parts)
    after = _mid(s, path, visit, start, trod, parts)
    steps = tuple(_step(s, t, [p for p in parts if p.step == i]) for i, t in enumerate(trod))
    for name in ("attn", "mlp"):
        if name not in names:
            s.refused[f"{path}.{name}"] = f"this block has none; it has {', '.join(names) or 'no writes'}"
    return Block(path, visit.path, visit.ordinal, writes, steps, after)


def _parts(s: Survey, visit: Visit, start: int, trod: list[Trod]) -> list[_Part]:
    stream, found = [start], []
    for i, step in enumerate(trod):
        if step.kind == "write":
            for leaf in leaves(s.tape, visit, step.branch):
                part = interior.slice_of(s.tape, visit, leaf, stream)
                core = interior.core_of(s.tape, part)
                found.append(_Part(_name(s, visit, part, core, stream), leaf, part, core, i))
        stream = [*stream, step.result]
    return found


def _name(s: Survey, visit: Visit, part: Slice, core: Core | str | None, stream: list[int]) -> str:
    if isinstance(core, Core):
        since = part.calls[0].time
        own = core.k < 0 or part.read in s.tape.ancestors(core.k, {part.read}, since)[1]
        return "attn" if own else "cross"
    if core is not None:
        return "attn" if "bottleneck" not in core else "bottleneck"
    mixing = mixes(s.tape, part.leaf, stream)
    module = inner_visit(s.tape, visit, part.leaf)
    words = "" if module is None else module.path.removeprefix(visit.path)
    return "mixer" if mixing and not FEED_FORWARD.search(words) else "mlp"


def _told_apart(s: Survey, visit: Visit, parts: list[_Part]) -> list[_Part]:
    """Where a block writes more than one feed-forward-like thing, the one whose module says so is `mlp`, one other `extra`."""
    if sum(p.name == "mlp" for p in parts) != 2:
        return parts
    modules = [inner_visit(s.tape, visit, p.leaf) for p in parts]
    said = [m is not None and bool(FEED_FORWARD.search(m.path.removeprefix(visit.path))) for m in modules]
    if sum(yes for yes, p in zip(said, parts) if p.name == "mlp") != 1:
        return parts
    return [replace(p, name="extra") if p.name == "mlp" and not yes else p for p, yes in zip(parts, said)]


def _mid(s: Survey, path: str, visit: Visit, start: int, trod: list[Trod], parts: list[_Part]) -> int:
    """`mid` is the stream that the feed-forward layer reads, where something was written before it."""
    mlp = next((p for p in parts if p.name == "mlp"), None)
    earlier = [p for p in parts if mlp is not None and p.step < mlp.step]
    if mlp is None or not earlier:
        s.refused[f"{path}.mid"] = "attention and MLP are added together" if len(parts) > 1 else "it has one write only"
        return 0
    after = mlp.step
    while after and trod[after - 1].kind == "scale":
        after -= 1
    value = trod[after - 1].result
    if s.tape.source(mlp.slice.base) == s.tape.source(start):
        s.refused[f"{path}.mid"] = "attention and MLP read the same stream (a parallel block)"
        return 0
    s.produced(f"{path}.mid", visit, value, ("batch", "pos", "d_model"))
    return after


def _step(s: Survey, trod: Trod, parts: list[_Part]) -> Step:
    if trod.kind == "write":
        return Step("write", tuple(p.name for p in parts))
    call = s.tape.producer[trod.result]
    if trod.kind == "scale":
        return Step("scale", factor=interior.factor(s.tape, call, trod.base))
    norm = next((v.path for v in s.tape.visits_of(call) if interior.is_norm(v.module)), "")
    return Step("norm", norm=norm)


def _write(s: Survey, path: str, visit: Visit, part: _Part, writes_at: list[int]) -> Write:
    here = f"{path}.{part.name}"
    s.produced(f"{here}.out", visit, part.leaf, ("batch", "pos", "d_model"))
    if part.name in ("attn", "cross"):
        return _attention(s, path, visit, part, writes_at)
    readers = _readers(s, part)
    if readers:
        s.read(f"{here}.in", visit, part.slice, readers, writes_at)
    if part.name == "mlp":
        return _feed_forward(s, path, part)
    return Write(part.name)


def _readers(s: Survey, part: _Part) -> list[Visit]:
    """The innermost modules of a slice that read what it reads, casts and rearrangements of it included."""
    alias = interior.alias(s.tape, part.slice.read)
    calls = [c for c in part.slice.calls if alias & set(c.ins) and not alias & set(c.outs)]
    numbers = dict.fromkeys(c.visit for c in calls)
    return [s.tape.visits[n] for n in numbers if n >= 0]


def _attention(s: Survey, path: str, visit: Visit, part: _Part, writes_at: list[int]) -> Write:
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
            if core.reason:
                s.refused[f"{here}.{name}"] = core.reason
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
        if call is None or raw is None or raw.ndim not in (3, 4) or s.tape.visits[call.visit] is not scope:
            s.refused[f"{here}.{name}"] = core.reason or "its product is not one call on whole heads"
            continue
        stacked = (("stack", raw.shape[0] // batch),) if raw.ndim == 3 else ()
        layout = Layout((*turned[name], *stacked, ("swap", 1, 2)))
        s.consumed(f"{here}.{name}", call, vn, ("batch", "pos", "head" if name == "q" else "kv_head", "d_head"), layout,
                   whole=name != "q")  # fmt: skip
    return heads


def _feed_forward(s: Survey, path: str, part: _Part) -> Write:
    here = f"{path}.mlp"
    _mixture(s, path, part.slice)
    found = feed_forward(s.tape, part.slice)
    if isinstance(found, str):
        for name in ("pre", "gate", "act"):
            s.refused[f"{here}.{name}"] = found
        return Write("mlp")
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
    return Write("mlp", matrices=matrices, norm=norm, norms=way.norms, factors=way.factors, linear=True)


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
