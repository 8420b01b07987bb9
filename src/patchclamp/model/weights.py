"""Weights under canonical names, as views of the model's own parameters.

    embed.W_E                     (vocab, d_model)
    blocks.i.attn.W_Q  W_K  W_V   (head, d_model, d_head)        q = x @ W_Q + b_Q
    blocks.i.attn.W_O             (head, d_head, d_model)
    blocks.i.mlp.W_in  W_gate     (d_model, neuron)
    blocks.i.mlp.W_out            (neuron, d_model)
    logits.W_U                    (d_model, vocab)

and `b_Q b_K b_V` (head, d_head), `b_O b_out b_U`, `b_in b_gate`. Fused, transposed and interleaved layouts come out in this
form; `W_K` and `W_V` have one matrix a key-value head. Nothing is copied that can be a view, and nothing here changes the
model: `folded()` gives new values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchclamp.core.edit import Edit, Here
from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.core.site import Site
from patchclamp.core.window import select
from patchclamp.model.anatomy import Anatomy, Matrix, Write
from patchclamp.model.norms import Norm, read_norm

_SHAPES: dict[str, tuple[str, ...]] = {
    "W_E": ("vocab", "d_model"), "W_U": ("d_model", "vocab"), "b_U": ("vocab",),
    "W_Q": ("head", "d_model", "d_head"), "W_K": ("kv_head", "d_model", "d_head"), "W_V": ("kv_head", "d_model", "d_head"),
    "b_Q": ("head", "d_head"), "b_K": ("kv_head", "d_head"), "b_V": ("kv_head", "d_head"),
    "W_O": ("head", "d_head", "d_model"), "b_O": ("d_model",),
    "W_in": ("d_model", "neuron"), "b_in": ("neuron",), "W_gate": ("d_model", "neuron"), "b_gate": ("neuron",),
    "W_out": ("neuron", "d_model"), "b_out": ("d_model",),
}  # fmt: skip
_LETTER = {"q": "Q", "k": "K", "v": "V", "o": "O", "in": "in", "gate": "gate", "out": "out"}


@dataclass(frozen=True, eq=False)
class Entry:
    """Where a canonical weight lies: a module's matrix or bias, and which of its features."""

    module: str
    matrix: Matrix
    kind: str
    """`W` or `b`"""
    letter: str
    heads: int = 0
    norm: str = ""
    """The norm that comes before it, if one does."""

    @property
    def axes(self) -> tuple[str, ...]:
        return _SHAPES[f"{self.kind}_{self.letter}"]


