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
from patchclamp.model.trail import askew
from patchclamp.model.watch import DOOR, Recording, Slot, Visit


def read_anatomy(module: nn.Module, tape: Recording, batch: int, stack: str = "") -> Anatomy:
    """The anatomy of a model whose forward pass over `batch` rows was recorded; `stack` names its list of blocks."""
    s = Survey(tape, batch)
    stacks = _stacks(module, tape, batch, stack)
    main = _main(module, tape, stacks)
    towers = []
    for container, visits in stacks.items():
        prefix = "" if container == main else _prefix(container, towers, _encodes(module))
        slots = [stream_slots(tape, v, batch) for v in visits]
        numbered = [(f"{prefix}blocks.{i}", v, s_) for i, (v, s_) in enumerate(zip(visits, slots)) if s_ is not None]
        blocks = tuple(read_block(s, path, visit, through) for path, visit, through in numbered)
        if any(b.steps for b in blocks) or any(p.startswith(f"{prefix}blocks.") for p in s.places):
            towers.append(_tower(s, prefix, visits, blocks))
    if not towers:
        _unread(s, module, stacks)
    _ends(s, module, towers)
    result = tape.visits[0].outs
    vocab = tape.values[result["logits"]].shape[-1] if "logits" in result else 0
    places = dict(sorted(s.places.items(), key=lambda item: item[1].order))
    return Anatomy(places, s.refused, tuple(towers), vocab)


def _stacks(module: nn.Module, tape: Recording, batch: int, only: str) -> dict[str, list[Visit]]:
    """Visits of the members of module lists that read a stream and return one of the same shape, outermost lists only.

    A list in which a member with a list of its own changes the shape holds stages (Swin); the stacks lie within them.
    """
    found: dict[str, list[Visit]] = {}
    stages = {
        v.path.rpartition(".")[0]
        for v in tape.visits
        if any(isinstance(part, nn.ModuleList) for part in v.module.children())
        and any(_is_stream(tape.values[x], batch) for x in v.ins.values())
        and stream_slots(tape, v, batch) is None
    }
    for visit in tape.visits:
        container = visit.path.rpartition(".")[0]
        if not container or visit.path == DOOR or (only and container != only) or container in stages:
            continue
        if not only and not isinstance(module.get_submodule(container), nn.ModuleList):
            continue
        if any(_within(tape, visit, outer) for visits in found.values() for outer in visits):
            continue
        if stream_slots(tape, visit, batch) is not None and _holds_matrices(visit.module):
            found.setdefault(container, []).append(visit)
    return {c: v for c, v in found.items() if any(len(list(x.module.children())) for x in v)}


def _holds_matrices(module: nn.Module) -> bool:
    """Blocks have weights, and not convolutions only (those that make wav2vec 2.0's positions)."""
    parts = list(module.modules())
    convolves = any(isinstance(p, (nn.Conv1d, nn.Conv2d)) for p in parts)
    shapes = [p.ndim for p in module.parameters()]
    return bool(shapes) and (2 in shapes or not convolves)


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


def _unread(s: Survey, module: nn.Module, stacks: dict[str, list[Visit]]) -> None:
    """Say why no block could be read."""
    visited = {v.path for v in s.tape.visits}
    lists = [m for m, part in module.named_modules() if isinstance(part, nn.ModuleList)]
    passed = [m for m in lists if f"{m}.0" not in visited and any(v.startswith(f"{m}.0.") for v in visited)]
    homes = {c.rpartition(".")[0] for c in stacks}
    if not stacks:
        cure = "" if hasattr(module, "config") else '; name it with pc.load(module, blocks="path.of.the.list")'
        s.refused["blocks"] = (
            "the model calls its blocks past PyTorch's hooks, where nobody can listen" if passed
            else f"it has no list of blocks that read a stream (batch, position, width) and return one{cure}"
        )  # fmt: skip
    elif len(stacks) > 1 and len(homes) == 1:  # XLM
        s.refused = {"blocks": "its blocks are no modules: attention and feed-forward layers lie in lists of their own"}


def _prefix(container: str, towers: list[Tower], encodes: bool) -> str:
    word, taken = _word(container, encodes), {t.prefix for t in towers}
    return next(name for i in range(1, 99) if (name := f"{word}{i if i > 1 else ''}.") not in taken)


def _encodes(module: nn.Module) -> bool:
    return bool(getattr(getattr(module, "config", None), "is_encoder_decoder", False))


def _word(container: str, encodes: bool) -> str:
    """What a stack is called: of an encoder-decoder, whatever it reads, `encoder`."""
    words = {
        "vision": ("vision", "visual", "image", "vit", "dino"), "audio": ("audio", "speech", "wav"),
        "text": ("text", "language"), "encoder": ("encoder",), "decoder": ("decoder",),
    }  # fmt: skip
    for word in ("vision", "encoder", *words) if encodes else words:
        if any(n in container.lower() for n in words[word]):
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
        (g,) = torch.autograd.grad(askew(y[0, 0]), x, retain_graph=True, allow_unused=True)
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


def _embeddings(s: Survey, embedding: object) -> dict[str, Visit]:
    """What embeds the tokens, by site: of an encoder-decoder, what the decoder wrote and what the encoder reads."""
    weight, given = getattr(embedding, "weight", None), s.tape.visits[0].ins
    made = [
        v for v in s.tape.visits
        if v.path != DOOR and (v.module is embedding or isinstance(v.module, nn.Embedding))
        and v.ins and v.outs and s.tape.values[interior.first_out(v)].ndim == 3
    ]  # fmt: skip
    made.sort(key=lambda v: (v.module is not embedding, getattr(v.module, "weight", None) is not weight))
    decodes = "decoder_input_ids" in given
    found = {}
    for path, slot in (("embed.out", "decoder_input_ids" if decodes else "input_ids"), ("encoder.embed.out", "input_ids")):
        ids = interior.alias(s.tape, given[slot]) if slot in given else set()
        found[path] = next((v for v in made if interior.first_in(v) in ids), None)
    if not decodes:
        found = {"embed.out": found["embed.out"] or next((v for v in made if v.module is embedding), None)}
    return {path: visit for path, visit in found.items() if visit is not None}


def _ends(s: Survey, module: nn.Module, towers: list[Tower]) -> None:
    """`embed.out` and `logits`."""
    embedding = None
    if hasattr(module, "get_input_embeddings"):
        try:
            embedding = module.get_input_embeddings()  # type: ignore[operator]
        except (NotImplementedError, AttributeError):
            embedding = None
    visits = _embeddings(s, embedding)
    for path, visit in visits.items():
        s.put(path, "output", visit, interior.first_out(visit), ("batch", "pos", "d_model"), slot=next(iter(visit.outs)))
    if "embed.out" not in visits:
        reads = any(not s.tape.values[v].is_floating_point() for v in s.tape.visits[0].ins.values())
        s.refused["embed.out"] = "no single module embeds the tokens" if reads else "it reads no tokens"
    top = s.tape.visits[0]
    if "logits" in top.outs and s.tape.values[top.outs["logits"]].ndim == 3:
        s.put("logits", "output", top, top.outs["logits"], ("batch", "pos", "vocab"), slot="logits")
    elif None in top.outs and s.tape.values[top.outs[None]].ndim == 3:
        s.put("logits", "output", top, top.outs[None], ("batch", "pos", "vocab"), slot=None)
    else:
        s.refused["logits"] = "it returns no logits per token"
