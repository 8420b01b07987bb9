"""A published two-layer attention-only model that has induction heads, as a module of somebody else's making."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn


class Block(nn.Module):
    """One attention layer, with its checkpoint's names and shapes."""

    def __init__(self, weights):
        super().__init__()
        self.q, self.k, self.v = (linear(weights[f"W_{name}"].flatten(0, 1)) for name in "QKV")
        self.o, self.heads = linear(weights["W_O"]), weights["W_Q"].shape[0]

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        later = torch.ones(n, n, dtype=torch.bool).triu(1)
        z = torch.softmax(scores.masked_fill(later, float("-inf")), -1) @ v
        return x + self.o(z.transpose(1, 2).reshape(b, n, -1))


class AttentionOnly(nn.Module):
    """Two attention layers, no norm, nothing else."""

    def __init__(self, weights):
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(weights["embed.W_E"].T.contiguous())
        self.positions = nn.Embedding.from_pretrained(weights["pos_embed.W_pos"])
        self.blocks = nn.ModuleList([Block(of_block(weights, i)) for i in (0, 1)])
        self.unembed = linear(weights["unembed.W_U"].T)

    def forward(self, tokens):
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.unembed(x)


def of_block(weights, i):
    return {name.rpartition(".")[2]: value for name, value in weights.items() if name.startswith(f"attn_blocks.{i}.")}


def linear(matrix):
    made = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    made.weight.data = matrix.contiguous()
    return made


def module(shared):
    """The checkpoint, in eval mode."""
    return AttentionOnly(load_file(shared / "models" / "induction-2l-attn-only" / "weights.safetensors")).eval()


def repeated(seed: int = 1):
    """Twenty random tokens, the first ten of them again, and the token that comes next if the repeat goes on."""
    half = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[:20]
    return torch.cat([half, half[:10]])[None], int(half[10])
