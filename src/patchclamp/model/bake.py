"""Baking: an edited model's changes written into a copy of its weights, so that it is an ordinary checkpoint.

An activation edit can be baked only where it is the same as a change of weights for every input: a zeroed head is a zeroed
block of W_O, a direction taken out of what a layer writes is taken out of its last matrix (Arditi et al. 2024, "weight
orthogonalization"). Everything else reads activations and is refused.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from patchclamp.core.edit import Edit, Here, project, zero
from patchclamp.core.errors import Unserved
from patchclamp.core.site import Site
from patchclamp.model.anatomy import Write
from patchclamp.model.body import Body
from patchclamp.model.example import example
from patchclamp.model.weights import changed, of_weights

if TYPE_CHECKING:
    from patchclamp.model.model import Model


def bake(model: Model) -> Model:
    """See `Model.bake`."""
    edits = [e for edit in model.edits for e in ([edit] if of_weights(edit.site) else _as_weights(model, edit))]
    values = changed(model.hf, model.anatomy, edits)
    begins = [edit for edit in model.edits if edit.kind == "project" and _begins(model, edit)]
    for edit in begins:
        values |= _tables(model, edit, values)
    module = copy.deepcopy(model.hf)
    with torch.no_grad():
        for name, value in values.items():
            _write(module, name.removesuffix(" (embedding)"), value, embedding=name.endswith(" (embedding)"))
    body = model.body
    made = type(model)(Body(module, f"{body.name}, baked", lambda: body.tokenizer, body.stack, body.inputs))
    if begins:
        _same(model, made, begins[0])
    return made


def _as_weights(model: Model, edit: Edit) -> list[Edit]:
    """The weight edits that an activation edit amounts to."""
    if edit.kind == "project" and _begins(model, edit):
        return [project("embed.W_E", edit.params["directions"])]
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
        elif edit.kind in ("zero", "project") and last == "out" and not index and found is not None and _straight(found):
            letter = "out" if write.startswith("mlp") else "O"
            names = [f"{block}.{write}.W_{letter}"]
            if f"{block}.{write}.b_{letter}" in model.weights and _has_bias(model, f"{block}.{write}.b_{letter}"):
                names.append(f"{block}.{write}.b_{letter}")
            made += [zero(n) if edit.kind == "zero" else project(n, edit.params["directions"]) for n in names]
        else:
            raise Unserved(
                f"{edit!r} cannot be baked: it depends on the activations, and no change of weights does the same. "
                "Zeroed heads, neurons and layers can be, directions taken out of what a layer writes, and edits of weights."
            )
    return made


def _straight(write: Write) -> bool:
    """Whether what a layer adds is its last matrix times something, up to a number."""
    return write.linear and not write.norms and not any(isinstance(f, Tensor) and f.numel() > 1 for f in write.factors)


def _begins(model: Model, edit: Edit) -> bool:
    """Whether an edit is of what the whole stream begins with."""
    if of_weights(edit.site) or edit.site.index:
        return False
    tower = model.anatomy.main
    return model.places(edit.site) in ((f"{tower.blocks[0].path}.in",), (f"{tower.prefix}embed.out",))


def _tables(model: Model, edit: Edit, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Embeddings of places and kinds, which are added to that of the token, without the edit's directions."""
    blocks = tuple(f"{block.module}." for block in model.anatomy.main.blocks)
    own = {entry.module for path, entry in model.weights.entries.items() if path in ("embed.W_E", "logits.W_U")}
    made = {}
    if edit.site.parts[-1] != "in":
        return made  # the token's embedding alone
    for path, module in model.hf.named_modules():
        if not isinstance(module, nn.Embedding) or path in own or path.startswith(blocks):
            continue
        name, table = f"{path}.weight", module.weight.detach()
        if table.shape[-1] == model.width:
            here = Here(Site.parse(f"@{path}.out"), ("vocab", "d_model"), {})
            made[name] = Edit("embed.W_E", edit.change, "project", edit.params).apply(values.get(name, table), here)
    return made


def _same(model: Model, made: Model, edit: Edit) -> None:
    """A model whose stream does not begin with a sum of embeddings comes out otherwise, and is refused."""
    inputs = {name: value for name, value in example(model.hf).items() if isinstance(value, Tensor)}
    begin = f"{model.anatomy.main.blocks[0].path}.in"
    one, other = (m.run(inputs, keep=begin, logits=False)[begin].float() for m in (model, made))
    if float((one - other).abs().max()) > 1e-2 * float(one.abs().max().clamp(min=1e-6)):
        raise Unserved(
            f"{edit!r} cannot be baked into {model.name}: its stream does not begin with a plain sum of embeddings (a norm or "
            "a matrix stands behind them). The edited model itself is right; save the direction beside the weights."
        )


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
