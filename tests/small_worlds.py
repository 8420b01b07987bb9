"""Two worlds small enough for a model to learn in seconds: one of bigrams, and one of skip-trigrams that cannot all be had."""

from __future__ import annotations

import torch
from torch.nn import functional as F

import patchclamp as pc
from patchclamp.model.specimen import Specimen, SpecimenConfig

KEEP, HOLD, IN, AT, MIND, BAY, FAST, PLACE = 4, 5, 6, 7, 8, 9, 10, 11
"""Tokens below are fillers, above them outs that no rule names."""
RULES = {(KEEP, IN): MIND, (KEEP, AT): BAY, (HOLD, IN): PLACE, (HOLD, AT): FAST}
WANTED = [(source, query, out) for (source, query), out in RULES.items()]


def learn(module, batch, steps, rate):
    """Adam, the rate falling to nothing."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    chance = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        x, y = batch(chance)
        loss = F.cross_entropy(module(x).logits[:, -1], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pc.load(module.eval())


def plain(**options):
    torch.manual_seed(0)
    plain = {"vocab": 16, "d_model": 16, "d_head": 8, "d_mlp": 0, "norm": "none", "positional": "none", "bias": False}
    return Specimen(SpecimenConfig(**{**plain, "initializer_range": 0.2, **options}))


def bigrams(steps=300):
    """(model without layers, how often each token follows each)."""
    chance = torch.Generator().manual_seed(1)
    table = torch.softmax(3 * torch.randn(16, 16, generator=chance), 1)

    def batch(chance):
        x = torch.randint(16, (256, 1), generator=chance)
        return x, torch.multinomial(table[x[:, 0]], 1, generator=chance)[:, 0]

    return learn(plain(layers=0), batch, steps, 3e-2), table


def sentences(n, chance):
    """Six tokens, keep or hold among the first five or neither, in or at the last; and what comes next."""
    x = torch.randint(0, 4, (n, 6), generator=chance)
    which, place = torch.randint(0, 3, (n,), generator=chance), torch.randint(0, 5, (n,), generator=chance)
    for i, source in enumerate((KEEP, HOLD)):
        x[which == i, place[which == i]] = source
    x[:, -1] = torch.where(torch.rand(n, generator=chance) < 0.5, IN, AT)
    y = torch.randint(8, 16, (n,), generator=chance)
    for (source, query), out in RULES.items():
        y[(x[:, -1] == query) & (x == source).any(1)] = out
    return x, y


def skip_trigrams(steps=600):
    """A model of one head, taught the rules."""
    return learn(plain(layers=1, heads=1), lambda chance: sentences(128, chance), steps, 1e-2)
