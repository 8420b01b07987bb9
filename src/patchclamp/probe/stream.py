"""Probes on more activations than memory holds: read from disk a few thousand rows at a time.

A folder of activations is shards, safetensors (`x` and `y`) or pairs of `.npy` files; a row is read when its turn comes and let
go afterwards. What is fitted is what the fits in memory fit: ridge, LDA and LEACE need sums only, which one reading gives
exactly; logistic regression needs the gradient of its whole loss some dozens of times, a reading each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongPrompt
from patchclamp.core.progress import progress
from patchclamp.probe.fitted import Probe
from patchclamp.probe.moments import Moments

CARD = "card.json"
ROWS = 4096
"""Rows that are read at a time: 12 MB at a width of 768."""


@dataclass(frozen=True)
class Shards:
    """Activations and labels on disk, in the order of the files.

    >>> import tempfile
    >>> from patchclamp.probe.stream import Shards, logistic
    >>> x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    >>> labels = ["up" if row[3] > 0 else "down" for row in x]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stored = Shards.write(folder, [(x[:300], labels[:300]), (x[300:], labels[300:])])
    ...     probe = logistic(stored)
    >>> len(stored), int(probe.direction.abs().argmax())
    (500, 3)
    """

    paths: tuple[Path, ...]
    """Safetensors files with `x` and `y`, or `.npy` files of activations."""
    sizes: tuple[int, ...]
    width: int
    classes: tuple[str, ...]
    labels: tuple[Path, ...] = ()
    """For `.npy` files: those of the class numbers (or numbers), one each."""

    def __len__(self) -> int:
        return sum(self.sizes)

    @classmethod
    def write(cls, folder: str | Path, batches: Iterable[tuple[Tensor, Sequence | Tensor]],
              classes: Sequence[str] = ()) -> Shards:  # fmt: skip
        """Write batches of (activations, labels), a shard each. Words are classes, in the order in which they are met.

        Whole numbers are the numbers of `classes`, where these are given; floating-point numbers are to be predicted.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("*.safetensors")):
            raise NotSaved(f"{folder} holds shards already, which would be read with the new ones; name another folder.")
        known, fixed = list(classes), bool(classes)
        for n, (x, labels) in enumerate(batches):
            own = labels.tolist() if isinstance(labels, Tensor) else list(labels)
            if len(own) != len(x):
                raise ShapeMismatch(f"batch {n} has {len(x)} rows and {len(own)} labels.")
            if all(isinstance(v, float) for v in own) or (fixed and all(isinstance(v, int) for v in own)):
                y = torch.tensor(own)
            else:
                known += [str(v) for v in dict.fromkeys(own) if str(v) not in known]
                y = torch.tensor([known.index(str(v)) for v in own])
            save_file({"x": x.contiguous(), "y": y}, folder / f"{n:05d}.safetensors")
        (folder / CARD).write_text(json.dumps({"noun": "Shards", "classes": known}) + "\n", encoding="utf-8")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | Path) -> Shards:
        """What `write` wrote."""
        folder = Path(folder)
        paths = tuple(sorted(folder.glob("*.safetensors")))
        if not paths or not (folder / CARD).is_file():
            raise NotSaved(f"{folder} holds no shards; write them with Shards.write, or name .npy files with Shards.of_arrays.")
        classes = json.loads((folder / CARD).read_text(encoding="utf-8"))["classes"]
        sizes, widths = [], set()
        for path in paths:
            with safe_open(path, "pt") as file:
                rows, width = file.get_slice("x").get_shape()
            sizes.append(rows)
            widths.add(width)
        if len(widths) > 1:
            raise ShapeMismatch(
                f"{folder} holds activations of {' and '.join(map(str, sorted(widths)))} numbers; one place a folder."
            )
        return cls(paths, tuple(sizes), widths.pop(), tuple(classes))

    @classmethod
    def of_arrays(cls, x: Sequence[str | Path], y: Sequence[str | Path], classes: Sequence[str] = ()) -> Shards:
        """`.npy` files of activations (row, d), and of class numbers (row,), or of numbers where there are no classes."""
        shapes = [np.load(path, mmap_mode="r").shape for path in x]
        if len(x) != len(y) or len({shape[1:] for shape in shapes}) != 1 or len(shapes[0]) != 2:
            raise ShapeMismatch(
                f"{len(x)} files of activations {shapes} and {len(y)} of labels; give (row, d) files and one of each."
            )
        return cls(tuple(map(Path, x)), tuple(s[0] for s in shapes), shapes[0][1], tuple(classes), tuple(map(Path, y)))

    def batches(self, rows: int = ROWS) -> Iterator[tuple[Float[Tensor, "row d"], Tensor]]:
        """Activations and labels, in single precision, a few rows at a time."""
        for n, (path, size) in enumerate(zip(self.paths, self.sizes)):
            for start in range(0, size, rows):
                yield self._read(n, path, start, min(start + rows, size))

    def _read(self, n: int, path: Path, start: int, end: int) -> tuple[Tensor, Tensor]:
        """A file is opened for each batch: pages that stay mapped would count as memory in use."""
        if not self.labels:
            with safe_open(path, "pt") as file:
                return file.get_slice("x")[start:end].float(), file.get_slice("y")[start:end].clone()
        x, y = (np.array(np.load(p, mmap_mode="r")[start:end]) for p in (path, self.labels[n]))
        return torch.from_numpy(x).float(), torch.from_numpy(y)


