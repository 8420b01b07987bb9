"""Ride: one pass of a sweep, in which the batch grows by a cell's rows at the block where the cell begins to matter.

The base run is kept once: what every block read, what it returned, the key-value cache. Blocks before the first cell are
replaced by handing on the stream; the rows of a cell join at its own block, taken from the stored stream. Whatever else a
block is given for each prompt (masks, angles, biases) is given for each row. What a pass may spare besides is told by a
plan (`spare.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from patchclamp.core.edit import Edit, Here
from patchclamp.core.site import Site
from patchclamp.core.window import Window
from patchclamp.model.anatomy import Block
from patchclamp.model.forward import Forward
from patchclamp.model.inputs import Inputs, logits_of
from patchclamp.model.spare import Plan, after_attention, fewer, head_of, joined, last_logits, one_token, only_last, some_words
from patchclamp.model.watch import Slot, outputs

if TYPE_CHECKING:
    from patchclamp.model.model import Model


@dataclass(frozen=True, eq=False)
class Cell:
    """One entry of a sweep: edits at concrete sites, and the first token they can change."""

    edits: tuple[tuple[str, Edit], ...]
    start: int = 0


class Skeleton(Protocol):
    """What is known of a pass whose blocks are skipped."""

    @property
    def model(self) -> Model: ...
    @property
    def blocks(self) -> tuple[Block, ...]: ...
    @property
    def shapes(self) -> list[Any]: ...


@dataclass(eq=False)
class Base:
    """The base run: every block's input and output, the cache, the logits."""

    model: Model
    inputs: Inputs
    blocks: tuple[Block, ...]
    streams: list[Tensor]
    """What each block read, and what the last one returned."""
    shapes: list[Any]
    """What each block returned as a whole, to be imitated where it is skipped."""
    joined: list[bool]
    """Whether a block reads exactly what the one before returned."""
    logits: Tensor
    cache: Any = None
    mixed: list[Tensor] = field(default_factory=list)
    """What the heads of each block brought together, as the output matrix reads it; kept where a plan spares attention."""

    @property
    def batch(self) -> int:
        return self.inputs.batch

    @property
    def length(self) -> int:
        return self.streams[0].shape[1]

    @classmethod
    def of(cls, model: Model, inputs: Inputs, way: str, last: bool = False, mixed: Sequence[str] = ()) -> Base:
        blocks = model.anatomy.main.blocks
        if way == "plain":
            return cls(model, inputs, blocks, [inputs.tokens[..., None]], [], [], torch.empty(0))
        forward = model.forward(inputs, [*(f"{b.path}.{side}" for b in blocks for side in ("in", "out")), *mixed])
        shapes: list[Any] = []
        for path in dict.fromkeys(b.module for b in blocks):
            forward.taps.add_after(path, noting(shapes))
        more: dict[str, Any] = {}
        if way == "suffix":
            from transformers import DynamicCache

            more = {"past_key_values": DynamicCache(), "use_cache": True}
        keep = last_logits(model, forward) if last else {}
        output = forward.run(lambda: model.call(inputs, **more, **keep))
        streams = [forward.kept[f"{b.path}.in"].value for b in blocks]
        ends = [forward.kept[f"{b.path}.out"].value for b in blocks]
        follows = [a is b or torch.equal(a, b) for a, b in zip(streams[1:], ends)]
        logits = logits_of(output)[:, -1:] if last else logits_of(output)
        kept = [forward.kept[path].value for path in mixed]
        return cls(
            model, inputs, blocks, [*streams, ends[-1]], shapes, [*follows, True], logits, more.get("past_key_values"), kept
        )

    def cached(self, start: int, rows: Sequence[int]) -> Any:
        """A plain cache of the first tokens, each layer expanded to the rows that will pass it."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for i, (layer, n) in enumerate(zip(self.cache.layers, rows)):
            keys, values = (_tiled(t[:, :, :start], max(n, self.batch)) for t in (layer.keys, layer.values))
            cache.update(keys, values, i)
        return cache


def noting(shapes: list[Any]):
    """A tap that notes what each block returns as a whole."""

    def note(args: tuple, kwargs: dict, output: Any) -> Any:
        shapes.append(output)
        return output

    return note


def entry(base: Base, cell: Cell) -> int:
    """The block before which a cell's rows join: the first that it changes anything in."""
    return min(_entry(base, path) for path, _ in cell.edits)


def _entry(base: Base, path: str) -> int:
    """The block of a place, or the next one where the place is the block's output."""
    site = Site.parse(path)
    assert site.layer is not None
    return site.layer + 1 if site.parts[2:] == ("out",) and base.joined[site.layer] else site.layer


