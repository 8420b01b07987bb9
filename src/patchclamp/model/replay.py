"""Replay: a sweep of edits over one base run, in which nothing is computed twice that cannot have changed.

An edit at layer l and position p leaves the layers below l and the tokens before p as they were. So a wave of cells that
share a first token runs on the later tokens only, over the base run's key-value cache, and its batch grows on the way up:
the rows of a cell join at its own layer, taken from the stored stream. One pass serves all layers. It is generic: blocks
that come too early are replaced by handing on the stream, so masks, rotary angles and norms stay the model's own.

Three ways, from the most saving to the plainest; each is exact, and a cell without any edit rides along to prove it:
`suffix` (later tokens, growing batch), `prefix` (all tokens, growing batch), `plain` (all tokens, all layers, batched).
What the first two may spare besides (a `Plan`) is tried first, and left alone where it is not exact.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from patchclamp.core.edit import Edit
from patchclamp.core.site import Site
from patchclamp.model.inputs import Inputs, logits_of, takes, tiled
from patchclamp.model.ride import Base, Cell, Ride, entry, on_rows
from patchclamp.model.spare import Plan, attention, before_end, has_words, mixed, one_token, only_inside

if TYPE_CHECKING:
    from patchclamp.model.model import Model

TOKENS = 8192
"""How many tokens a wave may hold, all rows together."""
NUMBERS = 1 << 21
"""How many numbers an activation of a wave may have on a processor. Larger ones leave its caches, and their memory goes back to
the system after every operation, to be fetched anew for the next."""
CACHED = 32_768
"""How many tokens a wave's key-value cache may hold, all rows together."""
PASS = 40
"""What a pass costs besides its tokens, in tokens: reading the weights."""
CALLS = 1e9
"""What a pass costs besides its tokens, in multiply-adds: some hundred calls of Python."""
TOLERANCE = 1e-4
"""How far, relative to its largest logit, the unedited cell may come out from the base run."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The logits of some cells: (cell, batch, pos, vocab), the positions being all of them or only the last."""

    cells: tuple[int, ...]
    logits: Tensor
    tokens: tuple[int, ...] | None = None
    """The words whose logits these are; None for all."""


class _Unfaithful(Exception):
    """The unedited cell did not come out as the base run."""


