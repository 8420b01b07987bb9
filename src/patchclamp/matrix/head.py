"""Head: the matrices of one attention head, as they act on the residual stream.

A norm before the head is folded in: its weight (1 + w where a family stores w) and its centring go into `W_Q W_K W_V`, its bias
into `b_Q b_K b_V`, and what is left of it is one number by which every token's vector is divided. Behind the head, constant
factors go into `W_O`, and so does the weight of a norm that stands between the head and the stream (gemma 2); the number such a
norm divides by depends on all heads together and is left out. Query heads that share a key-value head all have its matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.site import Site
from patchclamp.matrix.factored import Factored
from patchclamp.model.anatomy import Block, Write
from patchclamp.model.model import Model
from patchclamp.model.norms import Norm


@dataclass(frozen=True, eq=False)
class Head:
    """One head of one attention layer, by the site of what it finds.

    >>> from patchclamp.matrix.head import Head
    >>> head = Head.of(model, "blocks.1.attn.z[head=2]")
    >>> head.name, head.ov.shape, head.ov.rank
    ('1.2', (128, 128), 16)
    """

    model: Model
    block: Block
    write: Write
    number: int

    @classmethod
    def of(cls, model: Model, site: str | Site) -> Head:
        """The head that a site such as `blocks.1.attn.z[head=2]` names."""
        site = Site.parse(site)
        (path,) = _one(model, site)
        block = model.anatomy.block(path)
        write = block.write(str(Site.parse(path).parts[-2]))
        number = dict(site.index).get("head")
        if str(site.parts[-1]) != "z" or write is None or not isinstance(number, int):
            raise WrongAxis(f"{site} is not one head; name it as blocks.1.attn.z[head=2].")
        if not -write.heads <= number < write.heads:
            raise WrongAxis(f"{block.path} has {write.heads} heads, 0 to {write.heads - 1}; {site} is outside.")
        missing = [m for m in "qkvo" if m not in write.matrices]
        if missing:
            raise Unserved(
                f"{path}: its {' and '.join(missing)} are not made by single matrices, so there is no circuit to read."
            )
        return cls(model, block, write, number % write.heads)

    @classmethod
    def all(cls, model: Model) -> list[Head]:
        """Every head of the main stack, of layers whose matrices can be read; an error if there are none."""
        found = [
            Head(model, block, write, i)
            for block in model.anatomy.main.blocks
            for write in block.writes
            if write.name == "attn" and set("qkvo") <= set(write.matrices)
            for i in range(write.heads)
        ]
        if not found:
            raise Unserved(f"{model.name} has no attention head that is made of single matrices.")
        return found

    @classmethod
    def chain(cls, model: Model, sites: Sequence[str | Site]) -> list[Head]:
        """Heads of which each can read what the one before writes."""
        if not sites:
            raise WrongAxis("name at least one head, or several in a row.")
        found = [Head.of(model, site) for site in sites]
        for one, other in zip(found, found[1:]):
            if one.layer >= other.layer:
                raise WrongAxis(f"{other.name} does not come after {one.name}, so it cannot read what that one writes.")
        return found

    @property
    def path(self) -> str:
        """`blocks.1.attn`."""
        return f"{self.block.path}.{self.write.name}"

    @property
    def site(self) -> str:
        return f"{self.path}.z[head={self.number}]"

    @property
    def layer(self) -> int:
        return self.model.anatomy.main.blocks.index(self.block)

    @property
    def name(self) -> str:
        """`1.2`: layer and head."""
        return f"{self.layer}.{self.number}"

    @property
    def shared(self) -> int:
        """The key-value head whose keys and values it reads."""
        return self.number // (self.write.heads // self.write.kv_heads)

    @cached_property
    def norm(self) -> Norm | None:
        """The norm between the stream and it, if there is one."""
        path = norm_before(self.block, self.write)
        return self.model.weights.norm(path) if path else None

    def weight(self, letter: str) -> Float[Tensor, "d_model d_head"]:
        """`Q`, `K` or `V`, the norm before it folded in: what multiplies the stream, once divided."""
        found = self._raw("W", letter)
        if self.norm is not None:
            found = self.norm.weight[:, None] * found
            found = found - found.mean(0) if self.norm.centres else found
        return found

    def bias(self, letter: str) -> Float[Tensor, " d_head"]:
        """`Q`, `K` or `V`, what the norm's bias brings included."""
        found = self._raw("b", letter)
        return found if self.norm is None else found + self.norm.bias @ self._raw("W", letter)

    @cached_property
    def output(self) -> Float[Tensor, "d_head d_model"]:
        """`W_O` with the factors and the weights of norms that lie between it and the stream."""
        if not self.write.linear:
            raise Unserved(f"{self.path} reaches the stream through more than its output matrix; its OV circuit is not linear.")
        return outward(self.model, self.write, self.model.weights[f"{self.path}.W_O[head={self.number}]"].float())

    @cached_property
    def ov(self) -> Factored:
        """W_V W_O: what a token looked at brings, stream to stream."""
        return Factored(self.weight("V"), self.output)

    @cached_property
    def qk(self) -> Factored:
        """W_Q W_K^T, query to key; before any rotation, norm of queries, or scale."""
        return Factored(self.weight("Q"), self.weight("K").T)

    def _raw(self, kind: str, letter: str) -> Tensor:
        at = f"head={self.number}" if letter == "Q" else f"kv_head={self.shared}"
        return self.model.weights[f"{self.path}.{kind}_{letter}[{at}]"].float()


