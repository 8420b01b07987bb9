"""Ablation of a direction: the model can no longer write it anywhere, in a run or for good (Arditi et al. 2024).

A direction is taken out of what the stream begins with and out of everything that attention and feed-forward layers add, so
that it never holds any of it, at any layer or token. That is linear in the matrices that write, so it can be baked in:
`model.edit(*without(model, joy.vector)).bake()` is an ordinary module with orthogonalised weights and the same logits.

`pc.project("blocks.*.out", d)` is nearly the same and cannot be baked; it leaves what is written between attention and the
feed-forward layer.

What it cannot do: a norm that stands in the stream (BERT) writes every direction again, and such a model is refused by name; so
is baking where a norm (gemma 2) or a mixture of experts stands between the last matrix and the stream.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.edit import Edit, project
from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.model.model import Model


def without(model: Model, directions: Float[Tensor, "*rows d_model"]) -> tuple[Edit, ...]:
    """The edits that keep one direction, or the span of several, out of the stream: one at every write to it.

    >>> from patchclamp.probe.ablation import without
    >>> joy = pc.contrast(model, "blocks.2.out", ["The film was lovely."] * 2, ["The film was dull."] * 2)
    >>> numb = model.edit(*without(model, joy.vector))
    >>> stream = numb.run("The film was lovely.", keep="blocks.*.mid")["blocks.*.mid"]
    >>> bool((stream @ joy).abs().max() < 1e-4)
    True
    >>> torch.allclose(numb.bake().run(clean).logits, numb.run(clean).logits, atol=1e-4)
    True
    """
    rows = torch.atleast_2d(torch.as_tensor(directions))
    if rows.shape[-1] != model.width:
        raise ShapeMismatch(
            f"the stream of {model.name} has {model.width} numbers; a direction of {rows.shape[-1]} is not in it."
        )
    return tuple(project(site, rows) for site in _writes(model))


def _writes(model: Model) -> list[str]:
    """The places where something is added to the stream that leads to the output."""
    anatomy = model.anatomy
    tower = anatomy.main
    found = [f"{tower.blocks[0].path}.in"]  # embeddings of tokens and of places, and any norm behind them
    for block in tower.blocks:
        bad = next((step for step in block.steps if step.kind in ("norm", "shift")), None)
        if bad is not None or not block.steps:
            what = "a norm stands in its stream" if bad is not None and bad.kind == "norm" else "its stream is not a plain sum"
            raise Unserved(
                f"{model.name} cannot be kept free of a direction: at {block.path} {what}, and that writes every direction. "
                'pc.project("blocks.*.out", direction) takes it out after each block.'
            )
        found += [f"{block.path}.{write.name}.out" for write in block.writes]
    lost = [site for site in found if site not in anatomy.places]
    if lost:
        raise Unserved(
            f"{model.name} cannot be kept free of a direction: it writes at {lost[0]}, which is not served "
            f"({anatomy.refused.get(lost[0], 'no such place')})."
        )
    return found
