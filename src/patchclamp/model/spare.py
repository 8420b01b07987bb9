"""Spare: what a pass of a sweep need not compute besides what `ride.py` leaves out, and how it is kept from being computed.

last logits   where only the last token's are asked for, no others are made
some words    where a metric reads the logits of its own words alone, the unembedding has only their rows
one token     in the last block only the last token leads to the answer; of the others it needs the keys and values
attention     rows that join at a block, and change nothing before its attention is done, have the base run's

Each holds for blocks of the common make only, and each is proved by the cell without any edit that rides along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from patchclamp.core.site import Site
from patchclamp.model.anatomy import Block
from patchclamp.model.forward import Forward
from patchclamp.model.inputs import takes
from patchclamp.model.tap import Before
from patchclamp.model.weights import of_weights

if TYPE_CHECKING:
    from patchclamp.model.model import Model

INSIDE = ("in", "q", "k", "v", "scores", "pattern")
"""The places of attention that come before its heads are brought together."""


@dataclass(frozen=True)
class Plan:
    """A way to run a sweep, and what it spares."""

    way: str
    """`suffix`, `prefix` or `plain`: see `replay.py`."""
    last: bool
    """Whether only the last position's logits are asked for."""
    short: bool = False
    """Whether the last block goes on with its last token only, once its tokens have read one another."""
    tokens: tuple[int, ...] | None = None
    """The words whose logits are made; None for all."""
    attention: tuple[tuple[str, str], ...] = ()
    """The attention module and the output matrix of every block, where rows that join may leave attention out."""


def inside(site: Site) -> bool:
    """Whether a place lies in the blocks or before, so that nothing after them is read or changed, and is no weight."""
    return not site.raw and site.parts[0] in ("embed", "blocks") and not of_weights(site)


def only_inside(model: Model) -> bool:
    """Whether a model's edits all do."""
    return all(inside(e.site) for e in model.edits)


# ---- the unembedding -------------------------------------------------------------------------------------------------


def head_of(model: Model) -> str:
    """The module that is the unembedding; the model itself where there is none."""
    head = model.hf.get_output_embeddings() if hasattr(model.hf, "get_output_embeddings") else None  # type: ignore[operator]
    return next((p for p, m in model.hf.named_modules() if m is head), "")


def last_logits(model: Model, forward: Forward) -> dict[str, Any]:
    """What a model is told so that it makes the last position's logits only, if it can be told and nothing is changed there."""
    if not takes(model.hf, "logits_to_keep") or not only_inside(model):
        return {}
    forward.taps.add_before(head_of(model), _contiguous)
    return {"logits_to_keep": 1}


def _contiguous(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """`logits_to_keep` hands the head a strided slice, on which a frozen matrix is 2.5x slower than on a contiguous one."""
    return tuple(a.contiguous() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args), kwargs


def has_words(model: Model) -> bool:
    """Whether the unembedding is one matrix, of which some rows are the logits of some words."""
    head = head_of(model)
    return bool(head) and type(model.hf.get_submodule(head)) is nn.Linear


def some_words(model: Model, tokens: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A forward for the unembedding that makes the logits of some words."""
    head: Any = model.hf.get_submodule(head_of(model))
    rows = torch.tensor(tokens, device=head.weight.device)
    weight, bias = head.weight[rows], None if head.bias is None else head.bias[rows]
    return lambda stream: nn.functional.linear(stream, weight, bias)


# ---- the last block's tokens -----------------------------------------------------------------------------------------


def one_token(model: Model) -> list[str]:
    """The modules of the last block after which a token is by itself; none where the block is not of the common make."""
    block = model.anatomy.main.blocks[-1]
    found = [_read(model, block, name) for name in ("attn.z", "mlp.in")]
    return [m for modules in found for m in modules] if _common(model, block) and found[1] else []


def before_end(path: str) -> bool:
    """Whether a place of the last block comes before its tokens are by themselves."""
    return Site.parse(path).parts[2:] == ("in",) or _inside(path) or Site.parse(path).parts[2:] == ("attn", "z")


def only_last(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """A module's arguments with the last token of the first; what is added to the stream is then the same for every token."""
    return (args[0][:, -1:].contiguous(), *args[1:]), kwargs


# ---- the attention of rows that join ---------------------------------------------------------------------------------


def attention(model: Model) -> tuple[tuple[str, str], ...]:
    """The attention module of every block and its output matrix; none where a block is not of the common make.

    Nor where the model's edits lie in attention: those are in what the base run brought together, and would be made again.
    """
    if any(Site.parse(p).parts[2:3] == ("attn",) for e in model.edits for p in model.places(e.site)):
        return ()
    found = []
    for block in model.anatomy.main.blocks:
        matrix = next(iter(_read(model, block, "attn.z")), "")
        module = matrix.rpartition(".")[0]
        if not _common(model, block) or not module or takes(model.hf.get_submodule(module), "residual"):
            return ()  # what adds to the stream by itself needs the stream of every row
        found.append((module, matrix))
    return tuple(found)


def mixed(plan: Plan) -> list[str]:
    """What the output matrix of every block reads, as raw sites."""
    return [f"@{matrix}.in" for _, matrix in plan.attention]


def after_attention(path: str) -> bool:
    """Whether a place of a block comes after its heads are brought together."""
    return not _inside(path) and Site.parse(path).parts[2:] != ("in",)


def fewer(rows: int, attending: int, heads: int) -> Before:
    """A module's arguments with the first rows only, whatever is given for each row or for each head of it."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[0] in (rows, rows * heads):
            return value[: attending * (value.shape[0] // rows)]
        return type(value)(map(cut, value)) if type(value) in (tuple, list) else value

    return lambda args, kwargs: (tuple(map(cut, args)), {k: cut(v) for k, v in kwargs.items()})


def joined(more: Tensor) -> Before:
    """A module's arguments with further rows of the first."""
    return lambda args, kwargs: ((torch.cat([args[0], more]), *args[1:]), kwargs)


def _inside(path: str) -> bool:
    parts = Site.parse(path).parts
    return parts[2:3] == ("attn",) and parts[3] in INSIDE


def _read(model: Model, block: Block, name: str) -> tuple[str, ...]:
    """The modules whose first argument a place of a block is."""
    place = model.anatomy.places.get(f"{block.path}.{name}")
    return place.modules if place is not None and place.kind == "input" and place.slot == 0 else ()


def _common(model: Model, block: Block) -> bool:
    """Whether a block adds what attention and a feed-forward layer make, once each, and is called once."""
    return (
        sorted(w.name for w in block.writes) == ["attn", "mlp"]
        and sum(b.module == block.module for b in model.anatomy.main.blocks) == 1
    )
