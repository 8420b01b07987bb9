"""Anatomy: where the named places of a model are, read from the model itself.

A table of places, and for whatever cannot be served the reason why; beside it the facts that weights and contributions
need: which matrices a write has, how the stream goes from a block's input to its output. `survey.py` fills it in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.model.place import Place


@dataclass(frozen=True, eq=False)
class Matrix:
    """A projection of an attention or feed-forward layer, and which of its features belong to which head."""

    module: str
    features: Tensor | None = None
    """(head, d_head) or (neuron,): indices into the module's outputs (into its inputs, for matrices that write)."""


@dataclass(frozen=True, eq=False)
class Write:
    """One thing a block adds to the stream: attention, a feed-forward layer, a mixer."""

    name: str
    """`attn`, `cross`, `mlp`, `mixer` or `extra`; a second of its kind in a block is `attn2`, `mlp2`, ..."""
    heads: int = 0
    kv_heads: int = 0
    matrices: dict[str, Matrix] = field(default_factory=dict)
    """`q k v o` of attention, `in gate out` of a feed-forward layer, those that are single matrices."""
    norm: str = ""
    """Module of the norm whose output it reads, if it reads one's."""
    norms: tuple[str, ...] = ()
    """Modules of the norms between its last matrix and the stream."""
    factors: tuple[float | Tensor, ...] = ()
    """Constant factors between its last matrix and the stream."""
    linear: bool = False
    """Whether its last matrix, those norms and factors are all there is between `z` (or `act`) and the stream."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a block's stream: writes added together, a norm standing in it, a constant factor or a constant shift."""

    kind: str
    writes: tuple[str, ...] = ()
    norm: str = ""
    factor: float | Tensor = 1.0
    shift: float | Tensor = 0.0


@dataclass(frozen=True, eq=False)
class Block:
    """One block: its module, its writes, and the steps from `in` to `out`."""

    path: str
    """Site prefix, e.g. `blocks.3`."""
    module: str
    call: int
    writes: tuple[Write, ...] = ()
    steps: tuple[Step, ...] = ()
    mid_after: int = 0
    """How many steps lead to `mid`; 0 where the block has none."""

    def write(self, name: str) -> Write | None:
        """The write of that name, if the block has it."""
        return next((w for w in self.writes if w.name == name), None)


@dataclass(frozen=True, eq=False)
class Tower:
    """A stack of blocks over one stream."""

    prefix: str
    """`""` for the stack that leads to the logits, `encoder.`, `vision.`, ... for others."""
    width: int
    blocks: tuple[Block, ...]
    causal: bool
    norm: str = ""
    """The module of the final norm, if there is one."""
    head: int = 0
    """How many matrices lie between the last norm (or block) and the logits: one unembedding, or a head with its own layers."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The table of a model's places."""

    places: dict[str, Place]
    refused: dict[str, str]
    """Sites that this kind of model has in the grammar but cannot serve, with the reason."""
    towers: tuple[Tower, ...]
    vocab: int = 0

    def __repr__(self) -> str:
        stacks = ", ".join(f"{t.prefix or 'main '}{len(t.blocks)} blocks" for t in self.towers)
        return f"Anatomy({stacks or 'no blocks'}; {len(self.places)} places)"

    @property
    def main(self) -> Tower:
        """The tower that leads to the output."""
        if not self.towers:
            raise Unserved("this model has no stack of blocks that could be read; see model.sites for what it has.")
        return next((t for t in self.towers if not t.prefix), self.towers[-1])

    def block(self, path: str) -> Block:
        """The block that a site lies in."""
        return next(b for t in self.towers for b in t.blocks if path.startswith(b.path + "."))
