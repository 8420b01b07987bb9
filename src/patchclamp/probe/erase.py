"""Erasing a concept from a place: afterwards no linear probe can read it, and as little as possible has changed.

    mean_difference   project out the difference of the class means
    inlp              project out one probe's direction after another (Ravfogel et al. 2020, "null it out")
    leace             the affine map that leaves no covariance with the concept, and of all that do, moves rows least
                      (Belrose et al. 2023, "LEACE: perfect linear concept erasure in closed form")
    oracle            the same where the labels are known when erasing ("Oracle LEACE", the authors' later note): it moves
                      rows less still, and may write the label into what no linear probe sees
    scrub             LEACE through the layers, each fitted on what the erasers before it leave

A concept that has no covariance with the activations is unreadable for every linear probe, whatever its loss: the best one is a
constant. That is a theorem about the rows at hand; on other rows it holds as far as their moments agree, and about curved
probes it says nothing (an MLP may still read the concept).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from patchclamp.core.edit import Edit, Here
from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.gather import every, gather
from patchclamp.model.model import Model
from patchclamp.probe.fitted import CARD, TENSORS, VERSION, coded
from patchclamp.probe.linear import Fit, logistic
from patchclamp.probe.moments import Moments, concept, in_batches

SMALL = 1e-6
"""Directions whose standard deviation is below this share of the largest hold nothing but rounding, and are left alone."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """`eraser(x)` is x - (x - centre) right left: an affine map that removes a few directions.

    >>> from patchclamp.probe.erase import leace
    >>> chosen = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(300, 6, generator=chosen), [n % 2 for n in range(300)]
    >>> x[1::2, 0] += 3
    >>> left = leace(x, y)(x)
    >>> bool((left[::2].mean(0) - left[1::2].mean(0)).abs().max() < 1e-5)
    True
    """

    right: Float[Tensor, "d k"]
    """What is read."""
    left: Float[Tensor, "k d"]
    """What is taken away for it."""
    centre: Float[Tensor, " d"]
    """Where nothing changes: the mean of the rows it was fitted on."""
    method: str = ""

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """The rows without the concept, in their own precision and place."""
        if x.shape[-1] != len(self.centre):
            raise ShapeMismatch(
                f"the eraser was fitted on {len(self.centre)} numbers and is given {x.shape[-1]}; is it of this place?"
            )
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        right, left, centre = (part.to(wide) for part in (self.right, self.left, self.centre))
        return (wide - ((wide - centre) @ right) @ left).to(x.dtype)

    def edit(self, site: str | Site) -> Edit:
        """The eraser as an edit: the concept is gone from this place, or from every place of a pattern."""
        return Edit(site, _erase, "erase", {"eraser": self})

    def cost(self, x: Float[Tensor, "row d"]) -> float:
        """The mean squared distance by which rows are moved."""
        return float((self(x.double()) - x.double()).square().sum(1).mean())

    def save(self, folder: str | Path) -> Path:
        """Write to a folder: numbers as safetensors, the rest as a readable card."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {"right": self.right, "left": self.left, "centre": self.centre}
        save_file({k: v.contiguous().clone() for k, v in numbers.items()}, folder / TENSORS)
        (folder / CARD).write_text(
            json.dumps({"noun": "Eraser", "version": VERSION, "method": self.method}) + "\n", encoding="utf-8"
        )
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Eraser:
        """Read what `save` wrote."""
        folder = Path(folder)
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotSaved(f"{folder} holds no readable {CARD} ({error}); it was not written by Eraser.save.") from None
        if not isinstance(card, dict) or card.get("noun") != "Eraser":
            raise NotSaved(f"{folder} holds no Eraser.")
        return cls(**load_file(folder / TENSORS), method=card["method"])


