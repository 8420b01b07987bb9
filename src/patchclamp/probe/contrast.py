"""Contrast: the direction in which what is liked differs from what is not.

Two heaps of prompts, the activations of one place on each, and a method that draws a line from one heap to the other:

    MeanDifference   from one average to the other (Rimsky et al. 2023; "mass mean", Marks & Tegmark 2023)
    Principal        the main axis of the differences of pairs (Zou et al. 2023, "representation engineering")
    Logistic         the normal of the best separating plane

The first is what steers best as a rule; the last is what reads best, and it leaves out what the classes share with a stronger
direction. `whitened` takes the spread inside the classes for the measure of length: the direction then *reads* as well as a
linear probe can if the classes are Gaussian (Fisher's discriminant), and points away from where the classes vary anyway.
Whoever has one heap only contrasts it with ordinary text ("mean-centring", Jorgensen et al. 2023).

What it does not know: whether the heaps differ in anything else. Whatever sets them apart is in the direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.core.uncertain import auroc, wilson
from patchclamp.model.gather import every, gather
from patchclamp.model.model import Model
from patchclamp.probe.direction import Direction
from patchclamp.probe.newton import logistic

Rows = Float[Tensor, "_ d"]
Method = Callable[[Rows, Rows], Tensor]
"""From the activations of both kinds, (prompt, d) each, to a vector of any length; where they are pairs, row by row."""
WIDE = 2000
"""Prompts and numbers a prompt, where there are more of both, for which Newton's method takes too long."""
FOLDS = 4
"""Parts into which the prompts are cut; each is judged by a direction made from the others."""


@dataclass(frozen=True)
class MeanDifference:
    """From the average of the disliked to that of the liked; `whitened` is Fisher's discriminant.

    >>> from patchclamp.probe.contrast import MeanDifference
    >>> MeanDifference()(torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([2., 0.])
    """

    whitened: bool = False

    def __call__(self, liked: Rows, disliked: Rows) -> Tensor:
        gap = liked.mean(0) - disliked.mean(0)
        return torch.linalg.solve(_within(liked, disliked), gap) if self.whitened else gap

    def __str__(self) -> str:
        return "mean difference" + (" (whitened)" if self.whitened else "")


@dataclass(frozen=True)
class Principal:
    """The main axis of the differences of pairs, liked minus disliked, towards their mean.

    Without centring it is the axis that all differences have most in common. `centred` takes their mean away first, and
    leaves the axis along which the differences *differ*: rarely what is wanted, and what a careless PCA computes.
    """

    centred: bool = False
    whitened: bool = False

    def __call__(self, liked: Rows, disliked: Rows) -> Tensor:
        if len(liked) != len(disliked):
            raise WrongPrompt(
                f"the axis of differences needs pairs: there are {len(liked)} liked prompts and {len(disliked)} disliked ones. "
                "Give as many of each, in pairs, or take MeanDifference()."
            )
        gaps = liked - disliked
        root = torch.linalg.cholesky(_within(liked, disliked)) if self.whitened else None
        if root is not None:
            gaps = torch.linalg.solve_triangular(root, gaps.T, upper=False).T
        moved = gaps - gaps.mean(0) if self.centred else gaps
        axis = torch.linalg.svd(moved, full_matrices=False).Vh[0]
        axis = axis if float(axis @ gaps.mean(0)) >= 0 else -axis
        return axis if root is None else torch.linalg.solve_triangular(root.T, axis[:, None], upper=True)[:, 0]

    def __str__(self) -> str:
        more = [word for word, said in (("centred", self.centred), ("whitened", self.whitened)) if said]
        return "main axis of differences" + (f" ({', '.join(more)})" if more else "")


@dataclass(frozen=True)
class Logistic:
    """The normal of the plane that logistic regression puts between the two kinds.

    The loss is the sum over prompts, plus half the squared length of the normal over `strength`. Where `whitened`, the
    activations are divided by their spread inside the classes first, so that the penalty falls on all directions alike.
    """

    whitened: bool = False
    strength: float = 1.0

    def __call__(self, liked: Rows, disliked: Rows) -> Tensor:
        values = torch.cat([liked, disliked])
        values = values - values.mean(0)
        root = torch.linalg.cholesky(_within(liked, disliked)) if self.whitened else None
        if root is not None:
            values = torch.linalg.solve_triangular(root, values.T, upper=False).T
        target = torch.cat([torch.ones(len(liked)), torch.zeros(len(disliked))])
        normal = _plane(values, target, self.strength).to(liked)
        return normal if root is None else torch.linalg.solve_triangular(root.T, normal[:, None], upper=True)[:, 0]

    def __str__(self) -> str:
        return "logistic regression" + (" (whitened)" if self.whitened else "")


