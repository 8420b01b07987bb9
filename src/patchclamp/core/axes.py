"""The axis words, said once: in sites, in types, in grids and on plots they are the same.

`pos` counts tokens of the whole sequence without padding; `query` and `key` are positions too. The shapes below are checked
while the tests run, and cost nothing otherwise.
"""

from __future__ import annotations

from jaxtyping import Float, Int, Shaped
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

Tokens = Int[Tensor, "batch token"]
"""Token ids. A model of sound or images has positions and no tokens."""
Logits = Float[Tensor, "batch pos vocab"]
Answers = Float[Tensor, "batch vocab"]
"""Logits where each prompt is answered."""
PerPrompt = Float[Tensor, " batch"]
Directions = Float[Tensor, "batch d_model"]
"""One direction of the stream for each prompt, or the stream at one token."""
Cells = Float[Tensor, "batch *cells"]
"""An answer prompt by prompt: the axes of a grid come after the prompts."""
Numbers = Float[Tensor, "*rows d_model"]
"""Any number of vectors of the stream's width."""
Part = Shaped[Tensor, "*part"]
"""What an edit is handed, and hands back in the same shape: a site's value, cut to its index."""
