"""Specimens whose weights were written by hand, in which the effect of every place is known in closed form."""

from __future__ import annotations

import torch

import patchclamp as pc
from patchclamp.model.specimen import Specimen, SpecimenConfig


def blank(**options):
    """A specimen without norms, positions and biases, all of whose weights are zero."""
    plain = {"norm": "none", "positional": "none", "bias": False, "activation": "relu", "vocab": 4, "d_model": 4}
    module = Specimen(SpecimenConfig(**{**plain, **options})).eval()
    for weight in module.parameters():
        weight.data.zero_()
    return module


def put(weight, *entries):
    """(row, column, value) each."""
    for row, column, value in entries:
        weight.data[row, column] = value


def cancelling():
    """The logit of token 0 is x - relu(x), where x is 1 for token 0 and -2 for token 1.

    Block 0 writes x, block 1 takes relu(x) away again, block 2 does nothing. At x = 1 the two slopes cancel.
    """
    module = blank(layers=3, heads=0, d_mlp=[2, 1, 1])
    put(module.embed.weight, (0, 0, 1.0), (1, 0, -2.0))
    put(module.blocks[0].mlp.up.weight, (0, 0, 1.0), (1, 0, -1.0))
    put(module.blocks[0].mlp.down.weight, (1, 0, 1.0), (1, 1, -1.0))
    put(module.blocks[1].mlp.up.weight, (0, 1, 1.0))
    put(module.blocks[1].mlp.down.weight, (2, 0, -1.0))
    put(module.unembed.weight, (0, 1, 1.0), (0, 2, 1.0))
    return pc.load(module)


def saturated(sharp=20.0):
    """One head that looks where its query says, so sharply that its softmax has no slope.

    Tokens 0 and 1 have keys of their own and the values 1 and -1; token 2 asks for the key of 0, token 3 for that of 1. The
    logit of token 0 is the value that the last token finds.
    """
    module = blank(layers=1, heads=1, d_head=2, d_mlp=0, scale=1.0)
    module.embed.weight.data = torch.eye(4)
    attention = module.blocks[0].attn
    put(attention.q.weight, (0, 2, sharp), (1, 3, sharp))
    put(attention.k.weight, (0, 0, 1.0), (1, 1, 1.0))
    put(attention.v.weight, (0, 0, 1.0), (0, 1, -1.0))
    put(attention.o.weight, (2, 0, 1.0))
    put(module.unembed.weight, (0, 2, 1.0), (1, 2, -1.0), (0, 3, 0.0))
    return pc.load(module)


def mediated(both=0.0):
    """(model, effects): a treatment goes to the answer through block 0 and round it.

    The prompt is one token: 0 untreated, 1 treated. The embedding writes t = 0 or 1. Block 0, the mediator, writes 2 t; the
    answer is 3 t + 5 times what block 0 wrote + `both` times relu(t + mediator / 2 - 1), which it takes both for.
    """
    module = blank(layers=2, heads=0, d_mlp=[1, 1])
    put(module.embed.weight, (1, 0, 1.0), (0, 3, 1.0), (1, 3, 1.0))  # the last coordinate is always 1
    put(module.blocks[0].mlp.up.weight, (0, 0, 1.0))
    put(module.blocks[0].mlp.down.weight, (1, 0, 2.0))
    put(module.blocks[1].mlp.up.weight, (0, 0, 1.0), (0, 1, 0.5), (0, 3, -1.0))
    put(module.blocks[1].mlp.down.weight, (2, 0, both))
    put(module.unembed.weight, (0, 0, 3.0), (0, 1, 5.0), (0, 2, 1.0))
    return pc.load(module), {"total": 13.0 + both, "direct": 3.0, "indirect": 10.0, "interaction": both}


def population(effects):
    """A model in which patching `blocks.0.mlp.out` from token 0 to token t moves the logit of token 0 by `effects[t - 1]`."""
    module = blank(layers=1, heads=0, d_mlp=2, vocab=len(effects) + 1)
    module.embed.weight.data[1:, 0] = effects
    put(module.blocks[0].mlp.up.weight, (0, 0, 1.0), (1, 0, -1.0))
    put(module.blocks[0].mlp.down.weight, (1, 0, 1.0), (1, 1, -1.0))
    put(module.unembed.weight, (0, 1, 1.0))
    return pc.load(module)