SIMPLEST = MeanDifference()


def contrast(model: Model, site: str | Site, liked: Sequence, disliked: Sequence, *, method: Method = SIMPLEST,
             at: tuple[Sequence[int], Sequence[int]] | None = None, pooled: bool = False,
             seed: int = 0) -> Direction:  # fmt: skip
    """The direction at a site from what is disliked to what is liked; one for each layer where the site is a pattern.

    Prompts are read at their last token, at the site's own position, or with `at` each at its own: positions of the liked
    ones and of the disliked ones; `pooled`, as the average of all their tokens. Where there are as many of one kind as of the
    other they are taken as pairs, which stay together when the direction is tried on prompts that it was not made from. So do
    activations that are the same; prompts made from one template are not known to be.

    >>> shows, good, bad = ("film", "play"), ("lovely", "superb", "perfect"), ("dull", "boring", "terrible")
    >>> liked, disliked = ([f"The {show} was {word}. We went home" for show in shows for word in said] for said in (good, bad))
    >>> joy = pc.contrast(model, "blocks.*.out", liked, disliked)
    >>> joy.separation.axes, joy.at(layer=2)
    (('layer',), Direction('blocks.2.out', mean difference of 6 and 6 prompts, AUROC 1.000 held out))
    >>> model.edit(pc.steer("blocks.2.out", 1 * joy.at(layer=2))).run("The soup was hopeless. We went home").next().top(1)[0][0]
    {'vocab': ' pleased'}
    """
    site, liked, disliked = Site.parse(site), list(liked), list(disliked)
    if pooled and at is not None:
        raise WrongPrompt("prompts are read at some token, at=, or as the average of all, pooled=; not both.")
    one, other = (
        _averages(model, site, prompts) if pooled else gather(model, site, prompts, at and at[i])
        for i, prompts in enumerate((liked, disliked))
    )
    layered = bool(site.bare().stars)
    if one.ndim != 2 + layered:
        raise ShapeMismatch(f"{site} holds {list(one.shape[1 + layered :])} numbers a token; name one vector, such as a head.")
    stacks = (one, other) if layered else (one[None], other[None])
    made = [line(method, a, b) for a, b in zip(*stacks)]
    scores = [_tested(method, a, b, seed) for a, b in zip(*stacks)]
    vector, scale, middle = (torch.stack(found) for found in zip(*made))
    where = Site(site.parts, tuple((axis, i) for axis, i in site.index if axis != "pos"), site.raw)
    facts = {"model": model.name, "liked": str(len(liked)), "disliked": str(len(disliked)), "seed": str(seed)}
    how = f"{_name(method)} of {len(liked)} and {len(disliked)} prompts"
    labels = [str(site.star_values(path)[0]) for path in model.places(site)] if layered else []
    grid = _separation(scores, (len(liked), len(disliked)), labels, f"Separation along the {_name(method)}")
    if not layered:
        vector, scale, middle = vector[0], scale[0], middle[0]
    return Direction(vector, scale, middle, where, grid, how, facts)


def _averages(model: Model, site: Site, prompts: Sequence) -> Float[Tensor, "*layer prompt d"]:
    """The average of a site over each prompt's tokens."""
    found = []
    for path in model.places(site):
        rows = every(model, Site.parse(path).at(**dict(site.index)), prompts)
        sums = torch.zeros(len(prompts), *rows.value.shape[1:]).index_add_(0, rows.prompt, rows.value)
        counts = rows.prompt.bincount(minlength=len(prompts)).reshape(-1, *[1] * (sums.ndim - 1))
        found.append(sums / counts)
    return torch.stack(found) if site.bare().stars else found[0]