def outward(model: Model, write: Write, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    """What rows of a layer's last matrix add to the stream: the weights of norms and the factors behind it folded in."""
    for path in write.norms:
        norm = model.weights.norm(path)
        rows = norm.centred(rows) * norm.weight
    for factor in write.factors:
        rows = rows * factor
    return rows


def norm_before(block: Block, write: Write) -> str:
    """The module of the norm through which a layer reads the stream; none where the norm stands in the stream itself (BERT)."""
    standing = {step.norm for step in block.steps}
    return write.norm if write.norm.startswith(f"{block.module}.") and write.norm not in standing else ""


def height(model: Model) -> int:
    """How many blocks there are; none in a model that only embeds and unembeds."""
    return model.layers if model.anatomy.towers else 0


def carried(model: Model, start: int, stop: int, what: str) -> float | Tensor:
    """By what the stream is multiplied from the input of block `start` to that of block `stop`; refused across a norm in it."""
    factor: float | Tensor = 1.0
    for block in model.anatomy.main.blocks[start:stop] if start < stop else ():
        if not block.steps:
            raise Unserved(f"{block.path} is no sum that was seen to add up, so {what} cannot be followed through it.")
        for step in block.steps:
            if step.kind == "norm":
                raise Unserved(f"a norm stands in the stream of {block.path} ({step.norm}), so {what} is not linear; "
                               "take one block's circuits from its own input.")  # fmt: skip
            if step.kind == "scale":
                factor = factor * step.factor
    return factor


def after(head: Head, what: str) -> float | Tensor:
    """By what the stream is multiplied from where a head writes to its block's output."""
    steps, factor = head.block.steps, 1.0
    at = next((i for i, s in enumerate(steps) if head.write.name in s.writes), None)
    if at is None:
        raise Unserved(f"{head.block.path} is no sum that was seen to add up, so {what} cannot be followed out of it.")
    for step in steps[at + 1 :]:
        if step.kind == "norm":
            raise Unserved(f"a norm stands in the stream of {head.block.path} ({step.norm}), so {what} is not linear.")
        if step.kind == "scale":
            factor = factor * step.factor
    return factor


def single(model: Model) -> None:
    """An error where the stream does not become logits through one matrix."""
    if "logits.W_U" not in model.weights:
        raise Unserved(f"{model.name} has no unembedding, so there are no logits to write to.")
    if height(model) and model.anatomy.main.head > 1:
        raise Unserved(
            f"{model.name} turns the stream into logits through {model.anatomy.main.head} matrices with a curve between."
        )


def _one(model: Model, site: Site) -> tuple[str]:
    paths = model.places(site)
    if len(paths) != 1:
        raise WrongAxis(f"{site} names {len(paths)} layers; a circuit is of one head.")
    return (paths[0],)
