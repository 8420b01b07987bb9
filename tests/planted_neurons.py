"""A one-layer model with neurons set by hand: each fires at a token that comes after another, or at one of two such pairs."""

from __future__ import annotations

import torch

import patchclamp as pc
from patchclamp.model.specimen import Specimen, SpecimenConfig

VOCAB, LENGTH = 50, 16
BIGRAM, OTHER = (7, 9), (21, 22)
NEURONS = {"bigram": (BIGRAM,), "illusion": (BIGRAM, OTHER), "token": ((None, 9),)}
"""What each neuron fires at, in order."""


def model():
    """A head brings the token before, the neurons read both."""
    width, before = 2 * VOCAB + LENGTH, VOCAB + LENGTH
    config = SpecimenConfig(vocab=VOCAB, layers=1, heads=1, d_model=width, d_head=max(VOCAB, LENGTH), d_mlp=6, norm="none",
                            length=LENGTH, activation="relu", scale=1.0)  # fmt: skip
    hf = Specimen(config).eval()
    block = hf.blocks[0]
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
        hf.embed.weight[:, :VOCAB] = torch.eye(VOCAB)
        hf.positions.weight[:, VOCAB:before] = torch.eye(LENGTH)
        block.attn.q.weight[:LENGTH, VOCAB:before] = 30 * torch.eye(LENGTH)
        block.attn.k.weight[:LENGTH, VOCAB:before] = torch.eye(LENGTH).roll(1, 0)
        block.attn.k.weight[0, before - 1] = 0
        block.attn.v.weight[:VOCAB, :VOCAB] = torch.eye(VOCAB)
        block.attn.o.weight[before:, :VOCAB] = torch.eye(VOCAB)
        for neuron, pairs in enumerate(NEURONS.values()):
            for first, second in pairs:
                block.mlp.up.weight[neuron, second] = 2
                if first is not None:
                    block.mlp.up.weight[neuron, before + first] = 2
            block.mlp.up.bias[neuron] = -3 if pairs[0][0] is not None else -1
        block.mlp.up.weight[3:] = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
        hf.unembed.weight.normal_(generator=torch.Generator().manual_seed(1))
    return pc.load(hf)


def texts(n: int, pairs, seed: int = 0, never=(BIGRAM, OTHER)):
    """Random tokens; every fifth text has one of these pairs in it, and none has another of them."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    while len(made) < n:
        ids = torch.randint(VOCAB, (12,), generator=generator).tolist()
        if any(pair in zip(ids, ids[1:]) for pair in never):
            continue
        if pairs and len(made) % 5 == 0:
            at = int(torch.randint(1, 11, (1,), generator=generator))
            ids[at : at + 2] = pairs[(len(made) // 5) % len(pairs)]
            if sum(pair in zip(ids, ids[1:]) for pair in never) != 1:
                continue
        made.append(ids)
    return made