@dataclass(frozen=True, eq=False)
class Weights(Mapping[str, Tensor]):
    """`weights["blocks.3.attn.W_Q[head=2]"]`; a pattern is stacked, layers first."""

    module: nn.Module
    anatomy: Anatomy
    changed: Mapping[str, Tensor]
    """Values of whole parameters that stand in for the module's own (an edited model's)."""
    fold: bool = False

    def __getitem__(self, site: str | Site) -> Tensor:
        site = Site.parse(site)
        values = [self._value(path, site) for path in self.places(site)]
        if not site._path_stars():
            return values[0]
        if len({v.shape for v in values}) > 1:
            raise ShapeMismatch(f"{site} names weights of different shape; take them one by one.")
        return torch.stack(values)

    def __repr__(self) -> str:
        return f"Weights({len(self.entries)} of {type(self.module).__name__}{', norms folded' if self.fold else ''})"

    def __contains__(self, site: object) -> bool:
        return str(site) in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def places(self, site: str | Site) -> list[str]:
        """The concrete weights that a site or pattern names."""
        return Site.parse(site).expand(list(self.entries), "the weights")

    def folded(self) -> Weights:
        """New values in which the norm before each matrix is folded into it: they act on the stream centred and divided."""
        return Weights(self.module, self.anatomy, self.changed, fold=True)

    def norm(self, path: str) -> Norm:
        """The norm at a module's path, with its effective weight (1 + w where a family stores w) and bias."""
        found = read_norm(self.module.get_submodule(path), self.anatomy.main.width)
        if found is None:
            raise Unserved(f"{path} does not behave like a LayerNorm or an RMSNorm.")
        return found

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every canonical weight there is."""
        found: dict[str, Entry] = {}
        embedding, head = _ends(self.module)
        if embedding:
            found["embed.W_E"] = Entry(embedding, Matrix(embedding), "W", "E")
        for tower in self.anatomy.towers:
            for block in tower.blocks:
                for write in block.writes:
                    found.update(_of_write(f"{block.path}.{write.name}", write))
        if head:
            norm = self.anatomy.main.norm if self.anatomy.towers else ""
            found["logits.W_U"] = Entry(head, Matrix(head), "W", "U", norm=norm)
            if getattr(self.module.get_submodule(head), "bias", None) is not None:
                found["logits.b_U"] = Entry(head, Matrix(head), "b", "U", norm=norm)
        return found

    def parameter(self, entry: Entry) -> tuple[str, Tensor | None]:
        """The name and value of the parameter an entry is a view of; None for a bias that a module does not have."""
        module = self.module.get_submodule(entry.module)
        name = f"{entry.module}.{'weight' if entry.kind == 'W' else 'bias'}"
        value = getattr(module, "weight" if entry.kind == "W" else "bias", None)
        if value is not None and (not value.is_floating_point() or (entry.kind == "W" and value.ndim != 2)):
            raise Unserved(
                f"{name} is packed ({value.dtype}, {list(value.shape)}); load the model unquantised to read weights."
            )
        return name, self.changed.get(_key(name, entry), value)

    def _value(self, path: str, site: Site) -> Tensor:
        entry = self.entries[path]
        value = self.view(entry)
        if self.fold and entry.norm and entry.letter in ("Q", "K", "V", "in", "gate", "U"):
            value = self._folded(path, entry, value)
        chosen = select(Site.parse(path).at(**dict(site.index)), entry.axes, value, {})
        assert chosen is not None
        return chosen.take(value).detach()

    def view(self, entry: Entry) -> Tensor:
        """The canonical form of a parameter."""
        _, value = self.parameter(entry)
        if entry.kind == "b":
            return self._bias(entry, value)
        assert value is not None
        if entry.letter == "E":
            return value
        matrix = value if _transposed(self.module.get_submodule(entry.module)) else value.T
        return self._matrix(entry, matrix)

    def _matrix(self, entry: Entry, matrix: Float[Tensor, "into out"]) -> Tensor:
        """(in, out) to the canonical shape."""
        features = entry.matrix.features
        if entry.letter in "QKV":
            assert features is not None
            return _taken(matrix, features).permute(1, 0, 2)
        if entry.letter == "O":
            return matrix.unflatten(0, (entry.heads, -1))
        return matrix if features is None or entry.letter == "out" else _taken(matrix, features)

    def _bias(self, entry: Entry, value: Tensor | None) -> Tensor:
        features = entry.matrix.features
        if value is None:
            weight = self.view(Entry(entry.module, entry.matrix, "W", entry.letter, entry.heads))
            shape = weight.shape[:1] + weight.shape[2:] if entry.letter in ("Q", "K", "V") else weight.shape[-1:]
            return torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        if features is None or entry.letter in ("O", "out", "U"):
            return value
        return _taken(value[None], features)[0]

    def _folded(self, path: str, entry: Entry, value: Tensor) -> Tensor:
        norm = self.norm(entry.norm)
        if entry.kind == "W":
            return value * norm.weight[:, None].to(value.dtype)
        weight = self.view(Entry(entry.module, entry.matrix, "W", entry.letter, entry.heads))
        return value + torch.einsum("d,...dn->...n", norm.bias.to(weight.dtype), weight)


def _of_write(path: str, write: Write) -> Iterator[tuple[str, Entry]]:
    for name, matrix in write.matrices.items():
        heads = write.heads if name in ("q", "o") else write.kv_heads
        norm = write.norm if name in ("q", "k", "v", "in", "gate") else ""
        for kind in "Wb":
            yield f"{path}.{kind}_{_LETTER[name]}", Entry(matrix.module, matrix, kind, _LETTER[name], heads, norm)


def _ends(module: nn.Module) -> tuple[str, str]:
    """The paths of the token embedding and the unembedding, as the model names them itself."""
    paths = {id(m): p for p, m in module.named_modules()}
    found = []
    for name in ("get_input_embeddings", "get_output_embeddings"):
        try:
            part = getattr(module, name)()
        except (AttributeError, NotImplementedError):
            part = None
        found.append(paths.get(id(part), "") if part is not None else "")
    return found[0], found[1]


def _transposed(module: nn.Module) -> bool:
    """GPT-2's Conv1D keeps (in, out); everything else keeps (out, in)."""
    return type(module).__name__ == "Conv1D"