@torch.no_grad()
def sweep(model: Model, inputs: Inputs, cells: Sequence[Cell], last: bool, known: Collection[int] = (),
          tokens: tuple[int, ...] | None = None) -> Iterator[Answer]:  # fmt: skip
    """Run every cell's edit, by itself, on the base prompt; `last` says that only the last position's logits are wanted, and
    `tokens` that those of some words are enough.

    The base run, where one is made, comes first, as an answer without cells: its logits need not be asked for again.

    Waves of cells that are all `known` are passed over, but for the first one, which proves the way. The others are made of
    the same cells as if nothing were known, and so come out the same to the bit.
    """
    done: set[int] = set()
    for plan in _plans(model, inputs, cells, last, tokens):
        try:
            base = Base.of(model, inputs, plan.way, last, mixed(plan))
            if plan.way != "plain":
                yield Answer((), base.logits[None])
            for wave in _waves(base, cells, plan.way, done):
                if done and known and set(wave.cells) <= set(known):
                    done.update(wave.cells)
                    continue
                answer = _run(base, cells, wave, plan, check=not done)
                done.update(answer.cells)
                yield answer
            return
        except (_Unfaithful, RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            if plan.way == "plain":
                raise


def _plans(model: Model, inputs: Inputs, cells: Sequence[Cell], last: bool, tokens: tuple[int, ...] | None) -> Iterator[Plan]:
    """The plans worth trying, the most saving first: each way with all that it may spare, and then without."""
    inside = only_inside(model)
    spared = Plan(
        "",
        last,
        last and inside and bool(one_token(model)) and _untouched(model, cells),
        tokens if tokens and inside and has_words(model) else None,
        attention(model) if inside else (),
    )
    for way in _ways(model, inputs, cells):
        if way != "plain":
            yield replace(spared, way=way)
        yield Plan(way, last)


def _untouched(model: Model, cells: Sequence[Cell]) -> bool:
    """Whether nothing is changed in the last block once its tokens are by themselves, but for what a cell begins with."""
    end = f"{model.anatomy.main.blocks[-1].path}."
    changed = [p for e in model.edits for p in model.places(e.site)]
    changed += [path for cell in cells for path, _ in cell.edits if path != f"{end}out"]
    return all(before_end(path) for path in changed if path.startswith(end))


def _ways(model: Model, inputs: Inputs, cells: Sequence[Cell]) -> list[str]:
    """The ways worth trying for this model and these cells, the most saving first."""
    main = model.anatomy.main
    paths = {path for c in cells for path, _ in c.edits}
    grown = all(path.startswith("blocks.") and Site.parse(path).layer is not None for path in paths) and not main.prefix
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


@dataclass(frozen=True, eq=False)
class _Wave:
    """Cells that go together, in order of their layers, and the first token that is computed."""

    cells: tuple[int, ...]
    start: int


def _waves(base: Base, cells: Sequence[Cell], way: str, done: set[int]) -> Iterator[_Wave]:
    todo = [i for i in range(len(cells)) if i not in done]
    depth = {i: 0 if way == "plain" else entry(base, cells[i]) for i in todo}
    groups = _grouped(base, {i: cells[i].start for i in todo}, depth) if way == "suffix" else {0: todo}
    for start, group in groups.items():
        mine = sorted(group, key=lambda i: (depth[i], i))
        room = max(min(tokens_of(base.model) // (base.batch * (base.length - start)), CACHED // (base.batch * base.length)), 1)
        each = math.ceil(len(mine) / math.ceil(len(mine) / room))
        for first in range(0, len(mine), each):
            yield _Wave(tuple(mine[first : first + each]), start)


def tokens_of(model: Model) -> int:
    """How many tokens a wave may hold. Feed-forward layers are about four times as wide as the stream."""
    return TOKENS if model.device.type != "cpu" else min(TOKENS, NUMBERS // (4 * model.width))


def _grouped(base: Base, starts: dict[int, int], depth: dict[int, int]) -> dict[int, list[int]]:
    """The cells of each wave, by the first token it computes: those waves that cost least, all together.

    A wave for every first token computes no token in vain, but each pass costs something besides its tokens; so cells that
    begin at neighbouring tokens share a wave, which begins at the first of them.
    """
    firsts = sorted(set(starts.values()))
    rows = dict.fromkeys(firsts, 0.0)
    for i, start in starts.items():
        rows[start] += base.batch * (1 - depth[i] / len(base.blocks))  # a cell's rows join at its own block
    fixed = _fixed(base)
    plans: list[tuple[float, int]] = [(0.0, 0)]  # for every token, from the last: the cost from there on, and the next wave's
    for n in reversed(range(len(firsts))):
        best, held = (float("inf"), 0), 0.0
        for m in range(n, len(firsts)):
            held += rows[firsts[m]]
            cost = fixed + held * (base.length - firsts[n])
            if cost > best[0]:
                break
            best = min(best, (cost + plans[len(firsts) - 1 - m][0], m + 1))
        plans.append(best)
    groups: dict[int, list[int]] = {}
    n = 0
    while n < len(firsts):
        end = plans[len(firsts) - n][1]
        groups[firsts[n]] = [i for i, start in starts.items() if firsts[n] <= start <= firsts[end - 1]]
        n = end
    return groups


def _fixed(base: Base) -> float:
    """What a pass costs besides its tokens, in tokens."""
    modules = {b.module for b in base.blocks}
    size = sum(p.numel() for m in modules for p in base.model.hf.get_submodule(m).parameters())
    return PASS + CALLS / max(size, 1)


def _run(base: Base, cells: Sequence[Cell], wave: _Wave, plan: Plan, check: bool) -> Answer:
    if plan.way == "plain":
        return _plain(base, cells, wave, plan.last)
    logits = Ride(base, [cells[i] for i in wave.cells], wave.start, check, plan).run()
    whole = base.logits if plan.tokens is None else base.logits[..., list(plan.tokens)]
    kept = logits.unflatten(0, (-1, base.batch))
    if check:
        witness, kept = kept[0], kept[1:]
        truth = whole[:, -witness.shape[1] :]
        if not float((witness - truth).abs().max()) <= TOLERANCE * float(truth.abs().max().clamp(min=1e-3)):
            raise _Unfaithful
    if not plan.last and wave.start:  # earlier positions are as in the base run
        before = whole[:, : wave.start].expand(kept.shape[0], -1, -1, -1)
        kept = torch.cat([before, kept], dim=2)
    return Answer(wave.cells, kept, plan.tokens)


def _plain(base: Base, cells: Sequence[Cell], wave: _Wave, last: bool) -> Answer:
    """All cells as rows of one ordinary pass."""
    model, inputs, n = base.model, base.inputs, len(wave.cells)
    rows = tiled(inputs, n)
    forward = model.forward(rows)
    by_path: dict[str, list[tuple[int, Edit]]] = {}
    for i, cell in enumerate(wave.cells):
        for path, edit in cells[cell].edits:
            by_path.setdefault(path, []).append((i, edit))
    for path, mine in by_path.items():
        forward.edit(path, on_rows(path, mine, inputs.batch))
    output = forward.run(lambda: model.call(rows))
    logits = logits_of(output).unflatten(0, (n, -1))
    return Answer(wave.cells, logits[:, :, -1:] if last else logits)
