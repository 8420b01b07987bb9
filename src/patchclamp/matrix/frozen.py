"""Frozen: a model as the linear map that it is once one run's attention patterns and norms are held.

With patterns fixed, attention is a weighted sum of what stands at other tokens; with what a norm divides by fixed, a norm is
a matrix. What then goes through a block is linear in what comes in, except through feed-forward layers: their outputs are
taken as they were in the run. Attention that does more than that (gates behind the heads, values that are normed) is seen not
to add up, and is taken as it was, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.core.run import Run
from patchclamp.matrix.head import norm_before, single
from patchclamp.model.anatomy import Block, Step, Write
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model
from patchclamp.model.norms import Norm, normed

Stream = Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False)
class Held:
    """A norm whose scale is that of the run: a matrix for each token, and a bias."""

    norm: Norm
    scale: Float[Tensor, "batch pos 1"]

    def linear(self, x: Tensor) -> Tensor:
        """What the norm makes of a part of the stream, its bias left out. Further axes may stand between batch and pos."""
        scale = self.scale if x.ndim == 3 else self.scale[:, None]
        return self.norm.centred(x) * self.norm.weight * scale


@dataclass(frozen=True, eq=False)
class Attention:
    """One attention layer, its pattern held."""

    pattern: Float[Tensor, "batch head query key"]
    W_V: Float[Tensor, "head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    before: Held | None
    after: tuple[Held, ...]
    factors: tuple[float | Tensor, ...]
    constant: Stream
    """What its biases write."""

    def heads(self, x: Stream) -> Float[Tensor, "batch head pos d_model"]:
        """What each head writes of a part of the stream."""
        read = x if self.before is None else self.before.linear(x)
        z = self.pattern @ torch.einsum("bkd,hde->bhke", read, self.W_V)
        return self._out(torch.einsum("bhqe,hed->bhqd", z, self.W_O))

    def _out(self, written: Tensor) -> Tensor:
        for held in self.after:
            written = held.linear(written)
        for factor in self.factors:
            written = written * factor
        return written

    def whole(self, x: Stream) -> Stream:
        """What its last matrix gives, as it comes into the stream: with the biases of norms behind it."""
        for held in self.after:
            x = held.linear(x) + held.norm.bias
        for factor in self.factors:
            x = x * factor
        return x


@dataclass(frozen=True, eq=False)
class Frozen:
    """One run, everything that is not linear in it held. `Frozen.of(model, prompt)` makes it.

    >>> from patchclamp.matrix.frozen import Frozen
    >>> frozen = Frozen.of(model, clean)
    >>> sorted(frozen.sources)[:3], len(frozen.attention)
    (['embedding', 'mlp 0', 'mlp 1'], 4)
    """

    model: Model
    run: Run
    sources: dict[str, tuple[int, Stream]]
    """What the paths begin with: the block at whose input it stands, and the stream itself."""
    attention: dict[int, Attention]
    """The layers that could be taken apart, by block."""
    passing: tuple[tuple[Step | Held, ...], ...]
    """What a part of the stream meets on its way through each block."""
    reads_after: tuple[int, ...]
    """How much of that comes before the block's attention."""
    final: Held | None

    @classmethod
    def of(cls, model: Model, prompt: Prompt) -> Frozen:
        blocks = model.anatomy.main.blocks
        if not blocks or any(not b.steps for b in blocks):
            raise Unserved(f"{model.name} has blocks whose output is not a sum that was seen to add up; no paths to follow.")
        run = _kept(model, model.inputs(prompt))
        return _Building(model, run).build()

    def through(self, layer: int, x: Tensor) -> Tensor:
        """A part of the stream straight through a block."""
        for step in self.passing[layer]:
            x = _passed(step, x)
        return x

    def branches(self, layer: int, x: Stream) -> Float[Tensor, "batch head pos d_model"]:
        """What each head of a block makes of a part of the stream, as it leaves the block."""
        at = self.reads_after[layer]
        for step in self.passing[layer][:at]:
            x = _passed(step, x)
        written = self.attention[layer].heads(x)
        for step in self.passing[layer][at:]:
            written = _passed(step, written)
        return written

    def ended(self, x: Tensor) -> Tensor:
        """A part of the last stream as the unembedding reads it."""
        return x if self.final is None else self.final.linear(x)

    def logits(self, x: Stream) -> Float[Tensor, "batch pos vocab"]:
        """What a part of the last stream adds to the logits."""
        return self.ended(x) @ self.model.weights["logits.W_U"].float() * self.gain

    @property
    def constant(self) -> Float[Tensor, "*places vocab"]:
        """What stands in the logits without any stream: the last norm's bias and the unembedding's."""
        return self._bias * self.gain

    @cached_property
    def gain(self) -> float | Float[Tensor, "batch pos vocab"]:
        """By what the unembedding's product is multiplied: a scaling, or what a soft-cap left of each logit in this run."""
        single(self.model)
        last = self.run[f"{self.model.anatomy.main.blocks[-1].path}.out"].float()
        made = self.ended(last) @ self.model.weights["logits.W_U"].float() + self._bias
        seen = self.run.logits.float()
        slope = float((made * seen).sum() / (made * made).sum().clamp(min=1e-30))
        slack = _slack(self.model)
        if (seen - slope * made).norm() < slack * seen.norm():
            return 1.0 if abs(slope - 1) < slack else slope
        ordered = seen.flatten()[made.flatten().argsort()]
        if bool((ordered.cummax(0).values - ordered > slack * seen.abs().max()).any()):
            raise Unserved(f"{self.model.name} does not end with its norm and its unembedding alone, so no path ends anywhere.")
        return torch.where(made.abs() < 1e-6, torch.full_like(made, slope), seen / made)  # a soft-cap keeps their order

    @property
    def _bias(self) -> Float[Tensor, " vocab"]:
        w = self.model.weights
        W_U = w["logits.W_U"].float()
        found = w["logits.b_U"].float() if "logits.b_U" in w else torch.zeros_like(W_U[0])
        return found if self.final is None else found + self.final.norm.bias @ W_U