def _taken(matrix: Float[Tensor, "into out"], features: Int[Tensor, "*shape"]) -> Float[Tensor, "into *shape"]:
    """Some columns in the shape of their indices; a view where they follow one another."""
    flat = features.flatten()
    first, n = int(flat[0]), flat.numel()
    if torch.equal(flat, torch.arange(first, first + n)):
        return matrix[:, first : first + n].unflatten(1, features.shape)
    return matrix[:, flat.to(matrix.device)].unflatten(1, features.shape)


def _key(name: str, entry: Entry) -> str:
    """Edited values are kept apart for a matrix that is tied: as an embedding and as an unembedding."""
    return f"{name} (embedding)" if entry.letter == "E" else name


def of_weights(site: Site) -> bool:
    """Whether a site names a weight rather than an activation: `blocks.3.mlp.W_out`."""
    last = site.parts[-1]
    return isinstance(last, str) and last in _SHAPES and not site.raw


def changed(module: nn.Module, anatomy: Anatomy, edits: Sequence[Edit]) -> dict[str, Tensor]:
    """The parameters that edits of weights change, by name: their new values, edits after edits."""
    made: dict[str, Tensor] = {}
    for edit in edits:
        weights = Weights(module, anatomy, made)
        for path in weights.places(edit.site.bare()):
            entry = weights.entries[path]
            name, value = weights.parameter(entry)
            if value is None:
                raise Unserved(f"{path} cannot be edited: {entry.module} has no bias.")
            here = Here(Site.parse(path), entry.axes, {})
            copy = value.detach().clone()
            standing = Weights(module, anatomy, {**made, _key(name, entry): copy})
            view = standing.view(entry)
            new = edit.apply(view, here)
            if new is not view:
                _written(standing, entry, copy, new)
            made[_key(name, entry)] = copy
    return made


def overlay(module: nn.Module, values: Mapping[str, Tensor]) -> dict[tuple[int, bool], Tensor]:
    """Edited values by the parameter they stand for, and whether it is the one read as an embedding."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    made = {}
    for name, value in values.items():
        embeds = name.endswith(" (embedding)")
        made[id(parameters[name.removesuffix(" (embedding)")]), embeds] = value
    return made


def _written(weights: Weights, entry: Entry, parameter: Tensor, new: Tensor) -> None:
    """Write the canonical form back into a parameter, a copy of the model's."""
    features = entry.matrix.features
    if entry.kind == "b":
        if features is None or entry.letter in ("O", "out", "U"):
            parameter.copy_(new)
        else:
            parameter[features.flatten()] = new.reshape(-1)
        return
    if entry.letter == "E":
        parameter.copy_(new)
        return
    matrix = parameter if _transposed(weights.module.get_submodule(entry.module)) else parameter.T
    if entry.letter in "QKV":
        assert features is not None
        matrix[:, features.flatten()] = new.permute(1, 0, 2).flatten(1)
    elif entry.letter == "O":
        matrix.copy_(new.flatten(0, 1))
    elif features is None or entry.letter == "out":
        matrix.copy_(new)
    else:
        matrix[:, features] = new
