"""Stacks: finds a model's stacks of blocks in a recording, and the ends of their streams.

A stack is a list of modules each of which reads a stream and returns one of the same shape. The one that leads to the
output has no prefix; encoders and towers are named by their container. From here the whole anatomy is read.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from patchclamp.model import interior
from patchclamp.model.anatomy import Anatomy, Block, Tower
from patchclamp.model.blocks import read_block
from patchclamp.model.survey import Survey
from patchclamp.model.watch import DOOR, Recording, Slot, Visit


def read_anatomy(module: nn.Module, tape: Recording, batch: int, stack: str = "") -> Anatomy:
    """The anatomy of a model whose forward pass over `batch` rows was recorded; `stack` names its list of blocks."""
    s = Survey(tape, batch)
    stacks = _stacks(module, tape, batch, stack)
    main = _main(module, tape, stacks)
    towers = []
    for container, visits in stacks.items():
        prefix = "" if container == main else _prefix(container, towers)
        slots = [stream_slots(tape, v, batch) for v in visits]
        numbered = [(f"{prefix}blocks.{i}", v, s_) for i, (v, s_) in enumerate(zip(visits, slots)) if s_ is not None]
        blocks = tuple(read_block(s, path, visit, through) for path, visit, through in numbered)
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
        if stream_slots(tape, visit, batch) is not None and next(visit.module.parameters(), None) is not None:
            found.setdefault(container, []).append(visit)
    return {c: v for c, v in found.items() if any(len(list(x.module.children())) for x in v)}


def _within(tape: Recording, visit: Visit, outer: Visit) -> bool:
    return any(v.number == outer.number for v in tape.chain(visit.parent))


def stream_slots(tape: Recording, visit: Visit, batch: int) -> tuple[Slot, Slot] | None:
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
    slots = stream_slots(s.tape, visits[0], s.batch)
    assert slots is not None
    width = s.tape.values[visits[0].ins[slots[0]]].shape[-1]
    last = visits[-1].outs[stream_slots(s.tape, visits[-1], s.batch)[1]]  # type: ignore[index]
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