class _Building:
    """Goes through the blocks once and collects what `Frozen` holds."""

    def __init__(self, model: Model, run: Run) -> None:
        self.model, self.run = model, run
        self.sources: dict[str, tuple[int, Stream]] = {}
        self.attention: dict[int, Attention] = {}
        self.slack = _slack(model)

    def build(self) -> Frozen:
        blocks = self.model.anatomy.main.blocks
        self.sources["embedding"] = (0, self.run[f"{blocks[0].path}.in"].float())
        passing, reads = zip(*(self._block(i, b) for i, b in enumerate(blocks)))
        norm, final = self.model.anatomy.main.norm, None
        if norm:
            read = self.model.weights.norm(norm)
            x, y = self.run[f"{blocks[-1].path}.out"].float(), self.run["norm.out"].float()
            final = Held(read, read.scale(x, y))
        return Frozen(self.model, self.run, self.sources, self.attention, passing, reads, final)

    def _block(self, layer: int, block: Block) -> tuple[tuple[Step | Held, ...], int]:
        """What passes through a block meets, how much of it before attention; its sources and attention put down."""
        passing: list[Step | Held] = []
        stream, reads = self.run[f"{block.path}.in"].float(), 0
        bias, own = torch.zeros_like(stream), {}
        for step in block.steps:
            if step.kind == "write":
                for name in step.writes:
                    out = self.run[f"{block.path}.{name}.out"].float()
                    write = block.write(name)
                    found = self._attention(block, write, stream, out) if name == "attn" and write is not None else None
                    if found is None:
                        own[name] = out
                    else:
                        self.attention[layer], reads, bias = found, len(passing), bias + found.constant
                stream = stream + sum(self.run[f"{block.path}.{name}.out"].float() for name in step.writes)
                continue
            met = step if step.kind != "norm" else self._standing(step.norm, stream)
            if step.kind != "shift":
                passing.append(met)
                own = {name: _passed(met, x) for name, x in own.items()}
                bias, stream = _passed(met, bias), _whole(met, stream)
                bias = bias + met.norm.bias if isinstance(met, Held) else bias
            else:
                bias, stream = bias + step.shift, stream + step.shift
        self.sources |= {f"{name} {layer}": (layer + 1, x) for name, x in own.items()}
        changed = self.run[f"{block.path}.out"].float() - stream
        if changed.norm() > self.slack * stream.norm():  # an edit of the stream itself: what it adds sets out from here
            self.sources[f"edit {layer}"] = (layer + 1, changed)
        if float(bias.abs().max()) > 0:
            self.sources[f"bias {layer}"] = (layer + 1, bias)
        return tuple(passing), reads

    def _standing(self, path: str, stream: Stream) -> Held:
        norm = self.model.weights.norm(path)
        with torch.no_grad():
            made = normed(self.model.hf.get_submodule(path), stream.to(self.model.dtype)).float()
        return Held(norm, norm.scale(stream, made))

    def _attention(self, block: Block, write: Write, stream: Stream, out: Stream) -> Attention | None:
        """The layer with its pattern held, where that gives what the layer wrote; None where it does not."""
        if not write.linear or not {"v", "o"} <= set(write.matrices) or f"{block.path}.attn.pattern" not in self.run:
            return None
        w, at, path = self.model.weights, f"{block.path}.attn", norm_before(block, write)
        shared = torch.arange(write.heads) // (write.heads // write.kv_heads)
        norm = w.norm(path) if path else None
        before = Held(norm, norm.scale(stream, self.run[f"{at}.in"].float())) if norm is not None else None
        after = tuple(self._after(n) for n in write.norms)
        pattern = self.run[f"{at}.pattern"].float()
        W_V, W_O = w[f"{at}.W_V"].float()[shared], w[f"{at}.W_O"].float()
        value = w[f"{at}.b_V"].float()[shared]
        value = value if norm is None else value + torch.einsum("d,hde->he", norm.bias, W_V)
        looked = pattern.sum(-1)  # less than one where a sink takes some of it
        constant = torch.einsum("bhq,he,hed->bqd", looked, value, W_O) + w[f"{at}.b_O"].float()
        made = Attention(pattern, W_V, W_O, before, after, write.factors, constant)
        made = replace(made, constant=made.whole(constant))
        missed = (made.heads(stream).sum(1) + made.constant - out).norm()
        return made if missed < 10 * self.slack * out.norm() else None

    def _after(self, path: str) -> Held:
        norm = self.model.weights.norm(path)
        return Held(norm, norm.scale(self.run[f"@{path}.in"].float(), self.run[f"@{path}.out"].float()))