def moments(stored: Shards) -> Moments:
    """One reading: what `erase.leace_of` and `ridge` are made from."""
    return Moments.of((x, _columns(y, stored.classes)) for x, y in _watched(stored, "moments"))


def ridge(stored: Shards, penalty: float = 1.0) -> Probe:
    """`linear.ridge` in two readings: one for the sums, one for the sizes of the classes. The same answer, to rounding."""
    counts = _counts(stored)
    weights = len(stored) / (len(counts) * counts) if stored.classes else None
    centre, scale = _standard(stored)
    d, k = stored.width, max(len(stored.classes), 1)
    square, cross = torch.zeros(d + 1, d + 1, dtype=torch.float64), torch.zeros(d + 1, k, dtype=torch.float64)
    for x, y in _watched(stored, "ridge"):
        inner = torch.cat([((x - centre) / scale).double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)
        heavy = inner if weights is None else inner * weights[y][:, None]
        square.addmm_(heavy.T, inner)
        cross.addmm_(heavy.T, _columns(y, stored.classes).double())
    square[range(d), range(d)] += penalty
    found = torch.linalg.lstsq(square, cross, driver="gelsd").solution.T.float()
    return _probe(stored, (found[:, :-1], found[:, -1]), centre, scale, method="ridge", penalty=penalty)


def logistic(stored: Shards, penalty: float = 1.0, most: int = 200, tolerance: float = 1e-5) -> Probe:
    """`linear.logistic` with a reading for every step of L-BFGS: the same loss, the same class weights, the same penalty.

    Activations vary a thousand times more in some directions than in others, which costs L-BFGS hundreds of steps. One more
    reading gives their covariance, and steps are taken in coordinates in which the loss is about equally curved everywhere:
    some dozens do.
    """
    shared = 2 * penalty if len(stored.classes) == 2 else penalty  # one row of weights costs twice what two halves of it do
    from scipy.optimize import minimize

    if not stored.classes:
        raise WrongPrompt("logistic tells classes apart, and these labels are numbers; take stream.ridge.")
    counts = _counts(stored)
    if not bool((counts > 0).all()):
        raise WrongPrompt(f"no row is of {stored.classes[int(counts.argmin())]}; a probe needs rows of every class.")
    centre, scale = _standard(stored)
    loss, even = (
        _Loss(stored, shared, centre, scale, (len(stored) / (len(counts) * counts)).float()),
        _evening(stored, shared, centre, scale),
    )
    k, d = len(stored.classes), stored.width
    reading = iter(progress(range(10**9), total=most, label="readings of the activations"))

    def asked(flat: np.ndarray) -> tuple[float, np.ndarray]:
        next(reading)
        at = torch.from_numpy(flat.reshape(k, d + 1))
        value, slope_w, slope_b = loss(at[:, :d] @ even, at[:, d])
        return value, torch.cat([slope_w @ even, slope_b[:, None]], 1).numpy().ravel()

    found = minimize(asked, np.zeros(k * (d + 1)), jac=True, method="L-BFGS-B", options={"maxiter": most, "gtol": tolerance})
    both = torch.from_numpy(found.x.reshape(k, d + 1))
    layer = ((both[:, :d] @ even).float(), both[:, d].float())
    return _probe(stored, layer, centre, scale, method="logistic", penalty=penalty, readings=int(found.nfev))


@dataclass(frozen=True, eq=False)
class _Loss:
    """The mean loss of a logistic probe on standardised rows, and its slope, by one reading."""

    stored: Shards
    penalty: float
    centre: Tensor
    scale: Tensor
    weights: Tensor

    def __call__(self, weight: Float[Tensor, "class d"], bias: Float[Tensor, " class"]) -> tuple[float, Tensor, Tensor]:
        raw = (weight / self.scale).float()  # rows are not standardised one by one: the matrix is, once
        shift = (bias - (weight / self.scale) @ self.centre.double()).float()
        total, slope_w, slope_b = 0.0, torch.zeros_like(weight), torch.zeros_like(bias)
        for x, y in self.stored.batches():
            said = torch.addmm(shift, x, raw.T).log_softmax(1)
            own = self.weights[y]
            total -= float((said[range(len(y)), y] * own).double().sum())
            wrong = said.exp()
            wrong[range(len(y)), y] -= 1
            wrong *= own[:, None]
            slope_w += (wrong.T @ (x - self.centre)).double()
            slope_b += wrong.double().sum(0)
        n = len(self.stored)
        total += self.penalty / 2 * float(weight.square().sum())
        return total / n, (slope_w / self.scale + self.penalty * weight) / n, slope_b / n


def _evening(stored: Shards, penalty: float, centre: Tensor, scale: Tensor) -> Float[Tensor, "d d"]:
    """The inverse root of the curvature that the loss has at zero: a share of the covariance, and the penalty."""
    square = torch.zeros(stored.width, stored.width, dtype=torch.float64)
    for x, _ in _watched(stored, "covariance"):
        own = (x - centre) / scale
        square += (own.T @ own).double()
    values, vectors = torch.linalg.eigh(square / len(stored))
    k = len(stored.classes)
    curved = values.clamp(min=0) * (1 - 1 / k) / k + penalty / len(stored)
    return (vectors / curved.sqrt().clamp(min=1e-6)) @ vectors.T


def accuracy(probe: Probe, stored: Shards) -> float:
    """The balanced accuracy of a probe on rows on disk."""
    right, counts = torch.zeros(len(stored.classes)), _counts(stored)
    names = torch.tensor([stored.classes.index(name) for name in probe.classes])
    for x, y in _watched(stored, "accuracy"):
        right += torch.bincount(y[names[probe(x).argmax(1)] == y], minlength=len(counts)).float()
    return float((right / counts).mean())


def _probe(stored: Shards, layer: tuple[Tensor, Tensor], centre: Tensor, scale: Tensor, **fitted) -> Probe:
    """As the fits in memory have it: classes sorted by name."""
    weight, bias = layer
    order = sorted(range(len(stored.classes)), key=lambda i: stored.classes[i])
    if order:
        weight, bias = weight[order], bias[order]
    names = tuple(stored.classes[i] for i in order)
    return Probe(((weight, bias),), centre, scale, names, {**fitted, "rows": len(stored)})


def _standard(stored: Shards) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each coordinate, around the first batch's mean so that nothing cancels."""
    about, total, square = None, torch.zeros(stored.width, dtype=torch.float64), torch.zeros(stored.width, dtype=torch.float64)
    for x, _ in stored.batches():
        about = x.double().mean(0) if about is None else about
        total += (x.double() - about).sum(0)
        square += (x.double() - about).square().sum(0)
    assert about is not None
    mean = total / len(stored)
    scale = (square / len(stored) - mean.square()).clamp(min=0).sqrt().float()
    return (mean + about).float(), torch.where(scale > 0, scale, torch.ones_like(scale))


def _counts(stored: Shards) -> Tensor:
    counts = torch.zeros(max(len(stored.classes), 1), dtype=torch.float64)
    if stored.classes:
        for n in range(len(stored.paths)):
            counts += torch.bincount(_all(stored, n), minlength=len(counts))
    return counts


def _all(stored: Shards, n: int) -> Int[Tensor, " row"]:
    """The class numbers of one shard."""
    if stored.labels:
        return torch.from_numpy(np.load(stored.labels[n]))
    with safe_open(stored.paths[n], "pt") as file:
        return file.get_tensor("y").clone()


def _columns(y: Tensor, classes: Sequence[str]) -> Tensor:
    return torch.nn.functional.one_hot(y, len(classes)).float() if classes else y.float()[:, None]


def _watched(stored: Shards, label: str) -> Iterator[tuple[Tensor, Tensor]]:
    return progress(stored.batches(), total=sum(-(-size // ROWS) for size in stored.sizes), label=label)
