"""Wires: the edges between the parts of a model. What each part writes into the stream, and what each part reads from it.

In a model whose stream is a sum, an attention head's query reads the embedding plus what every earlier head and feed-forward
layer wrote; each of these summands is a wire (Elhage et al. 2021). Here a pass can be made in which every wire carries a
mixture of what this run and another run wrote, the gradient of a metric can be read at the end of every wire, and what a
single changed wire does to its receiver can be computed for all wires at once.

    senders     blocks.0.in (the embedding), blocks.i.attn.z[head=h], blocks.i.mlp.out
    receivers   blocks.i.attn.q[head=h], blocks.i.attn.k[kv_head=g], blocks.i.attn.v[kv_head=g], blocks.i.mlp.in, logits

Nothing of the model is written again: a query under a changed stream comes out of the model's own norm and attention module.
What heads write is their values through the output matrix; a norm behind it is held at its scale. Models whose stream is
not a sum of attention and feed-forward layers are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchclamp.core.axes import Logits
from patchclamp.core.edit import Edit
from patchclamp.core.errors import Unserved
from patchclamp.core.run import Run
from patchclamp.model.anatomy import Block, Matrix, Write
from patchclamp.model.attention import doorway
from patchclamp.model.example import example
from patchclamp.model.inputs import Inputs, logits_of
from patchclamp.model.norms import normed
from patchclamp.model.place import Place
from patchclamp.model.ride import Base, handing_on, tile_arguments

if TYPE_CHECKING:
    from patchclamp.model.model import Model

Written = Float[Tensor, "sender batch pos d_model"]
"""What each sender writes into the stream."""
Cut = Float[Tensor, "receiver sender *where"]
"""How much of each wire carries the other run's value: 0 nothing, 1 all. Further axes: (pos), or (batch, pos)."""
TOLERANCE = 1e-4
_SEEN: WeakKeyDictionary[Model, bool] = WeakKeyDictionary()
"""Models whose wires were seen to be right, and whether their heads are coupled."""
KINDS = ("q", "k", "v")


@dataclass(frozen=True)
class Reader:
    """The receivers of one write: the rows of a cut that are its queries, keys and values, or its one input."""

    block: int
    write: str
    rows: tuple[int, ...]
    kinds: tuple[str, ...]
    """For each row `q`, `k`, `v` or `in`."""
    heads: tuple[int, ...]
    before: int
    """How many senders it can hear: those that wrote into the stream before it reads."""


@dataclass(frozen=True, eq=False)
class Settled:
    """A run without cut wires, from which a run with cut ones can start at its first cut block."""

    base: Base
    written: Written