def _kept(model: Model, inputs: Inputs) -> Run:
    main, places = model.anatomy.main, model.anatomy.places
    wanted = {"norm.out"} if main.norm else set()
    for block in main.blocks:
        wanted |= {
            f"{block.path}.{n}" for n in ("in", "out", "attn.in", "attn.pattern", *(f"{w.name}.out" for w in block.writes))
        }
    raw = {f"@{n}.{side}" for b in main.blocks for w in b.writes for n in w.norms for side in ("in", "out")}
    run = model.run(inputs, [*(p for p in places if p in wanted), *sorted(raw)])
    if run.output is None:
        raise Unserved(f"{model.name} returns no logits, so no path ends anywhere; load it with its head.")
    for one, two in zip(main.blocks, main.blocks[1:]):
        if not torch.allclose(run[f"{one.path}.out"], run[f"{two.path}.in"], rtol=1e-4, atol=1e-4):
            raise Unserved(f"{model.name} changes the stream between {one.path} and {two.path}; paths would not add up.")
    return run


def _slack(model: Model) -> float:
    """How far, relatively, rounding may take a sum from what the model has."""
    return 1e-4 if model.dtype == torch.float32 else 5e-3


def _passed(step: Step | Held, x: Tensor) -> Tensor:
    """A part of the stream after a step that it meets."""
    return step.linear(x) if isinstance(step, Held) else x * step.factor


def _whole(step: Step | Held, x: Stream) -> Stream:
    """The whole stream after it."""
    return step.linear(x) + step.norm.bias if isinstance(step, Held) else x * step.factor
