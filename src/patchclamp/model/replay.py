"""Replay: a sweep of edits over one base run, in which nothing is computed twice that cannot have changed.

An edit at layer l and position p leaves the layers below l and the tokens before p as they were. So a wave of cells that
share a first token runs on the later tokens only, over the base run's key-value cache, and its batch grows on the way up:
the rows of a cell join at its own layer, taken from the stored stream. One pass serves all layers. It is generic: blocks
that come too early are replaced by handing on the stream, so masks, rotary angles and norms stay the model's own.

Three ways, from the most saving to the plainest; each is exact, and a cell without any edit rides along to prove it:
`suffix` (later tokens, growing batch), `prefix` (all tokens, growing batch), `plain` (all tokens, all layers, batched).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from patchclamp.core.edit import Edit, Here
from patchclamp.core.site import Site
from patchclamp.core.window import Window
from patchclamp.model.anatomy import Block
from patchclamp.model.forward import Forward
from patchclamp.model.inputs import Inputs, takes
from patchclamp.model.watch import Slot, outputs

if TYPE_CHECKING:
    from patchclamp.model.model import Model

TOKENS = 8192
"""How many tokens a wave may hold, all rows together."""
WORTH = 2e9
"""Multiply-adds of one pass above which a wave for every first token costs less than one wave of whole sequences."""
_LOGITS = 1 << 26
"""How many logits are held at a time while many streams are unembedded: a quarter of a gigabyte."""
TOLERANCE = 1e-4
"""How far, relative to its largest logit, the unedited cell may come out from the base run."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One entry of a sweep: an edit at a concrete site, and the first token it can change."""

    path: str
    edit: Edit
    start: int = 0


@dataclass(frozen=True, eq=False)
class Answer:
    """The logits of some cells: (cell, batch, pos, vocab), the positions being all of them or only the last."""

    cells: tuple[int, ...]
    logits: Tensor


class _Unfaithful(Exception):
    """The unedited cell did not come out as the base run."""


