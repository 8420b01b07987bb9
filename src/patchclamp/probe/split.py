"""Splits that are honest: rows that share a group (a template, a name, a document) are never on both sides.

Each row is held out once. A probe that has seen a row's template may know the answer from the template; so what is held out
together is the caller's to say, and what was said stands on the grid.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.fitted import Probe, coded


def folds(labels: Sequence | Tensor, groups: Sequence[Hashable], count: int = 5, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Numbers of the training and of the held-out rows, `count` times; classes as evenly spread as the groups allow.

    >>> groups = list("aabbccdd")
    >>> [{groups[i] for i in train} & {groups[i] for i in test} for train, test in folds([0, 1] * 4, groups, count=2)]
    [set(), set()]
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    y, classes = coded(labels)
    if len(groups) != len(y):
        raise ShapeMismatch(f"{len(groups)} groups for {len(y)} labels; give one for each row.")
    ids = _numbered(groups)
    found = int(ids.max()) + 1
    if found < count:
        raise WrongPrompt(f"{found} groups cannot be held out in {count} folds; take folds={found} or finer groups.")
    kind = StratifiedGroupKFold if classes else GroupKFold
    splitter = kind(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rare class with fewer rows than folds is told below, in our words
        split = splitter.split(torch.zeros(len(y), 1).numpy(), y.numpy(), ids.numpy())
        made = [(torch.as_tensor(train), torch.as_tensor(test)) for train, test in split]
    for train, _ in made:
        if classes and len(y[train].unique()) < len(classes):
            lost = [c for n, c in enumerate(classes) if n not in y[train]]
            raise WrongPrompt(
                f"a fold has no training row of {', '.join(lost)}: all its rows share a group. Take finer groups."
            )
    return made


def held_out(x: Float[Tensor, "row d"], labels: Sequence | Tensor, groups: Sequence[Hashable],
             fit: Callable[[Tensor, Sequence], Probe], count: int = 5, seed: int = 0) -> Float[Tensor, " row"]:  # fmt: skip
    """A mark for each row by a probe that was fitted without its group; the mean of the marks is the score.

    Classes: 1 where the row is named rightly, weighted so that the mean is the *balanced* accuracy, in which every class counts
    alike and a guess has 1 / classes. Numbers: one minus the squared error over the variance, whose mean is R squared.

    >>> from patchclamp.probe.linear import means
    >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    >>> float(held_out(x, [int(r[0] > 0) for r in x], list(range(100)), means).mean()) > 0.9
    True
    """
    y, classes = coded(labels)
    marks = torch.zeros(len(y))
    if classes:
        weight = (len(y) / (len(classes) * torch.bincount(y).float()))[y]
        for train, test in folds(labels, groups, count, seed):
            said = fit(x[train], [classes[i] for i in y[train]])
            named = torch.tensor([classes.index(name) for name in said.predict(x[test])])
            marks[test] = (named == y[test]).float() * weight[test]
        return marks
    spread = y.var(correction=0).clamp(min=1e-30)
    for train, test in folds(labels, groups, count, seed):
        marks[test] = 1 - (fit(x[train], y[train].tolist())(x[test])[:, 0] - y[test]).square() / spread
    return marks


def by_group(marks: Float[Tensor, " row"], groups: Sequence[Hashable]) -> Float[Tensor, " group"]:
    """A number for each group, of the same mean: rows of a group are not independent, groups are what an interval draws."""
    ids = _numbered(groups)
    count = int(ids.max()) + 1
    return torch.zeros(count).index_add(0, ids, marks) * count / len(marks)


def chance(labels: Sequence | Tensor) -> float:
    """The score of a guess: 1 / classes, or no variance explained."""
    classes = coded(labels)[1]
    return 1 / len(classes) if classes else 0.0


def _numbered(groups: Sequence[Hashable]) -> Tensor:
    where: dict[Hashable, int] = {}
    return torch.tensor([where.setdefault(g, len(where)) for g in groups])