@dataclass(frozen=True, eq=False)
class Wires:
    """The wires of a model: `wires.senders`, `wires.receivers`, and which of their pairs are joined.

    >>> from patchclamp.model.wires import Wires
    >>> wires = Wires.of(model)
    >>> wires.senders[:2], wires.receivers[-1], int(wires.joined.sum())
    (('blocks.0.in', 'blocks.0.attn.z[head=0]'), 'logits', 1519)
    """

    model: Model
    blocks: tuple[Block, ...]
    readers: tuple[Reader, ...]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]

    @classmethod
    def of(cls, model: Model) -> Wires:
        """The wires of a model; an `Unserved` says why it has none that could be cut."""
        blocks = _servable(model)
        senders, receivers, readers = [f"{blocks[0].path}.in"], [], []
        for i, block in enumerate(blocks):
            attention, mlp = block.write("attn"), block.write("mlp")
            before = len(senders)
            if attention is not None:
                names = [(kind, h) for kind in KINDS for h in range(attention.heads if kind == "q" else attention.kv_heads)]
                rows = tuple(range(len(receivers), len(receivers) + len(names)))
                readers.append(Reader(i, "attn", rows, tuple(k for k, _ in names), tuple(h for _, h in names), before))
                receivers += [f"{block.path}.attn.{k}[{'head' if k == 'q' else 'kv_head'}={h}]" for k, h in names]
                senders += [f"{block.path}.attn.z[head={h}]" for h in range(attention.heads)]
            if mlp is not None:
                hears = len(senders) if f"{block.path}.mid" in model.anatomy.places else before
                readers.append(Reader(i, "mlp", (len(receivers),), ("in",), (0,), hears))
                receivers.append(f"{block.path}.mlp.in")
                senders.append(f"{block.path}.mlp.out")
        readers.append(Reader(len(blocks) - 1, "", (len(receivers),), ("in",), (0,), len(senders)))
        receivers.append("logits")
        made = cls(model, blocks, tuple(readers), tuple(senders), tuple(receivers))
        if model not in _SEEN:  # like the anatomy, that is found out once a model
            made._checked()
            _SEEN[model] = made.coupled
        return made

    @torch.no_grad()
    def _checked(self) -> Wires:
        """Nothing is served that was not seen to be right: with nothing changed, each reader hears what it hears anyway."""
        inputs = self.model.inputs(example(self.model.hf)["input_ids"])
        nothing = torch.zeros((len(self.senders), 1, 1, 1), dtype=self.model.dtype, device=self.model.device)
        run = self.model.run(inputs, [f"{self.blocks[r.block].path}.{p}" for r in self.readers for p in _ends(r)], logits=False)
        for reader, found in self.heard(inputs, nothing):
            path = self.blocks[reader.block].path
            for name, kind in zip(_ends(reader), ("in",) if "in" in found else KINDS):
                value, own = found[kind][0], run[f"{path}.{name}"]
                if not float((value - own).abs().max()) <= TOLERANCE * max(float(own.abs().max()), 1e-6):
                    raise Unserved(f"{path}.{name}, asked again, is not what {self.model.name} makes of it; no wires.")
        return self

    @cached_property
    def joined(self) -> Bool[Tensor, "receiver sender"]:
        """Which sender a receiver can hear at all."""
        table = torch.zeros(len(self.receivers), len(self.senders), dtype=torch.bool)
        for reader in self.readers:
            table[list(reader.rows), : reader.before] = True
        return table

    @property
    def sites(self) -> list[str]:
        """The places to keep in a run so that `written` can be read from it."""
        found = [f"{self.blocks[0].path}.in"]
        for block in self.blocks:
            found += [f"{block.path}.{name}" for name in ("attn.z", "mlp.out") if block.write(name.partition(".")[0])]
        return found

    @torch.no_grad()
    def written(self, run: Run) -> Written:
        """What every sender wrote in a run that kept `sites`; with the output biases it adds up to the stream at the end."""
        found = [run[f"{self.blocks[0].path}.in"][None]]
        for block in self.blocks:
            attention = block.write("attn")
            if attention is not None:
                found.append(self.by_head(block, attention, run[f"{block.path}.attn.z"]))
            if block.write("mlp") is not None:
                found.append(run[f"{block.path}.mlp.out"][None])
        return torch.cat(found)

    def by_head(self, block: Block, write: Write, z: Float[Tensor, "batch pos head d_head"]) -> Written:
        """What each head adds to the stream: its values through the output matrix, norms behind it held at their scale."""
        weights = self.model.weights
        path = f"{block.path}.{write.name}"
        made = torch.einsum("bphe,hed->hbpd", z, weights[f"{path}.W_O"].to(z.dtype))
        if write.norms:
            total = made.sum(0) + weights[f"{path}.b_O"].to(z.dtype)
            for name in write.norms:
                module, norm = self.model.hf.get_submodule(name), weights.norm(name)
                after = normed(module, total)
                made = (norm.scale(total, after) * norm.weight * norm.centred(made.float())).to(z.dtype)
                total = after
        for factor in write.factors:
            made = made * factor
        return made

    def run(self, inputs: Inputs, other: Written, cut: Cut, grad: bool = False, settled: Settled | None = None) -> Logits:
        """A pass in which wire (r, s) carries `(1 - cut[r, s]) * what s writes in this pass + cut[r, s] * other[s]`.

        Everything downstream is recomputed, so senders write what the cut wires above them make them write. With `settled`,
        blocks below the first cut wire are not run again; `inputs` may then hold its prompts several times over.
        """
        if not grad:
            cut = cut.detach()
        flow = _Flow(self, other, cut, inputs.batch)
        forward = self.model.forward(inputs, strict=settled is None)
        flow.attach(forward, settled)
        with torch.set_grad_enabled(grad):
            return logits_of(forward.run(lambda: self.model.call(inputs, grad)))

    def settled(self, inputs: Inputs, written: Written) -> Settled | None:
        """A run to start later ones from, its blocks' outputs kept; None where blocks cannot be handed over."""
        places = self.model.anatomy.places
        once = len({b.module for b in self.blocks}) == len(self.blocks)
        if not once or any(places[f"{b.path}.in"].layout.steps for b in self.blocks):
            return None
        return Settled(Base.of(self.model, inputs, "prefix"), written)

    def heard(self, inputs: Inputs, change: Written) -> Iterator[tuple[Reader, dict[str, Tensor]]]:
        """What each reader would get if one sender alone wrote `change` more, on no other way than straight to it.

        Yields a reader and its values by kind, (sender, batch, pos, head, d_head) for `q`, `k` and `v`, and (sender, batch,
        pos, d_model) for `in`, one entry for every sender it hears. For the logits that is the stream at the end.
        """
        for reader in self.readers:
            block, more = self.blocks[reader.block], change[: reader.before]
            write = block.write(reader.write) if reader.write else None
            if write is not None and reader.write == "attn":
                yield reader, self._asked(inputs, _Attention(self, block, write, inputs.batch), self.stream(reader), more)
                continue
            stream = self.stream(reader)
            with torch.no_grad():
                read = self.model.run(inputs, stream, logits=False)[stream] + more
                read = self.normed(write, read) if write is not None else read
            yield reader, {"in": read}

    def normed(self, write: Write, stream: Tensor) -> Tensor:
        """The stream as a write reads it."""
        return normed(self.model.hf.get_submodule(write.norm), stream) if write.norm else stream

    @torch.no_grad()
    def _asked(self, inputs: Inputs, attention: _Attention, stream: str, more: Written) -> dict[str, Tensor]:
        """One pass up to an attention, which is then asked what it makes of changed streams."""
        site, found = f"{attention.block.path}.attn.q", {}
        forward = self.model.forward(inputs, [stream, site], stop=True)
        forward.taps.add_before(attention.path, attention.remember)

        def ask(value: Tensor) -> Tensor:
            found.update(attention.under(forward.kept[stream].value + more))
            return value

        forward.edit(site, Edit(site, ask))
        forward.run(lambda: self.model.call(inputs))
        return found

    def ends(self, inputs: Inputs, run: Run, slope: Run) -> Iterator[tuple[Reader, Float[Tensor, "row batch pos d_model"]]]:
        """The gradient of a metric with respect to what each receiver reads from the stream, every head by itself.

        `run` kept `ends_sites` with `grad=True` and `slope` is its gradient. The gradient arrives at the projections, goes
        back through each head's own part of the matrix, and through the norm; where heads are normed together (OLMo 2), it
        goes back through the model's own attention head by head.
        """
        for reader in self.readers:
            block = self.blocks[reader.block]
            write = block.write(reader.write) if reader.write else None
            if write is None:
                yield reader, slope[f"{block.path}.out"][None]
                continue
            stream = run[self.stream(reader)].detach()
            if reader.write == "attn" and self.coupled:
                yield reader, self._asked_back(inputs, _Attention(self, block, write, inputs.batch), stream, slope)
                continue
            if reader.write == "mlp":
                arrived = slope[f"{block.path}.mlp.in"][None]
            else:
                arrived = torch.cat([self._arrived(block, write, kind, slope) for kind in KINDS])
            yield reader, self._through_norm(write, stream, arrived)

    @property
    def ends_sites(self) -> list[str]:
        """The places to keep, with gradients, so that `ends` can be read."""
        found = []
        for reader in self.readers:
            block = self.blocks[reader.block]
            write = block.write(reader.write) if reader.write else None
            if write is None:
                found.append(f"{block.path}.out")
                continue
            found.append(self.stream(reader))
            if reader.write == "mlp":
                found.append(f"{block.path}.mlp.in")
            elif self.coupled:
                found += [f"{block.path}.attn.{kind}" for kind in KINDS]
            else:
                found += [f"@{write.matrices[kind].module}.out" for kind in KINDS]
        return list(dict.fromkeys(found))

    @cached_property
    def coupled(self) -> bool:
        """Whether what one head's projection makes reaches another head's queries or keys, or is made by several matrices."""
        if self.model in _SEEN:
            return _SEEN[self.model]
        block = next((b for b in self.blocks if b.write("attn") is not None), None)
        write = None if block is None else block.write("attn")
        if block is None or write is None:
            return False
        inputs = self.model.inputs(example(self.model.hf)["input_ids"])
        for kind in KINDS[:2]:
            matrix, heads = write.matrices.get(kind), write.heads if kind == "q" else write.kv_heads
            if matrix is None or write.matrices.get("v") is None:
                return True
            place = f"{block.path}.attn.{kind}"
            moved = self.model.edit(Edit(f"@{matrix.module}.out", _nudge(matrix, heads)))
            own, other = (m.run(inputs, place, logits=False)[place][:, :, 1:] for m in (self.model, moved))
            if heads > 1 and not torch.allclose(own, other, rtol=1e-3, atol=1e-5):
                return True
        return False

    def stream(self, reader: Reader) -> str:
        """The place of the stream that a reader reads."""
        path = self.blocks[reader.block].path
        if not reader.write:
            return f"{path}.out"
        mid = f"{path}.mid"
        return mid if reader.write == "mlp" and mid in self.model.anatomy.places else f"{path}.in"

    def _asked_back(self, inputs: Inputs, attention: _Attention, stream: Tensor, slope: Run) -> Tensor:
        """The gradients at one attention's queries, keys and values, each head's taken back to the stream by itself."""
        site, found = f"{attention.block.path}.attn.q", []
        forward = self.model.forward(inputs, [site], stop=True)
        forward.taps.add_before(attention.path, attention.remember)

        def ask(value: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = stream.detach().requires_grad_()
                made = attention.under(leaf[None])
                for kind in KINDS:
                    arrived = slope[f"{attention.block.path}.attn.{kind}"]
                    for head in range(arrived.shape[2]):
                        mine = torch.zeros_like(arrived)
                        mine[:, :, head] = arrived[:, :, head]
                        found.append(torch.autograd.grad(made[kind][0], leaf, mine, retain_graph=True)[0])
            return value

        forward.edit(site, Edit(site, ask))
        with torch.no_grad():
            forward.run(lambda: self.model.call(inputs))
        return torch.stack(found)

    def _arrived(self, block: Block, write: Write, kind: str, slope: Run) -> Float[Tensor, "head batch pos d_model"]:
        """A gradient at a projection's output, taken back through each head's own columns."""
        matrix = write.matrices[kind]
        raw = slope[f"@{matrix.module}.out"]
        raw = raw if raw.ndim == 3 else raw.unflatten(0, (slope.tokens.shape[0], -1))
        heads = write.heads if kind == "q" else write.kv_heads
        mine = raw.unflatten(-1, (heads, -1)) if matrix.features is None else raw[..., matrix.features.to(raw.device)]
        weight = self.model.weights[f"{block.path}.attn.W_{kind.upper()}"].to(mine.dtype)
        return torch.einsum("bphe,hde->hbpd", mine, weight)

    def _through_norm(self, write: Write, stream: Tensor, arrived: Tensor) -> Tensor:
        if not write.norm:
            return arrived
        with torch.enable_grad():
            copies = stream.expand_as(arrived).detach().requires_grad_()
            return torch.autograd.grad(self.normed(write, copies), copies, arrived)[0]


def _nudge(matrix: Matrix, heads: int) -> Callable[[Tensor], Tensor]:
    """A change of what a projection makes for its first head."""

    def nudge(value: Tensor) -> Tensor:
        features = matrix.features
        first = torch.arange(value.shape[-1] // heads) if features is None else features[0]
        made = value.clone()
        made[..., first.to(value.device)] += 1.0 + value[..., first.to(value.device)].abs().mean()
        return made

    return nudge


def _ends(reader: Reader) -> tuple[str, ...]:
    """The places at which a reader's wires end."""
    return {"attn": ("attn.q", "attn.k", "attn.v"), "mlp": ("mlp.in",), "": ("out",)}[reader.write]


def _servable(model: Model) -> tuple[Block, ...]:
    main, places = model.anatomy.main, model.anatomy.places
    reason = ""
    for block in main.blocks:
        names = {w.name for w in block.writes}
        if not block.steps or f"{block.path}.in" not in places or f"{block.path}.out" not in places:
            reason = f"{block.path} could not be read as a sum"
        elif any(step.kind != "write" for step in block.steps):
            reason = f"{block.path} has a {next(s.kind for s in block.steps if s.kind != 'write')} standing in its stream"
        elif names - {"attn", "mlp"}:
            reason = f"{block.path} also writes {', '.join(sorted(names - {'attn', 'mlp'}))}"
        elif "mlp" in names and f"{block.path}.mlp.in" not in places:
            reason = f"{block.path}.mlp.in is not served"
        elif "attn" in names:
            reason = _attention(model, block)
        if reason:
            raise Unserved(f"{model.name} has no wires that could be cut: {reason}.")
    inner = [
        e for e in model.edits if e.site.parts[-1] in (*KINDS, "in") and "blocks" in e.site.parts and len(e.site.parts) > 3
    ]
    if inner:
        raise Unserved(f"wires end where {inner[0].site} is edited; edit what is written (z, attn.out, mlp.out) instead.")
    return main.blocks


def _attention(model: Model, block: Block) -> str:
    write = block.write("attn")
    assert write is not None
    places = model.anatomy.places
    if any(f"{block.path}.attn.{k}" not in places or places[f"{block.path}.attn.{k}"].kind != "door" for k in KINDS):
        return f"the attention of {block.path} does not go through transformers' attention interface"
    if f"{block.path}.attn.gate" in places:
        return f"the attention of {block.path} has a gate, which reads the stream too"
    if f"{block.path}.attn.z" not in places or "o" not in write.matrices or not write.linear:
        return f"the heads of {block.path} do not reach the stream through one matrix"
    return ""


class _Caught(Exception):
    """Carries what came to the doorway."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors


class _Attention:
    """The attention of one block: what it was called with, and what comes to its doorway under other streams."""

    def __init__(self, wires: Wires, block: Block, write: Write, batch: int) -> None:
        self.wires, self.block, self.write, self.batch = wires, block, write, batch
        places: dict[str, Place] = wires.model.anatomy.places
        self.places = {k: places[f"{block.path}.attn.{k}"] for k in KINDS}
        self.path = self.places["q"].modules[0]
        self.module = wires.model.hf.get_submodule(self.path)
        self.called: tuple[tuple, dict] = ((), {})

    def remember(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self.called = (args, kwargs)
        return args, kwargs

    def under(self, streams: Float[Tensor, "variant batch pos d_model"]) -> dict[str, Tensor]:
        """Queries, keys and values (variant, batch, pos, head, d_head), each stream being read instead of the pass's own."""
        args, kwargs = self.called
        flat = streams.flatten(0, 1)
        norm = self.write.norm
        inside = norm.startswith(f"{self.path}.")
        read = normed(self.wires.model.hf.get_submodule(norm), flat) if norm and not inside else flat
        slot = _stream_slot(args, kwargs, (self.batch, *streams.shape[2:]))
        rows = flat.shape[0]
        args, kwargs = tile_arguments((args, kwargs), slot, self.batch, rows, self.write.heads)
        args = tuple(read if i == slot else a for i, a in enumerate(args))
        kwargs = {k: read if k == slot else v for k, v in kwargs.items()}
        with doorway(_catch):
            try:
                self.module.forward(*args, **kwargs)
            except _Caught as caught:
                found = {k: self.places[k].layout.read(caught.tensors[k], rows) for k in KINDS}
                return {k: v.unflatten(0, (-1, self.batch)) for k, v in found.items()}
        raise Unserved(f"{self.path} was called again and did not come to the attention interface.")


def _catch(kernel: Any, eager: Any, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
    raise _Caught({"q": query, "k": key, "v": value})


def _stream_slot(args: tuple, kwargs: dict, shape: tuple[int, ...]) -> int | str:
    """Which argument of an attention module is the stream it reads."""
    for name, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, Tensor) and value.is_floating_point() and tuple(value.shape) == shape:
            return name
    raise Unserved(f"an attention module was called without a tensor {list(shape)}, so its stream was not found.")


class _Flow:
    """One pass with cut wires: what has been written so far, as changes against the other run."""

    def __init__(self, wires: Wires, other: Written, cut: Cut, batch: int) -> None:
        self.wires, self.other, self.batch = wires, other, batch
        self.cut = cut.reshape(*cut.shape[:2], *(1,) * (4 - cut.ndim), *cut.shape[2:])
        self.fixed = not cut.requires_grad
        some = self.cut.flatten(2).any(-1) if self.fixed else wires.joined
        self.used: list[bool] = some.any(0).tolist()
        self.touched: list[bool] = some.any(1).tolist()
        self.changes: list[Tensor | None] = []
        self.streams: dict[str, Tensor] = {}

    def attach(self, forward: Any, settled: Settled | None) -> None:
        """Put everything in its place in a pass."""
        wires = self.wires
        cut = [r.block for r in wires.readers if any(self.touched[row] for row in r.rows)]
        start = 0 if settled is None else min(cut, default=0)
        if settled is not None and start:
            self._start(forward, settled, start)
        else:
            first = f"{wires.blocks[0].path}.in"
            forward.edit(first, _reading(first, lambda value: self._wrote(0, value[None])))
        for reader in wires.readers:
            if any(self.touched[r] for r in reader.rows):
                stream = wires.stream(reader)
                if reader.write:
                    forward.edit(stream, _reading(stream, self._saw(stream)))
                self._receive(forward, reader)
        self._listen(forward, start)

    def _start(self, forward: Any, settled: Settled, start: int) -> None:
        """Blocks below `start` hand on what comes; the stream and what was written so far are those of the settled run."""
        wires, base = self.wires, settled.base
        times = self.batch // base.batch
        for i, block in enumerate(wires.blocks[:start]):
            forward.taps.instead[block.module] = handing_on(base, i)
        site = f"{wires.blocks[start].path}.in"
        forward.edit(site, Edit(site, lambda value: base.streams[start].repeat(times, 1, 1)))
        seats = next(r.before for r in wires.readers if r.block == start)
        self._wrote(0, settled.written[:seats].repeat(1, times, 1, 1))

    def _listen(self, forward: Any, start: int) -> None:
        """Hear what each sender from block `start` on writes."""
        wires, seat = self.wires, 1
        for i, block in enumerate(wires.blocks):
            attention = block.write("attn")
            if i < start:
                seat += (attention.heads if attention else 0) + (block.write("mlp") is not None)
                continue
            if attention is not None:
                site = f"{block.path}.attn.z"
                forward.edit(site, _reading(site, self._spoke(seat, block, attention)))
                seat += attention.heads
            if block.write("mlp") is not None:
                site = f"{block.path}.mlp.out"
                forward.edit(site, _reading(site, self._added(seat)))
                seat += 1

    def _receive(self, forward: Any, reader: Reader) -> None:
        block = self.wires.blocks[reader.block]
        if reader.write == "attn":
            write = block.write("attn")
            assert write is not None
            attention = _Attention(self.wires, block, write, self.batch)
            forward.taps.add_before(attention.path, attention.remember)
            heard: dict[str, Tensor] = {}
            for kind in KINDS:
                site = f"{block.path}.attn.{kind}"
                forward.edit(site, Edit(site, self._queried(reader, attention, kind, heard)))
        elif reader.write == "mlp":
            site = f"{block.path}.mlp.in"
            forward.edit(site, Edit(site, self._fed(reader)))
        else:
            site = f"{block.path}.out"
            forward.edit(site, Edit(site, lambda value: value + self._mixed(reader)[0]))

    def _wrote(self, seat: int, values: Tensor) -> None:
        """Note how a run of senders differs from the other run."""
        n = values.shape[0]
        for i in range(n):
            self.changes.append(self.other[seat + i] - values[i] if self.used[seat + i] else None)

    def _saw(self, stream: str) -> Callable[[Tensor], None]:
        def note(value: Tensor) -> None:
            self.streams[stream] = value

        return note

    def _spoke(self, seat: int, block: Block, write: Write) -> Callable[[Tensor], None]:
        def note(z: Tensor) -> None:
            if any(self.used[seat : seat + write.heads]):
                self._wrote(seat, self.wires.by_head(block, write, z))
            else:
                self.changes += [None] * write.heads

        return note

    def _added(self, seat: int) -> Callable[[Tensor], None]:
        return lambda value: self._wrote(seat, value[None])

    def _mixed(self, reader: Reader, rows: list[int] | None = None) -> Float[Tensor, "row batch pos d_model"]:
        """The change in what each of a reader's rows reads."""
        heard = [s for s in range(reader.before) if self.changes[s] is not None]
        changes = torch.stack([c for c in (self.changes[s] for s in heard) if c is not None])
        amounts = self.cut[list(reader.rows if rows is None else rows)][:, heard].to(changes)
        return torch.einsum("rsbp,sbpd->rbpd", amounts.expand(-1, -1, *changes.shape[1:3]), changes)

    def _queried(self, reader: Reader, attention: _Attention, kind: str, heard: dict[str, Tensor]):
        which, order = self._variants(reader)

        def replace(value: Tensor) -> Tensor:
            if not heard:
                stream = self.streams[self.wires.stream(reader)]
                heard.update(attention.under(stream + self._mixed(reader, which)))
            mine = [i for i, k in enumerate(reader.kinds) if k == kind]
            made = heard[kind]
            return torch.stack([made[order[i], :, :, reader.heads[i]] for i in mine], dim=2).to(value.dtype)

        return replace

    def _variants(self, reader: Reader) -> tuple[list[int], list[int]]:
        """Rows that are cut alike read alike: one row of each kind, and for every row which of them it is."""
        rows = list(reader.rows)
        if not self.fixed:
            return rows, list(range(len(rows)))
        _, order = torch.unique(self.cut[rows].flatten(1), dim=0, return_inverse=True)
        found = order.tolist()
        seen = list(dict.fromkeys(found))
        return [rows[found.index(n)] for n in seen], [seen.index(n) for n in found]

    def _fed(self, reader: Reader):
        write = self.wires.blocks[reader.block].write("mlp")
        assert write is not None

        def replace(value: Tensor) -> Tensor:
            return self.wires.normed(write, self.streams[self.wires.stream(reader)] + self._mixed(reader)[0])

        return replace


def _reading(site: str, note: Callable[[Tensor], None]) -> Edit:
    """An edit that changes nothing and is told the value."""

    def read(value: Tensor) -> Tensor:
        note(value)
        return value

    return Edit(site, read)