def _direct(base: Base, path: str, joins: int) -> bool:
    """Whether a place is the stream that a cell's rows begin with, so that nothing inside a block need be run to change it."""
    site = Site.parse(path)
    return _entry(base, path) == joins and (site.parts[2:] == ("in",) or (site.parts[2:] == ("out",) and joins != site.layer))


class Ride:
    """One pass of a wave with a growing batch. Row `c * batch + b` is cell c on prompt b; the witness, if any, is cell 0."""

    def __init__(self, base: Base, cells: Sequence[Cell], start: int, check: bool, plan: Plan) -> None:
        self.base, self.start, self.plan = base, start, plan
        self.cells: list[Cell | None] = [*([None] if check else []), *cells]
        entries = [entry(base, c) for c in self.cells if c is not None]
        self.entries = [min(entries), *entries] if check else entries
        self.first = min(self.entries)
        self.present = [sum(e <= i for e in self.entries) for i in range(len(base.blocks))]
        self.attending = [self._attending(i) for i in range(len(base.blocks))]
        self.windows = {"": Window(base.length - start, start)}
        self.calls: Counter[str] = Counter()
        self.cache: Any = None

    def run(self) -> Tensor:
        """The logits of every row: all positions, or the last; all words, or those of the plan."""
        base, model, plan = self.base, self.base.model, self.plan
        forward = self.forward = model.forward(base.inputs, late=True, strict=False)
        forward.windows = self.windows
        for module in dict.fromkeys(b.module for b in base.blocks):
            forward.taps.add_before(module, self._before(module))
            forward.taps.add_after(module, self._after(module))
        early = {b.module for b in base.blocks[: self.first]} - {b.module for b in base.blocks[self.first :]}
        forward.taps.instead.update({m: self._handing_on(m) for m in early})
        self._sparing(forward)
        self._edits(forward)
        arguments = {k: v[:, self.start :] for k, v in base.inputs.arguments.items()}
        more: dict[str, Any] = {}
        if plan.way == "suffix":
            rows = [base.batch * n for n in self.attending]
            self.cache = base.cached(self.start, rows)
            more = {"past_key_values": self.cache, "use_cache": True}
        if plan.last:
            more |= last_logits(model, forward)
        inputs = Inputs(arguments, base.inputs.tokens[:, self.start :], {})
        output = forward.run(lambda: model.call(inputs, **more))
        logits = logits_of(output)
        if plan.tokens is not None and logits.shape[-1] != len(plan.tokens):
            raise ValueError("the logits were not made by the unembedding alone")
        return logits[:, -1:] if plan.last else logits

    def _sparing(self, forward: Forward) -> None:
        """What the plan spares: attention of rows that join, tokens of the last block, words of the unembedding."""
        model, taps = self.base.model, forward.taps
        for i, n in enumerate(self.attending):
            if n < self.present[i]:
                attention, matrix = self.plan.attention[i]
                rows = self.base.batch * self.present[i]
                joining = _tiled(self.base.mixed[i][:, self.start :], rows - self.base.batch * n)
                taps.add_before(attention, fewer(rows, self.base.batch * n, self._heads(i)))
                taps.add_before(matrix, joined(joining))
        if self.plan.short:
            taps.finally_before.update(dict.fromkeys(one_token(model), only_last))
        if self.plan.tokens is not None:
            taps.instead[head_of(model)] = some_words(model, self.plan.tokens)

    def _attending(self, i: int) -> int:
        """How many cells go through the attention of block i: not those that join there and change nothing before its end."""
        joining = [c for c, entry in zip(self.cells, self.entries) if entry == i and c is not None]
        begun = any(_direct(self.base, path, i) for c in joining for path, _ in c.edits)
        inside = (path for c in self.cells if c is not None for path, _ in c.edits if Site.parse(path).layer == i)
        if not self.plan.attention or begun or not all(after_attention(path) for path in inside):
            return self.present[i]
        return (self.present[i] - len(joining)) or self.present[i]

    def _edits(self, forward: Forward) -> None:
        """Cells that change something inside a block do so on their own rows."""
        by_path: dict[str, list[tuple[int, Edit]]] = {}
        for n, cell in enumerate(self.cells):
            for path, edit in () if cell is None else cell.edits:
                if not _direct(self.base, path, self.entries[n]):
                    by_path.setdefault(path, []).append((n, edit))
        for path, mine in by_path.items():
            forward.edit(path, on_rows(path, mine, self.base.batch))

    def _block(self, module: str) -> int:
        """Which block of the stack is now calling; a shared layer is called several times."""
        mine = [i for i, b in enumerate(self.base.blocks) if b.module == module]
        return mine[self.calls[module] - 1]

    def _before(self, module: str):
        base = self.base
        slot = base.model.anatomy.places

        def grow(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            self.calls[module] += 1
            i = self._block(module)
            where = slot[f"{base.blocks[i].path}.in"].slot
            stream = argument(args, kwargs, where)
            grown = self._grown(i, stream)
            self.forward.batch = grown.shape[0]
            args, kwargs = tile_arguments((args, kwargs), where, base.batch, grown.shape[0], self._heads(i))
            if isinstance(where, int):
                return (*args[:where], grown, *args[where + 1 :]), kwargs
            return args, {**kwargs, where: grown}

        return grow

    def _after(self, module: str):
        base = self.base

        def finish(args: tuple, kwargs: dict, output: Any) -> Any:
            i = self._block(module)
            if self.cache is not None and i < len(self.cache.layers):  # no later block reads it, and its memory serves them
                layer = self.cache.layers[i]
                layer.keys, layer.values = layer.keys[:0].clone(), layer.values[:0].clone()
            if i + 1 < len(base.blocks):
                return output
            slot = base.model.anatomy.places[f"{base.blocks[i].path}.out"].slot
            return put(output, slot, self._grown(i + 1, dict(outputs(output))[slot]))

        return finish

    def _grown(self, i: int, stream: Tensor) -> Tensor:
        """The stream before block i, with the rows of the cells that join here."""
        joining = [(n, c) for n, c in enumerate(self.cells) if self.entries[n] == i]
        if i < self.first or not joining:
            return stream
        base = self.base
        stored = base.streams[i][:, self.start :]
        new = [self._changed(cell, stored, i) for _, cell in joining]
        return torch.cat([stream, *new] if i > self.first else new)

    def _changed(self, cell: Cell | None, stored: Tensor, joins: int) -> Tensor:
        for path, edit in () if cell is None else cell.edits:
            if _direct(self.base, path, joins):
                here = Here(Site.parse(path), ("batch", "pos", "d_model"), {"pos": self.windows[""]}, late=True)
                stored = edit.apply(stored, here)
        return stored

    def _heads(self, i: int) -> int:
        return next((w.heads for w in self.base.blocks[i].writes if w.name == "attn"), 1)

    def _handing_on(self, module: str):
        def forward(*args: Any, **kwargs: Any) -> Any:
            return handing_on(self.base, self._block(module))(*args, **kwargs)

        return forward


def handing_on(base: Skeleton, i: int, stream: Tensor | None = None):
    """A forward for block i that hands on the stream it is given, or another one, and computes nothing."""
    places, path = base.model.anatomy.places, base.blocks[i].path

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = argument(args, kwargs, places[f"{path}.in"].slot) if stream is None else stream
        return put(base.shapes[i], places[f"{path}.out"].slot, given)

    return forward


def on_rows(path: str, mine: list[tuple[int, Edit]], batch: int) -> Edit:
    """Several edits at one place, each on the rows of its own cell."""

    def change(value: Tensor, here: Here) -> Tensor:
        made = value.clone()
        for n, edit in mine:
            rows = slice(n * batch, (n + 1) * batch)
            made[rows] = edit.apply(made[rows], Here(here.site, here.axes, here.windows, late=True))
        return made

    return Edit(Site.parse(path), change, kind="rows")


def argument(args: tuple, kwargs: dict, slot: Slot) -> Tensor:
    """What a module was handed in a slot."""
    return args[slot] if isinstance(slot, int) else kwargs[slot]


def put(output: Any, slot: Any, stream: Tensor) -> Any:
    """What a module returned, with a stream in its slot."""
    if slot is None:
        return stream
    made = list(output)
    made[slot] = stream
    return tuple(made)


def _tiled(value: Tensor, rows: int) -> Tensor:
    """Rows repeated as often as there are cells: prompt by prompt within a cell, cell by cell."""
    times = rows // value.shape[0]
    if value.shape[0] == 1:
        return value.expand(rows, *[-1] * (value.ndim - 1))
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


def tile_arguments(tree: Any, stream: Any, batch: int, rows: int, heads: int) -> Any:
    """What else a block is given for each prompt (masks, angles, biases) is given for each row."""

    def tile(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim > 1:
            per_row = value.shape[0] == batch and batch > 1
            per_head = value.ndim == 3 and heads > 1 and value.shape[0] == batch * heads
            return _tiled(value, rows * (value.shape[0] // batch)) if per_row or per_head else value
        if type(value) in (tuple, list):
            return type(value)(tile(v) for v in value)
        return value

    args, kwargs = tree
    tiled_args = tuple(a if i == stream else tile(a) for i, a in enumerate(args))
    return tiled_args, {k: v if k == stream else tile(v) for k, v in kwargs.items()}
