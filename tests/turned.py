"""The town's model in a basis that turns from layer to layer and is turned back at the end: it says what the town says."""

from __future__ import annotations

import copy

import torch
from torch import nn

import patchclamp as pc


class Turn(nn.Module):
    """A block that turns the stream: what it adds is the turned stream minus the stream."""

    def __init__(self, turn: torch.Tensor) -> None:
        super().__init__()
        self.mlp = nn.Linear(*turn.shape, bias=False)
        self.mlp.weight.data = (turn - torch.eye(len(turn))).T.contiguous()

    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states + self.mlp(hidden_states)


@torch.no_grad()
def turned(town: pc.Model, seed: int = 0) -> pc.Model:
    """Block i of the town is block 2i here, in a basis of its own; the blocks between carry the stream from basis to basis.

    A root-mean-square norm does not care for the basis once its weights are folded into what reads it.
    """
    hf = copy.deepcopy(town.hf)
    generator = torch.Generator().manual_seed(seed)
    n = len(hf.model.layers)
    bases = [torch.eye(town.width), *(torch.linalg.qr(torch.randn(town.width, town.width, generator=generator)).Q
                                      for _ in range(n - 1)), torch.eye(town.width)]  # fmt: skip
    layers = []
    for i, block in enumerate(hf.model.layers):
        attn, mlp, basis = block.self_attn, block.mlp, bases[i]
        for norm, readers in ((block.input_layernorm, (attn.q_proj, attn.k_proj, attn.v_proj)),
                              (block.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj))):  # fmt: skip
            for matrix in readers:
                matrix.weight.data = (matrix.weight * norm.weight) @ basis
            norm.weight.data.fill_(1.0)
        for matrix in (attn.o_proj, mlp.down_proj):
            matrix.weight.data = basis.T @ matrix.weight
        layers += [block, Turn(basis.T @ bases[i + 1])]
    hf.model.layers = nn.ModuleList(layers)
    hf.config.num_hidden_layers = len(layers)
    return pc.load(hf, town.tokenizer)
