"""The axis words, said once: in sites, in types, in grids and on plots they are the same.

`pos` counts tokens of the whole sequence without padding; `query` and `key` are positions too.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

POSITIONS = ("pos", "query", "key")
"""Axes that count tokens."""

MEANING = {
    "batch": "prompts",
    "pos": "tokens of the sequence",
    "query": "the token that looks",
    "key": "the token looked at",
    "head": "attention heads",
    "kv_head": "key-value heads (fewer than heads under grouped-query attention)",
    "d_head": "width of a head",
    "d_model": "width of the residual stream",
    "neuron": "neurons of a feed-forward layer",
    "expert": "experts of a mixture",
    "chosen": "the experts chosen for a token",
    "stream": "parallel residual streams",
    "channel": "channels of a state-space or convolution block",
    "vocab": "tokens of the vocabulary",
    "latent": "latents of a dictionary",
    "layer": "blocks",
    "component": "kinds of place",
    "prompt": "prompts",
}

Tokens = Int[Tensor, "batch pos"]
Mask = Bool[Tensor, "batch pos"]
Logits = Float[Tensor, "batch pos vocab"]
Stream = Float[Tensor, "batch pos d_model"]
Heads = Float[Tensor, "batch pos head d_head"]
Attention = Float[Tensor, "batch head query key"]
PerPrompt = Float[Tensor, " batch"]
Direction = Float[Tensor, " d_model"]
