"""Baking: an edited model's changes written into a copy of its weights, so that it is an ordinary checkpoint.

An activation edit can be baked only where it is the same as a change of weights for every input: a zeroed head is a zeroed
block of W_O. Everything else reads activations and is refused.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from patchclamp.core.edit import Edit, zero
from patchclamp.core.errors import Unserved
from patchclamp.core.site import Site
from patchclamp.model.body import Body
from patchclamp.model.weights import changed, of_weights

if TYPE_CHECKING:
    from patchclamp.model.model import Model


def bake(model: Model) -> Model:
    """See `Model.bake`."""
    edits = [e for edit in model.edits for e in ([edit] if of_weights(edit.site) else _as_weights(model, edit))]
    values = changed(model.hf, model.anatomy, edits)
    module = copy.deepcopy(model.hf)
    with torch.no_grad():
        for name, value in values.items():
            _write(module, name.removesuffix(" (embedding)"), value, embedding=name.endswith(" (embedding)"))
    body = model.body
    return type(model)(Body(module, f"{body.name}, baked", lambda: body.tokenizer, body.stack, body.inputs))


def _as_weights(model: Model, edit: Edit) -> list[Edit]:
    """The weight edits that an activation edit amounts to."""
    made = []
    for path in model.places(edit.site):
        site = Site.parse(path)
        index = dict(edit.site.index)
        block, write = path.rsplit(".", 2)[0], str(site.parts[-2])
        found = model.anatomy.block(path).write(write) if "blocks" in site.parts else None
        last = str(site.parts[-1])
        plain = edit.kind == "zero" and found is not None and not (set(index) - {"head", "neuron"})
        if plain and last == "z":
            made.append(zero(Site.parse(f"{block}.{write}.W_O").at(**index)))
        elif plain and last == "act":
            made.append(zero(Site.parse(f"{block}.{write}.W_out").at(**index)))
        elif plain and last == "out" and not index and found is not None and found.linear and not found.norms:
            letter = "out" if write.startswith("mlp") else "O"
            made.append(zero(f"{block}.{write}.W_{letter}"))
            if f"{block}.{write}.b_{letter}" in model.weights and _has_bias(model, f"{block}.{write}.b_{letter}"):
                made.append(zero(f"{block}.{write}.b_{letter}"))
        else:
            raise Unserved(
                f"{edit!r} cannot be baked: it depends on the activations, and no change of weights does the same. "
                "Zeroed heads, neurons and layers can be, and edits of weights."
            )
    return made


def _has_bias(model: Model, path: str) -> bool:
    return model.weights.parameter(model.weights.entries[path])[1] is not None


def _write(module: nn.Module, name: str, value: torch.Tensor, embedding: bool) -> None:
    path, _, attribute = name.rpartition(".")
    owner = module.get_submodule(path)
    old = getattr(owner, attribute)
    shared = [n for n, p in module.named_parameters(remove_duplicate=False) if p is old and n != name]
    if shared:  # a tied matrix is let go, so that only the edited use of it changes
        setattr(owner, attribute, nn.Parameter(value.clone(), requires_grad=old.requires_grad))
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
    else:
        old.copy_(value)
