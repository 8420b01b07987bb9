"""Probe: a small function of an activation, fitted to say something about it, as a value that remembers what it was fitted on.

A probe standardises with the numbers of its own training rows, then applies one matrix (a linear probe) or two with a ReLU
between (an MLP). A high score says that the answer *can* be read from the place, not that the model reads it: that takes an
edit, and `direction` is what to edit along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from patchclamp.core.errors import NotSaved, ShapeMismatch, Unserved, WrongPrompt

CARD, TENSORS, VERSION = "card.json", "tensors.safetensors", 1
Matrix = tuple[Tensor, Tensor]
"""Weight (out, into) and bias (out,)."""


@dataclass(frozen=True, eq=False)
class Probe:
    """`probe(x)` gives one number a class (a logit, where the fit is a logistic one), or the predicted number.

    >>> from patchclamp.probe.linear import logistic
    >>> x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    >>> probe = logistic(x, ["yes" if row[2] > 0 else "no" for row in x])
    >>> probe.classes, probe.predict(torch.tensor([[0.0, 0, 3, 0, 0]])), int(probe.direction.abs().argmax())
    (('no', 'yes'), ['yes'], 2)
    """

    layers: tuple[Matrix, ...]
    """Weight and bias; a ReLU follows each but the last."""
    centre: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    classes: tuple[str, ...] = ()
    """Names of the classes, one a row of the last matrix; none where a number is predicted."""
    fitted: Mapping[str, Any] = field(default_factory=dict)
    """How and on what it was fitted: the method, its options, rows, and what the caller adds (model, site, groups)."""

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows out"]:
        """Scores of the classes, or the number, for any number of rows."""
        if x.shape[-1] != len(self.centre):
            raise ShapeMismatch(f"the probe reads {len(self.centre)} numbers and was given {x.shape[-1]}; is it of this place?")
        out = (x.to(self.centre) - self.centre) / self.scale
        for n, (weight, bias) in enumerate(self.layers):
            out = (out.relu() if n else out) @ weight.T + bias
        return out

    def predict(self, x: Float[Tensor, "row d"]) -> list:
        """The class of each row by name, or its number."""
        scores = self(x)
        return [self.classes[i] for i in scores.argmax(-1)] if self.classes else scores[:, 0].tolist()

    def log_probabilities(self, x: Float[Tensor, "row d"]) -> Float[Tensor, "row class"]:
        """What the scores say as probabilities. They mean something for logistic, LDA and MLP probes."""
        if not self.classes:
            raise Unserved("a probe of a number has no classes, so no probabilities; take its squared error.")
        return self(x).log_softmax(-1)

    @property
    def direction(self) -> Float[Tensor, "*out d"]:
        """The way in which the answer grows, in the place's own coordinates: (d,) for two classes or a number, else one a
        class.

        For two classes it leads from the first to the second (they are sorted by name).
        """
        (weight, _), *more = self.layers
        if more:
            raise Unserved("an MLP has another direction at every point; take the gradient of probe(x), or fit a linear probe.")
        rows = weight / self.scale
        return rows[1] - rows[0] if len(self.classes) == 2 else rows[0] if not self.classes else rows

    @property
    def used(self) -> Int[Tensor, " n"]:
        """The coordinates that a linear probe reads at all: a k-sparse probe's neurons."""
        return self.layers[0][0].abs().amax(0).nonzero()[:, 0]

    def save(self, folder: str | Path) -> Path:
        """Write to a folder: numbers as safetensors, the rest as a readable card."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {"centre": self.centre, "scale": self.scale}
        for n, (weight, bias) in enumerate(self.layers):
            numbers |= {f"{n}.weight": weight, f"{n}.bias": bias}
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in numbers.items()}, folder / TENSORS)
        card = {"noun": "Probe", "version": VERSION, "classes": list(self.classes), "fitted": dict(self.fitted)}
        (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Probe:
        """Read what `save` wrote."""
        folder = Path(folder)
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotSaved(f"{folder} holds no readable {CARD} ({error}); it was not written by Probe.save.") from None
        if not isinstance(card, dict) or card.get("noun") != "Probe":
            raise NotSaved(f"{folder} holds a {card.get('noun') if isinstance(card, dict) else 'list'}, not a Probe.")
        numbers = load_file(folder / TENSORS)
        count = sum(name.endswith(".weight") for name in numbers)
        layers = tuple((numbers[f"{n}.weight"], numbers[f"{n}.bias"]) for n in range(count))
        return cls(layers, numbers["centre"], numbers["scale"], tuple(card["classes"]), card["fitted"])


@dataclass(frozen=True, eq=False)
class Rows:
    """Activations and what is to be said of them, checked and made ready: what every fit begins with."""

    x: Float[Tensor, "row d"]
    """Standardised."""
    y: Tensor
    """Class numbers, or the numbers themselves (row,)."""
    classes: tuple[str, ...]
    centre: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]

    @classmethod
    def of(cls, x: Float[Tensor, "row d"], y: Sequence | Tensor) -> Rows:
        """Floating-point labels are numbers to be predicted; anything else is the name of a class."""
        x = x.detach().float().cpu()
        if x.ndim != 2 or len(x) != len(y):
            raise ShapeMismatch(f"a probe is fitted on (row, d) with a label a row; got {list(x.shape)} and {len(y)} labels.")
        if not x.isfinite().all():
            raise ShapeMismatch("some activations are infinite or not a number; nothing can be fitted to them.")
        centre = x.double().mean(0).float()
        spread = x.double().std(0, correction=0).float()
        scale = torch.where(spread > 1e-8 * x.abs().amax().clamp(min=1e-30), spread, torch.ones_like(spread))
        target, classes = coded(y)
        return cls((x - centre) / scale, target, classes, centre, scale)

    def probe(self, *layers: Matrix, **fitted: Any) -> Probe:
        """The probe with these matrices."""
        own = tuple((torch.as_tensor(w, dtype=torch.float32), torch.as_tensor(b, dtype=torch.float32)) for w, b in layers)
        return Probe(own, self.centre, self.scale, self.classes, {**fitted, "rows": len(self.x)})


def coded(y: Sequence | Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers and the names of the classes, sorted; or the numbers to predict, and no names.

    >>> coded(["b", "a", "b"])
    (tensor([1, 0, 1]), ('a', 'b'))
    >>> coded([0.5, 2.0])[1]
    ()
    """
    if isinstance(y, Tensor) or hasattr(y, "tolist"):
        y = y.tolist()  # type: ignore[union-attr]
    if all(isinstance(v, float) for v in y):
        return torch.tensor(y, dtype=torch.float32), ()
    kinds = sorted(set(y), key=lambda v: (str(type(v)), v))
    if len(kinds) < 2:
        raise WrongPrompt(f"every row has the label {kinds[0] if kinds else 'of nothing'}; a probe needs two kinds at least.")
    where = {v: n for n, v in enumerate(kinds)}
    return torch.tensor([where[v] for v in y]), tuple(str(v) for v in kinds)