def line(method: Method, liked: Rows, disliked: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """The unit vector, the gap along it and the middle; it points to what is liked."""
    found = method(liked, disliked)
    if found.shape != liked.shape[1:]:
        raise ShapeMismatch(f"a method gives one vector of {liked.shape[1]} numbers; {_name(method)} gave {list(found.shape)}.")
    vector = found / found.norm().clamp(min=1e-30)
    ends = (liked.mean(0) @ vector, disliked.mean(0) @ vector)
    sign = 1.0 if float(ends[0] - ends[1]) >= 0 else -1.0
    return sign * vector, sign * (ends[0] - ends[1]), sign * (ends[0] + ends[1]) / 2


def _tested(method: Method, liked: Rows, disliked: Rows, seed: int) -> tuple[float, float]:
    """AUROC over prompts held out in turn, and the same with all prompts shuffled between the kinds."""
    if any(len(rows) < 2 or not int(_alike(rows).max()) for rows in (liked, disliked)):
        return float("nan"), float("nan")
    together = torch.cat([liked, disliked])
    mixed = together[torch.randperm(len(together), generator=torch.Generator().manual_seed(seed + 1))]
    return held_out(method, liked, disliked, seed), held_out(method, mixed[: len(liked)], mixed[len(liked) :], seed)


def held_out(method: Method, liked: Rows, disliked: Rows, seed: int = 0) -> float:
    """AUROC over all prompts, each scored by a direction made from the others, in gaps from its middle."""
    scores = ([], [])
    for parts in _folds(liked, disliked, seed):
        kept = [rows[~part] for rows, part in zip((liked, disliked), parts)]
        vector, scale, middle = line(method, *kept)
        for found, rows, part in zip(scores, (liked, disliked), parts):
            found.append((rows[part] @ vector - middle) / scale.clamp(min=1e-30))  # folds differ in their gap
    return auroc(torch.cat(scores[0]), torch.cat(scores[1]))


def _folds(liked: Rows, disliked: Rows, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Which prompts of each kind are held out, part by part; pairs go together, and what is the same in both kinds or one."""
    places = []
    for rows in (liked, disliked):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        place = torch.empty(len(rows), dtype=torch.long)
        place[order] = torch.arange(len(rows))
        alike = _alike(rows)
        if int(alike.max()) + 1 < len(rows):  # copies take the first one's place
            first = torch.full((len(rows),), len(rows)).scatter_reduce(0, alike, place, "amin")
            place = torch.unique(first[alike], return_inverse=True)[1]
        places.append(place)
    count = min(FOLDS, *(int(place.max()) + 1 for place in places))
    for fold in range(count):
        yield places[0] % count == fold, places[1] % count == fold


def _alike(rows: Rows) -> Int[Tensor, " n"]:
    """A number for each row, the same for rows that are the same but for rounding."""
    return torch.unique((1e4 * rows / rows.abs().max().clamp(min=1e-30)).round(), dim=0, return_inverse=True)[1]


def _separation(scores: Sequence[tuple[float, float]], sizes: tuple[int, int], labels: Sequence[str], title: str) -> Grid:
    values, shuffled = (torch.tensor(column) for column in zip(*scores))
    value, low, high = (part if labels else part[0] for part in (values, *wilson(values, min(sizes))))
    return Grid(
        value, ("layer",) if labels else (), {"layer": list(labels)} if labels else {}, unit="AUROC", title=title,
        scale="sequential", details={"low": low, "high": high},
        baseline={"chance": 0.5, "shuffled": float(shuffled.mean())},
        note=f"On prompts held out; 0.5 is chance, and shuffled prompts give {float(shuffled.mean()):.2f}.",
    )  # fmt: skip


def _within(liked: Rows, disliked: Rows) -> Float[Tensor, "d d"]:
    """The covariance inside the classes, shrunk towards a multiple of the identity (Ledoit & Wolf 2004, eq. 14)."""
    rows = torch.cat([liked - liked.mean(0), disliked - disliked.mean(0)]).double()
    n, d = rows.shape
    found = rows.T @ rows / n
    mean, one = found.diagonal().mean(), torch.eye(d, dtype=rows.dtype)
    apart = (found - mean * one).square().sum()
    noise = (rows.square().sum(1).square().sum() / n - found.square().sum()) / n  # of one prompt's product
    share = float((noise / apart.clamp(min=1e-300)).clamp(0, 1))
    floor = 1e-6 * mean.clamp(min=1e-12)
    return ((1 - share) * found + (share * mean + floor) * one).to(liked)


def _plane(values: Rows, target: Float[Tensor, " n"], strength: float) -> Float[Tensor, " d"]:
    """The normal by Newton's method, or where its systems would be too wide, by scikit-learn's L-BFGS."""
    if min(values.shape) <= WIDE:
        return logistic(values, target, 1 / strength)[0]
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=strength, tol=1e-7, max_iter=1000).fit(values.double().numpy(), target.numpy())
    return torch.from_numpy(fitted.coef_[0])


def _name(method: Method) -> str:
    return str(method) if hasattr(type(method), "__dataclass_fields__") else getattr(method, "__name__", "method")
