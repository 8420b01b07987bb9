"""Ordinary: the tokens that texts are made of, without the special ones; what random sequences are drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from patchclamp.core.errors import WrongPrompt

if TYPE_CHECKING:
    from patchclamp.model.model import Model


def ordinary(model: Model) -> Int[Tensor, " token"]:
    """The ids of all tokens that are not special.

    >>> from patchclamp.model.ordinary import ordinary
    >>> set(ordinary(model).tolist()) & set(model.tokenizer.all_special_ids)
    set()
    """
    tokenizer, known = model.tokenizer, size(model)
    special = set(getattr(tokenizer, "all_special_ids", ()) or ())
    return torch.tensor([t for t in range(known if tokenizer is None else min(known, len(tokenizer))) if t not in special])


def size(model: Model) -> int:
    """How many tokens a model knows: by its embedding, or, in modules of other people's making, by the first there is."""
    if "embed.W_E" in model.weights:
        return model.weights["embed.W_E"].shape[0]
    found: list[Any] = [m for m in model.hf.modules() if isinstance(m, nn.Embedding)]
    if not found:
        raise WrongPrompt(f"{model.name} does not say how many tokens it knows; give prompts of your own.")
    return int(found[0].num_embeddings)


def lead(model: Model) -> int | None:
    """The token that the tokenizer puts before every text, if it does."""
    start = getattr(model.tokenizer, "bos_token_id", None)
    return start if start is not None and list(model.tokenizer("a")["input_ids"])[:1] == [start] else None
