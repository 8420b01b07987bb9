"""Edit: a site, or a pattern of sites, and a function of the value found there.

The builders say the usual changes by name; any function of the value is an edit too. With no `pos` an edit holds at every
token, each generated one included. An edit is a value: making one changes nothing, `model.edit(...)` returns a new model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchclamp.core.axes import Part
from patchclamp.core.dictionary import Dictionary
from patchclamp.core.errors import ShapeMismatch
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.core.window import Window, select


@dataclass(frozen=True)
class Here:
    """Where a change is taking place: the concrete site, its axes, and which tokens the value holds."""

    site: Site
    axes: tuple[str, ...]
    windows: dict[str, Window]
    late: bool = False
    """True while generating: the value may hold only the newest token."""
    rows: tuple[int, ...] | None = None
    """The prompts that the value's rows belong to, where they are not simply all of them in order."""


@dataclass(frozen=True, eq=False, init=False)
class Edit:
    """`Edit(site, change)`: at every place that `site` names, `change` maps the value to the new value.

    The value comes with the axes of the site, cut to its index: `"blocks.9.attn.z[head=6]"` gives (batch, pos, d_head).

    >>> flip = Edit("blocks.0.mlp.out", lambda value: -value)
    >>> str(flip.site)
    'blocks.0.mlp.out'
    """

    site: Site
    change: Callable[..., Tensor]
    kind: str = "function"
    params: Mapping[str, Any] = field(default_factory=dict)
    """What the change was built from; edits of a named kind can be saved."""

    def __init__(
        self, site: str | Site, change: Callable[..., Tensor], kind: str = "function", params: Mapping[str, Any] | None = None
    ) -> None:
        for name, value in (("site", Site.parse(site)), ("change", change), ("kind", kind), ("params", params or {})):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"{self.kind}({str(self.site)!r})"

    def apply(self, value: Part, here: Here) -> Part:
        """The value after this edit; the very same tensor where the edit touches no token of it."""
        chosen = select(self.site, here.axes, value, here.windows, here.late)
        if chosen is None:
            return value
        part = chosen.take(value)
        made = (
            self.change(part)
            if self.kind == "function"
            else self.change(part, here=replace(here, site=self.at(here)), **self.params)
        )
        if made is part:
            return value
        return chosen.put(value, self._fitted(made, part, here))

    def save(self, folder: str | Path) -> Path:
        """Write an edit of a named kind to a folder; one made from a function cannot be written down."""
        from patchclamp.core import store

        return store.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> Edit:
        """Read what `save` wrote."""
        from patchclamp.core import store

        return store.load(folder, cls)

    def at(self, here: Here) -> Site:
        """The concrete site with this edit's index."""
        return Site(here.site.parts, self.site.index, here.site.raw)

    def _fitted(self, made: Any, part: Part, here: Here) -> Part:
        if not isinstance(made, Tensor):
            raise ShapeMismatch(
                f"{self.kind} at {here.site} returned {type(made).__name__}; return the new value, a tensor {list(part.shape)}."
            )
        if made.shape != part.shape:
            raise ShapeMismatch(
                f"{self.kind} at {here.site} returned {list(made.shape)}; the place holds {list(part.shape)} "
                f"({' '.join(here.axes)} after the index)."
            )
        return made.to(part.dtype) if made.dtype != part.dtype else made


def zero(site: str | Site) -> Edit:
    """Zero ablation.

    >>> model.edit(pc.zero("blocks.*.attn.out")).run(clean, keep="blocks.2.attn.out")["blocks.2.attn.out"].unique()
    tensor([0.])
    """
    return Edit(Site.parse(site), _zero, "zero")


def mean(site: str | Site, over: Run) -> Edit:
    """Mean ablation: the value that the place has on average over the prompts and tokens of another run.

    >>> average = pc.mean("blocks.1.mlp.out", model.run([clean, corrupt], keep="blocks.1.mlp.out"))
    >>> held = model.edit(average).run(clean, keep="blocks.1.mlp.out")["blocks.1.mlp.out"]
    >>> torch.equal(held[0, 0], held[0, -1])
    True
    """
    return Edit(Site.parse(site), _mean, "mean", {"over": over})