def mean_difference(x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Eraser:
    """Project out what separates the class means: one direction for two classes, one less than there are classes otherwise.

    For linear probes the concept is gone, as after `leace`; the rows are moved further, by all they have along that direction.
    """
    moments = _moments(x, y)
    basis = _basis(moments.xz)
    return _eraser(basis, basis.T, moments.mean_x, "mean difference")


def leace(x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Eraser:
    """Least-squares concept erasure, in closed form: no covariance is left, and rows move least of all maps that leave none.

    Labels may be classes, numbers, or a (row, k) matrix of several concepts at once.
    """
    return leace_of(_moments(x, y))


def leace_of(moments: Moments) -> Eraser:
    """LEACE from moments, which a stream of any length gives (`Moments.of`)."""
    # with W the whitening matrix, I - W+ U U' W, where U spans the columns of W times the cross-covariance
    white, black = _whitening(moments.xx)
    u = _basis(white @ moments.xz)
    return _eraser(white @ u, u.T @ black, moments.mean_x, "leace")


def inlp(x: Float[Tensor, "row d"], y: Sequence | Tensor, rounds: int = 8, fit: Fit = logistic) -> Eraser:
    """Fit a probe, project its directions out, and fit again on what is left.

    It takes many rounds, each of which costs a dimension, to approach what `leace` reaches at once; kept because it is what
    earlier work reports.
    """
    x, labels = x.double(), y.tolist() if isinstance(y, Tensor) else y
    centre, basis = x.mean(0), x.new_zeros(x.shape[1], 0)
    for _ in progress(range(rounds), label="null spaces"):
        left = (x - centre) - ((x - centre) @ basis) @ basis.T
        found = torch.atleast_2d(fit(left.float(), labels).direction).double()
        rows = found - (found @ basis) @ basis.T
        basis = torch.cat([basis, _basis(rows.T)], 1)
        if basis.shape[1] >= x.shape[1]:
            break
    return _eraser(basis, basis.T, centre, "inlp")


@dataclass(frozen=True, eq=False)
class Oracle:
    """An eraser that is told each row's label: it takes away what the label explains, and nothing else."""

    slope: Float[Tensor, "k d"]
    mean: Float[Tensor, " k"]
    classes: tuple = ()
    """The labels in the order of the concept's columns."""

    def __call__(self, x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Float[Tensor, "row d"]:
        """The rows without the concept."""
        return (x.double() - self._said(y) @ self.slope).to(x.dtype)

    def edit(self, site: str | Site, labels: Sequence) -> Edit:
        """The eraser as an edit for these prompts, one label each, in their order."""
        shift = self._said(labels) @ self.slope

        def change(value: Tensor) -> Tensor:
            if len(value) % len(shift):
                raise ShapeMismatch(f"the oracle was given {len(shift)} labels, and the place holds {len(value)} prompts.")
            own = shift.repeat(len(value) // len(shift), 1).to(value)
            return value - own.reshape(len(value), *[1] * (value.ndim - 2), -1)

        return Edit(site, change)

    def cost(self, x: Float[Tensor, "row d"], y: Sequence | Tensor) -> float:
        """The mean squared distance by which rows are moved."""
        return float((self(x.double(), y) - x.double()).square().sum(1).mean())

    def _said(self, y: Sequence | Tensor) -> Tensor:
        if not self.classes:
            return concept(y).double() - self.mean
        labels = y.tolist() if isinstance(y, Tensor) else list(y)
        strange = [v for v in labels if v not in self.classes]
        if strange:
            raise WrongPrompt(f"the oracle knows the labels {', '.join(map(str, self.classes))}, not {strange[0]}.")
        hot = torch.zeros(len(labels), len(self.classes), dtype=torch.float64)
        hot[range(len(labels)), [self.classes.index(v) for v in labels]] = 1
        return hot - self.mean


def oracle(x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Oracle:
    """LEACE with the labels at hand: the residuals of the activations, given the concept, by least squares.

    What is taken away depends on the label, so a curved probe may read it better than before: for measuring, not for hiding.
    """
    moments = _moments(x, y)
    slope = torch.linalg.pinv(moments.zz, rtol=1e-9, hermitian=True) @ moments.xz.T  # the columns of classes add up to 1
    classes: tuple[Any, ...] = ()
    if not (isinstance(y, Tensor) and y.ndim == 2) and coded(y)[1]:
        own = y.tolist() if isinstance(y, Tensor) else list(y)
        classes = tuple(sorted(set(own), key=lambda v: (str(type(v)), v)))
    return Oracle(slope, moments.mean_z, classes)


def scrub(model: Model, sites: str | Site | Iterable[str | Site], prompts: Sequence, labels: Sequence,
          fit: Callable[[Tensor, Sequence], Eraser] = leace) -> tuple[Edit, ...]:  # fmt: skip
    """Concept scrubbing: erasers for places from the first to the last, each fitted with those before it in effect.

    An eraser holds where it was fitted: at the site's position, or at every token where it has none. Labels are one for each
    prompt, which is then that of all its tokens, or a list for each prompt, one for each of its tokens. On tokens unlike those
    of the prompts an eraser may do harm, so have prompts of every kind among them that the model is to go on reading.

    >>> from patchclamp.probe.erase import scrub
    >>> prompts = [f"{name} stayed at home because" for name in ("Mary", "Anna", "Emma", "John", "Adam", "Leo")]
    >>> edits = scrub(model, "blocks.*.out", prompts, ["she"] * 3 + ["he"] * 3)
    >>> [str(edit.site) for edit in edits]
    ['blocks.0.out', 'blocks.1.out', 'blocks.2.out', 'blocks.3.out']
    """
    if len(labels) != len(prompts):
        raise ShapeMismatch(f"{len(labels)} labels for {len(prompts)} prompts; give one for each.")
    written = [sites] if isinstance(sites, (str, Site)) else list(sites)
    asked = [Site.parse(p).at(**dict(Site.parse(s).index)) for s in written for p in model.places(s)]
    edits: tuple[Edit, ...] = ()
    for site in progress(asked, label="scrubbing"):
        x, y = _labelled(model.edit(*edits), site, prompts, labels)
        edits = (*edits, fit(x, y).edit(site))
    return edits


def _labelled(model: Model, site: Site, prompts: Sequence, labels: Sequence) -> tuple[Tensor, Sequence]:
    each = isinstance(labels[0], (list, tuple))
    if "pos" in dict(site.index):
        if each:
            raise WrongAxis(f"{site} is one token, and labels are for all of them; give one for each prompt.")
        return gather(model, site, prompts), labels
    rows = every(model, site, prompts)
    if not each:
        return rows.value, [labels[i] for i in rows.prompt.tolist()]
    for n, (count, own) in enumerate(zip(torch.bincount(rows.prompt).tolist(), labels)):
        if count != len(own):
            raise ShapeMismatch(f"prompt {n} has {count} tokens and {len(own)} labels; the first token may be <bos>.")
    return rows.value, [label for own in labels for label in own]


def _erase(value: Tensor, here: Here, eraser: Eraser) -> Tensor:
    return eraser(value)


def _moments(x: Tensor, y: Sequence | Tensor) -> Moments:
    z = concept(y)
    if len(z) != len(x):
        raise ShapeMismatch(f"{len(x)} rows and {len(z)} labels; give one for each.")
    return Moments.of(in_batches(x.detach().cpu(), z))


def _eraser(right: Tensor, left: Tensor, centre: Tensor, method: str) -> Eraser:
    return Eraser(right.float(), left.float(), centre.float(), method)


def _basis(columns: Float[Tensor, "d k"]) -> Float[Tensor, "d r"]:
    """An orthonormal basis of what the columns span; columns that are sums of others (a class less) add nothing."""
    u, s, _ = torch.linalg.svd(columns, full_matrices=False)
    return u[:, s > SMALL * s.max().clamp(min=1e-300)]


def _whitening(covariance: Float[Tensor, "d d"]) -> tuple[Tensor, Tensor]:
    """The symmetric root of the inverse, and of the covariance; both zero where the rows do not vary."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    alive = values > SMALL**2 * values.max()
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(alive, 1 / root.clamp(min=1e-300), torch.zeros_like(root))
    return (vectors * inverse) @ vectors.T, (vectors * torch.where(alive, root, torch.zeros_like(root))) @ vectors.T
