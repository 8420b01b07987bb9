"""The same network before it learnt anything: the control of whatever is claimed of a trained one.

What an untrained copy shows as well, the architecture and the words give, not the training. Its weights are drawn as the
network's own code draws them at the start, which need not be how the trained one began; several seeds are several copies.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from patchclamp.model.body import Body
from patchclamp.model.model import Model


def untrained(model: Model, seed: int = 0) -> Model:
    """The same network with the weights it might have begun with; edits of the model are edits of the copy.

    A Hugging Face model is made anew from its config. In a module of other people's making, parts that know how to reset
    themselves do; other parameters are drawn anew with the mean and the spread that they have.

    >>> from patchclamp.model.untrained import untrained
    >>> other = untrained(model)
    >>> other.layers == model.layers, torch.equal(other.weights["embed.W_E"], model.weights["embed.W_E"])
    (True, False)
    """
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        module = _made_anew(model.hf)
    body = model.body
    return replace(model, body=Body(module, f"{model.name}, untrained", lambda: body.tokenizer, body.stack, body.inputs))


def _made_anew(module: nn.Module) -> nn.Module:
    kind: Any = type(module)
    if hasattr(kind, "_from_config"):
        dtype = next((p.dtype for p in module.parameters()), torch.float32)
        made = kind._from_config(copy.deepcopy(module.config), dtype=dtype)
        return made.to(next(module.parameters()).device).eval()
    made, done = copy.deepcopy(module), set()
    for part in made.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()  # type: ignore[operator]
            done |= {id(p) for p in part.parameters()}
    with torch.no_grad():
        for p in made.parameters():
            if id(p) not in done and p.is_floating_point():
                p.copy_(torch.randn_like(p) * p.std(correction=0) + p.mean())
    return made