def patch(site: str | Site, source: Run | Tensor) -> Edit:
    """The value that the place has in another run (which must have kept it), or a given tensor.

    >>> source = model.run(clean, keep="blocks.3.out")
    >>> model.edit(pc.patch("blocks.3.out[pos=-1]", source)).run(corrupt).next().top(1)[0][0]
    {'vocab': ' Mary'}
    """
    return Edit(Site.parse(site), _patch, "patch", {"source": source})


def clamp(site: str | Site, value: float | Tensor) -> Edit:
    """The place is held at a value: a number, or a tensor that fits its last axes.

    >>> held = model.edit(pc.clamp("blocks.1.mlp.act[neuron=7]", 2.0))
    >>> held.run(clean, keep="blocks.1.mlp.act")["blocks.1.mlp.act[neuron=7]"].unique()
    tensor([2.])
    """
    return Edit(Site.parse(site), _clamp, "clamp", {"to": value})


def steer(site: str | Site, vector: Tensor) -> Edit:
    """A vector is added (activation addition). Its length is the dose: `steer(site, 6 * joy)`.

    >>> towards = model.weights["logits.W_U"][:, model.token(" John")]
    >>> model.edit(pc.steer("blocks.3.out", 100 * towards)).run(clean).next().top(1)[0][0]
    {'vocab': ' John'}
    """
    return Edit(Site.parse(site), _steer, "steer", {"vector": vector})


def project(site: str | Site, directions: Tensor) -> Edit:
    """Directional ablation: what the place holds along one or several directions is removed.

    `directions` is (d,) or (n, d); they need not be orthogonal or of unit length.

    >>> mary = model.weights["embed.W_E"][model.token(" Mary")]
    >>> left = model.edit(pc.project("blocks.*.out", mary)).run(clean, keep="blocks.2.out")["blocks.2.out"]
    >>> bool((left @ mary).abs().max() < 1e-3)
    True
    """
    return Edit(Site.parse(site), _project, "project", {"directions": directions})


def freeze(site: str | Site, run: Run | None = None) -> Edit:
    """The place is a constant: no gradient passes, and with `run` it is held at the value it had there.

    >>> source = model.run(clean, keep="blocks.1.attn.pattern")
    >>> looked = model.edit(pc.freeze("blocks.1.attn.pattern", source)).run(corrupt, keep="blocks.1.attn.pattern")
    >>> torch.equal(looked["blocks.1.attn.pattern"], source["blocks.1.attn.pattern"])
    True
    """
    return Edit(Site.parse(site), _freeze, "freeze", {"run": run})


def splice(site: str | Site, dictionary: Dictionary, *, reads: str | Site | None = None, error: bool = True) -> Edit:
    """A dictionary is put in at a place, and opens `<site>.latents` and `<site>.error` as places of their own.

    With `error`, what the dictionary fails to explain is added back, so the splice itself changes nothing: only edits of
    the latents do. Without it, the reconstruction takes the place's value. `reads` is the place a transcoder encodes
    from, where it is not the one it writes to. Gradients pass through the place unchanged and reach the latents through
    the decoder (Marks et al. 2024, pass-through gradients).

    >>> class Halves:
    ...     def encode(self, x):
    ...         return x / 2
    ...     def decode(self, latents):
    ...         return latents * 2
    >>> opened = model.edit(pc.splice("blocks.1.out", Halves()))
    >>> opened.run(clean, keep="blocks.1.out.latents")["blocks.1.out.latents"].shape
    torch.Size([1, 15, 128])
    """
    params = {"dictionary": dictionary, "reads": None if reads is None else Site.parse(reads), "error": error}
    return Edit(Site.parse(site), _splice, "splice", params)


def _zero(value: Part, here: Here) -> Part:
    return torch.zeros_like(value)