@torch.no_grad()
def sweep(model: Model, inputs: Inputs, cells: Sequence[Cell], last: bool) -> Iterator[Answer]:
    """Run every cell's edit, by itself, on the base prompt; `last` says that only the last position's logits are wanted."""
    done: set[int] = set()
    for way in _ways(model, inputs, cells):
        try:
            base = _Base.of(model, inputs, way)
            for wave in _waves(base, cells, way, done):
                answer = _run(base, cells, wave, way, last, check=not done)
                done.update(answer.cells)
                yield answer
            return
        except (_Unfaithful, RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            if way == "plain":
                raise


def _ways(model: Model, inputs: Inputs, cells: Sequence[Cell]) -> list[str]:
    """The ways worth trying for this model and these cells, the most saving first."""
    main = model.anatomy.main
    grown = all(c.path.startswith("blocks.") and Site.parse(c.path).layer is not None for c in cells) and not main.prefix
    bare = all(
        not model.anatomy.places[f"{b.path}.in"].layout.steps for b in main.blocks if f"{b.path}.in" in model.anatomy.places
    )
    if not grown or not bare or inputs.padded or "decoder_input_ids" in inputs.arguments:
        return ["plain"]
    attends = all(w.name in ("attn", "mlp", "extra") for b in main.blocks for w in b.writes) and all(
        b.steps for b in main.blocks
    )
    cached = main.causal and attends and takes(model.hf, "past_key_values") and set(inputs.arguments) == {"input_ids"}
    late = any(c.start for c in cells)
    return ["suffix", "prefix", "plain"] if cached and late else ["prefix", "plain"]


@dataclass(eq=False)
class _Base:
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

    @property
    def batch(self) -> int:
        return self.inputs.batch

    @property
    def length(self) -> int:
        return self.streams[0].shape[1]

    @classmethod
    def of(cls, model: Model, inputs: Inputs, way: str) -> _Base:
        blocks = model.anatomy.main.blocks
        if way == "plain":
            return cls(model, inputs, blocks, [inputs.tokens[..., None]], [], [], torch.empty(0))
        forward = model.forward(inputs, [f"{b.path}.{side}" for b in blocks for side in ("in", "out")])
        shapes: list[Any] = []
        for path in dict.fromkeys(b.module for b in blocks):
            forward.taps.add_after(path, _noting(shapes))
        more: dict[str, Any] = {}
        if way == "suffix":
            from transformers import DynamicCache

            more = {"past_key_values": DynamicCache(), "use_cache": True}
        output = forward.run(lambda: model.call(inputs, **more))
        streams = [forward.kept[f"{b.path}.in"].value for b in blocks]
        ends = [forward.kept[f"{b.path}.out"].value for b in blocks]
        joined = [a is b or torch.equal(a, b) for a, b in zip(streams[1:], ends)]
        logits = output["logits"] if isinstance(output, dict) else output
        return cls(model, inputs, blocks, [*streams, ends[-1]], shapes, [*joined, True], logits, more.get("past_key_values"))

    def cached(self, start: int, rows: Sequence[int]) -> Any:
        """A plain cache of the first tokens, each layer expanded to the rows that will pass it."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for i, (layer, n) in enumerate(zip(self.cache.layers, rows)):
            keys, values = (_tiled(t[:, :, :start], max(n, self.batch)) for t in (layer.keys, layer.values))
            cache.update(keys, values, i)
        return cache


def _noting(shapes: list[Any]):
    def note(args: tuple, kwargs: dict, output: Any) -> Any:
        shapes.append(output)
        return output

    return note


@dataclass(frozen=True, eq=False)
class _Wave:
    """Cells that go together, in order of their layers, and the first token that is computed."""

    cells: tuple[int, ...]
    start: int


def _waves(base: _Base, cells: Sequence[Cell], way: str, done: set[int]) -> Iterator[_Wave]:
    todo = [i for i in range(len(cells)) if i not in done]
    groups: dict[int, list[int]] = {}
    for i in todo:
        groups.setdefault(cells[i].start if way == "suffix" else 0, []).append(i)
    if way == "suffix" and len(groups) > 1 and not _worth(base):
        groups = {min(groups): todo}
    for start in sorted(groups):
        mine = sorted(groups[start], key=lambda i: (0 if way == "plain" else _entry(base, cells[i]), i))
        room = max(TOKENS // (base.batch * (base.length - start)), 1)
        for first in range(0, len(mine), room):
            yield _Wave(tuple(mine[first : first + room]), start)


def _entry(base: _Base, cell: Cell) -> int:
    """The block before which a cell's rows join: its own, or the next one where all it changes is the block's output."""
    site = Site.parse(cell.path)
    assert site.layer is not None
    return site.layer + 1 if site.parts[2:] == ("out",) and base.joined[site.layer] else site.layer


def _direct(base: _Base, cell: Cell) -> bool:
    """Whether a cell changes the stored stream itself, so that nothing inside its block need be run."""
    site = Site.parse(cell.path)
    return site.parts[2:] == ("in",) or (site.parts[2:] == ("out",) and _entry(base, cell) != site.layer)


def _worth(base: _Base) -> bool:
    modules = {b.module for b in base.blocks}
    size = sum(p.numel() for m in modules for p in base.model.hf.get_submodule(m).parameters())
    return size * base.batch * base.length > WORTH


def _run(base: _Base, cells: Sequence[Cell], wave: _Wave, way: str, last: bool, check: bool) -> Answer:
    if way == "plain":
        return _plain(base, cells, wave, last)
    ride = _Ride(base, cells, wave, check)
    logits = ride.run(way == "suffix", last)
    kept = logits.unflatten(0, (-1, base.batch))
    if check:
        witness, kept = kept[0], kept[1:]
        truth = base.logits[:, -witness.shape[1] :]
        if not float((witness - truth).abs().max()) <= TOLERANCE * float(truth.abs().max().clamp(min=1e-3)):
            raise _Unfaithful
    if not last and wave.start:  # earlier positions are as in the base run
        before = base.logits[:, : wave.start].expand(kept.shape[0], -1, -1, -1)
        kept = torch.cat([before, kept], dim=2)
    return Answer(wave.cells, kept)


class _Ride:
    """One pass of a wave with a growing batch. Row `c * batch + b` is cell c on prompt b; the witness, if any, is cell 0."""

    def __init__(self, base: _Base, cells: Sequence[Cell], wave: _Wave, check: bool) -> None:
        self.base, self.wave = base, wave
        self.cells: list[Cell | None] = [*([None] if check else []), *(cells[i] for i in wave.cells)]
        entries = [_entry(base, c) for c in self.cells if c is not None]
        self.entries = [min(entries), *entries] if check else entries
        self.first = min(self.entries)
        self.windows = {"": Window(base.length - wave.start, wave.start)}
        self.calls: Counter[str] = Counter()

    def run(self, suffix: bool, last: bool) -> Tensor:
        base, model = self.base, self.base.model
        forward = self.forward = model.forward(base.inputs, late=True, strict=False)
        forward.windows = self.windows
        for module in dict.fromkeys(b.module for b in base.blocks):
            forward.taps.add_before(module, self._before(module))
            forward.taps.add_after(module, self._after(module))
        early = {b.module for b in base.blocks[: self.first]} - {b.module for b in base.blocks[self.first :]}
        forward.taps.instead.update({m: self._handing_on(m) for m in early})
        self._edits(forward)
        arguments = {k: v[:, self.wave.start :] for k, v in base.inputs.arguments.items()}
        more: dict[str, Any] = {}
        if suffix:
            rows = [base.batch * sum(e <= i for e in self.entries) for i in range(len(base.blocks))]
            more = {"past_key_values": base.cached(self.wave.start, rows), "use_cache": True}
        if last and takes(model.hf, "logits_to_keep"):
            more["logits_to_keep"] = 1
            forward.taps.add_before(*_contiguous_head(model))
        inputs = Inputs(arguments, base.inputs.tokens[:, self.wave.start :], {})
        output = forward.run(lambda: model.call(inputs, **more))
        logits = output["logits"] if isinstance(output, dict) else output
        return logits[:, -1:] if last else logits

    def _edits(self, forward: Forward) -> None:
        """Cells that change something inside a block do so on their own rows."""
        by_path: dict[str, list[tuple[int, Edit]]] = {}
        for n, cell in enumerate(self.cells):
            if cell is not None and not _direct(self.base, cell):
                by_path.setdefault(cell.path, []).append((n, cell.edit))
        for path, mine in by_path.items():
            forward.edit(path, _on_rows(path, mine, self.base.batch))

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
            stream = _argument(args, kwargs, where)
            grown = self._grown(i, stream)
            self.forward.batch = grown.shape[0]
            args, kwargs = _tile_arguments((args, kwargs), where, base.batch, grown.shape[0], self._heads(i))
            if isinstance(where, int):
                return (*args[:where], grown, *args[where + 1 :]), kwargs
            return args, {**kwargs, where: grown}

        return grow

    def _after(self, module: str):
        base = self.base

        def finish(args: tuple, kwargs: dict, output: Any) -> Any:
            i = self._block(module)
            if i + 1 < len(base.blocks):
                return output
            slot = base.model.anatomy.places[f"{base.blocks[i].path}.out"].slot
            return _put(output, slot, self._grown(i + 1, dict(outputs(output))[slot]))

        return finish

    def _grown(self, i: int, stream: Tensor) -> Tensor:
        """The stream before block i, with the rows of the cells that join here."""
        joining = [(n, c) for n, c in enumerate(self.cells) if self.entries[n] == i]
        if i < self.first or not joining:
            return stream
        base = self.base
        stored = base.streams[i][:, self.wave.start :]
        new = [self._changed(cell, stored) for _, cell in joining]
        return torch.cat([stream, *new] if i > self.first else new)

    def _changed(self, cell: Cell | None, stored: Tensor) -> Tensor:
        if cell is None or not _direct(self.base, cell):
            return stored
        site = Site.parse(cell.path)
        here = Here(site, ("batch", "pos", "d_model"), {"pos": self.windows[""]}, late=True)
        return cell.edit.apply(stored, here)

    def _heads(self, i: int) -> int:
        return next((w.heads for w in self.base.blocks[i].writes if w.name == "attn"), 1)

    def _handing_on(self, module: str):
        def forward(*args: Any, **kwargs: Any) -> Any:
            i = self._block(module)
            place = self.base.model.anatomy.places[f"{self.base.blocks[i].path}.in"]
            stream = _argument(args, kwargs, place.slot)
            slot = self.base.model.anatomy.places[f"{self.base.blocks[i].path}.out"].slot
            return _put(self.base.shapes[i], slot, stream)

        return forward


@torch.no_grad()
def unembed(model: Model, inputs: Inputs, streams: Tensor) -> Iterator[Tensor]:
    """The logits that the model's own end makes of streams (n, batch, pos, d_model), some n at a time: (m, batch, pos, vocab).

    Every block is replaced by handing on, the last one by the streams, so whatever stands between the last block and the
    logits (norms, scalings, soft-caps, a head with layers of its own) is the model's.
    """
    base = _Base.of(model, inputs, "prefix")
    layout = model.anatomy.places[f"{base.blocks[-1].path}.out"].layout
    n, room = streams.shape[0], max(_LOGITS // max(base.logits.numel(), 1), 1)
    for first in range(0, n, room):
        some = streams[first : first + room].flatten(0, 1)
        some = some.transpose(0, 1) if layout.steps else some  # XLNet keeps tokens first
        forward = model.forward(inputs, strict=False)
        calls = iter(range(len(base.blocks)))
        for module in dict.fromkeys(b.module for b in base.blocks):
            forward.taps.instead[module] = _ending(base, calls, some)
        output = forward.run(lambda forward=forward: model.call(inputs))
        logits = output["logits"] if isinstance(output, dict) else output
        yield logits.unflatten(0, (-1, inputs.batch))


def _ending(base: _Base, calls: Iterator[int], streams: Tensor):
    def forward(*args: Any, **kwargs: Any) -> Any:
        i = next(calls)
        place = base.model.anatomy.places[f"{base.blocks[i].path}.in"]
        stream = _argument(args, kwargs, place.slot)
        slot = base.model.anatomy.places[f"{base.blocks[i].path}.out"].slot
        return _put(base.shapes[i], slot, streams if i + 1 == len(base.blocks) else stream)

    return forward


def _on_rows(path: str, mine: list[tuple[int, Edit]], batch: int) -> Edit:
    """Several edits at one place, each on the rows of its own cell."""

    def change(value: Tensor, here: Here) -> Tensor:
        made = value.clone()
        for n, edit in mine:
            rows = slice(n * batch, (n + 1) * batch)
            made[rows] = edit.apply(value[rows], Here(here.site, here.axes, here.windows, late=True))
        return made

    return Edit(Site.parse(path), change, kind="rows")


def _plain(base: _Base, cells: Sequence[Cell], wave: _Wave, last: bool) -> Answer:
    """All cells as rows of one ordinary pass."""
    model, inputs, n = base.model, base.inputs, len(wave.cells)
    arguments = {k: v.repeat(n, *[1] * (v.ndim - 1)) if isinstance(v, Tensor) else v for k, v in inputs.arguments.items()}
    windows = {k: Window(w.length, w.start, w.first and w.first * n, w.end and w.end * n) for k, w in inputs.windows.items()}
    tiled = Inputs(arguments, inputs.tokens.repeat(n, 1), windows)
    forward = model.forward(tiled)
    by_path: dict[str, list[tuple[int, Edit]]] = {}
    for i, cell in enumerate(wave.cells):
        by_path.setdefault(cells[cell].path, []).append((i, cells[cell].edit))
    for path, mine in by_path.items():
        forward.edit(path, _on_rows(path, mine, inputs.batch))
    output = forward.run(lambda: model.call(tiled))
    logits = (output["logits"] if isinstance(output, dict) else output).unflatten(0, (n, -1))
    return Answer(wave.cells, logits[:, :, -1:] if last else logits)


def _contiguous_head(model: Model) -> tuple[str, Any]:
    """`logits_to_keep` hands the head a strided slice, on which a frozen matrix is 2.5x slower than on a contiguous one."""
    head = model.hf.get_output_embeddings() if hasattr(model.hf, "get_output_embeddings") else None  # type: ignore[operator]
    path = next((p for p, m in model.hf.named_modules() if m is head), "")

    def before(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return tuple(a.contiguous() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args), kwargs

    return path, before


def _argument(args: tuple, kwargs: dict, slot: Slot) -> Tensor:
    return args[slot] if isinstance(slot, int) else kwargs[slot]


def _put(output: Any, slot: Any, stream: Tensor) -> Any:
    if slot is None:
        return stream
    made = list(output)
    made[slot] = stream
    return tuple(made)


def _tiled(value: Tensor, rows: int) -> Tensor:
    """Rows repeated as often as there are cells: prompt by prompt within a cell, cell by cell."""
    times = rows // value.shape[0]
    return value if times == 1 else value.repeat(times, *[1] * (value.ndim - 1))


def _tile_arguments(tree: Any, stream: Any, batch: int, rows: int, heads: int) -> Any:
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