def _mean(value: Part, here: Here, over: Run) -> Part:
    stored, axes, windows = over.stored(here.site.bare())
    if any(a in axes for a in ("query", "key")):
        raise ShapeMismatch(f"mean at {here.site}: attention patterns have no mean over tokens; use zero or patch.")
    keep = [torch.stack([stored[row, column] for column in windows["pos"].tokens(row)]) for row in range(stored.shape[0])]
    average = torch.cat(keep).mean(0)
    inner = Site((), tuple((a, v) for a, v in here.site.index if a not in ("batch", "pos")))
    chosen = select(inner, axes[2:], average, {})
    assert chosen is not None
    return chosen.take(average).to(value).expand_as(value)


def _patch(value: Part, here: Here, source: Run | Tensor) -> Part:
    if isinstance(source, Tensor):
        return _broadcast(source, value, here, "patch")
    stored, axes, windows = source.stored(here.site.bare())
    if here.rows is not None and stored.shape[0] > 1:
        stored = stored[list(here.rows)]
    elif 1 < stored.shape[0] < value.shape[0] and value.shape[0] % stored.shape[0] == 0 and axes[:1] == ("batch",):
        stored = stored.repeat(
            value.shape[0] // stored.shape[0], *[1] * (stored.ndim - 1)
        )  # a sweep: all prompts, cell by cell
    covered = dict(windows)
    for dim, axis in enumerate(axes):
        own = here.windows.get(axis)
        if own is None or (not own.start and stored.shape[dim] == own.length):
            continue
        if own.start + own.length <= stored.shape[dim]:  # only the later tokens are being computed
            stored, covered[axis] = stored.narrow(dim, own.start, own.length), own
        elif here.late:
            return _overlap(value, stored, axes, here)
    chosen = select(here.site, axes, stored, covered, here.late)
    return value if chosen is None else _broadcast(chosen.take(stored), value, here, "patch")


def _overlap(value: Part, stored: Tensor, axes: tuple[str, ...], here: Here) -> Part:
    """While generating: the tokens that the source run has are patched, later ones are left as they are."""
    if axes[1] != "pos" or "pos" in dict(here.site.index):
        raise ShapeMismatch(f"patch at {here.site} from a run: while generating, patch whole places with a pos axis.")
    start = here.windows["pos"].start
    count = min(stored.shape[1] - start, value.shape[1])
    if count <= 0:
        return value
    chosen = select(here.site, axes, stored, {})
    assert chosen is not None
    made = value.clone()
    made[:, :count] = chosen.take(stored)[:, start : start + count].to(value)
    return made


def _clamp(value: Part, here: Here, to: float | Tensor) -> Part:
    if isinstance(to, Tensor):
        return _broadcast(to, value, here, "clamp")
    return torch.full_like(value, to)


def _steer(value: Part, here: Here, vector: Tensor) -> Part:
    return value + _broadcast(vector, value, here, "steer")


def _project(value: Part, here: Here, directions: Tensor) -> Part:
    rows = torch.atleast_2d(directions).to(value.device, torch.float32)
    if rows.shape[-1] != value.shape[-1]:
        raise ShapeMismatch(
            f"project at {here.site} takes directions of {value.shape[-1]} numbers; got {list(directions.shape)}. "
            "Were they computed on another model?"
        )
    basis = torch.linalg.qr(rows.T).Q
    wide = value.to(basis.dtype)
    return (wide - (wide @ basis) @ basis.T).to(value.dtype)


def _freeze(value: Part, here: Here, run: Run | None) -> Part:
    if run is None:
        return value.detach()
    return _patch(value, here, run).detach()


def _splice(value: Tensor, here: Here, **params: Any) -> Tensor:
    raise AssertionError("the tap carries out a splice, since its latents are places of their own")


def _broadcast(given: Tensor, value: Part, here: Here, what: str) -> Part:
    try:
        return given.to(value.device, value.dtype).expand(value.shape)
    except RuntimeError:
        raise ShapeMismatch(
            f"{what} at {here.site} takes a tensor that fits {list(value.shape)}; got {list(given.shape)}. "
            "Was it computed on another model, or on a prompt of another length?"
        ) from None
