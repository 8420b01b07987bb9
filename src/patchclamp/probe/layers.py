"""Probing by layer and position: how well a place says something, on prompts that its probe never saw.

`probe` gives the score at each place that a pattern names, with intervals over groups; `beside` asks the same of three
controls, without which a score means little:

    control task   every kind of token has a label drawn by lot (Hewitt & Liang 2019): what the probe can memorise. The
                   difference to the real score is the probe's *selectivity*
    shuffled       the labels are dealt out anew: what splits and class sizes alone give
    untrained      the model with weights drawn anew from its own config: what the architecture and the words give

What is not known from a score: whether the model uses what is read. That takes an edit (`erase`, `pc.project`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.journal import leaf, of_function
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.gather import gather
from patchclamp.model.model import Model
from patchclamp.model.untrained import untrained
from patchclamp.picture import Lines, Series
from patchclamp.probe.fitted import coded
from patchclamp.probe.linear import Fit, logistic
from patchclamp.probe.split import by_group, chance, held_out

At = Sequence[int] | Mapping[str, Sequence[int]]
"""A position for each prompt, or several by role; the roles are the axis `pos`."""
SOURCES = ("labels", "control task", "shuffled", "untrained")
LOTS = 1000
"""How often labels are dealt out until every class is among them."""


def probe(model: Model, site: str | Site, prompts: Sequence, labels: Sequence | Tensor, *,
          groups: Sequence[Hashable] | None = None, fit: Fit = logistic, at: At | None = None, folds: int = 5,
          seed: int = 0) -> Grid:  # fmt: skip
    """The held-out score at each place: Grid(layer), or Grid(layer, pos) with roles in `at` or a `[pos=*]`.

    Labels are one for each prompt: words or whole numbers are classes, and the score is their balanced accuracy; floating-point
    numbers are predicted, and it is R squared. `groups` are never on both sides of a split; without them, equal prompts are
    one. `Grid.interval()` draws groups again; probes are not refitted, so it is about these probes on other prompts.

    >>> from patchclamp.probe.layers import probe
    >>> names = ["Mary", "Anna", "Clara", "Emma", "Nora", "John", "Adam", "Carl", "Hugo", "Leo"]
    >>> grid = probe(model, "blocks.*.out", [f"{name} stayed at" for name in names], ["she"] * 5 + ["he"] * 5)
    >>> grid.axes, grid.baseline
    (('layer',), {'chance': 0.5})
    """
    site, groups, at = asked(model, site, prompts, labels, groups, at)
    x = values_at(model, site, prompts, at)
    each = _scored(x, labels, groups, fit, folds, seed, str(site))
    return _grid(each, labelled(model, site, at), labels, groups, folds, f"What {site} says")


def beside(model: Model, site: str | Site, prompts: Sequence, labels: Sequence | Tensor, *, kinds: Sequence[Hashable],
           groups: Sequence[Hashable] | None = None, fit: Fit = logistic, at: At | None = None, folds: int = 5,
           seed: int = 0) -> Grid:  # fmt: skip
    """`probe` with its controls beside it: the first axis, `source`, is "labels", "control task", "shuffled", "untrained".

    `kinds` says of each prompt which kind of thing is probed (the word itself, as a rule): the control task gives each kind a
    label by lot. It can only be memorised where a kind is on both sides of a split, so groups that hold all of a kind are
    refused.

    >>> from patchclamp.probe.layers import beside, selectivity
    >>> prompts, labels = ["a drink", "to drink", "the drink", "will drink"] * 3, ["noun", "verb"] * 6
    >>> groups = [n // 4 for n in range(12)]
    >>> found = beside(model, "blocks.*.out", prompts, labels, kinds=["drink", "other"] * 6, groups=groups, folds=3)
    >>> found.axes, selectivity(found).axes
    (('source', 'layer'), ('layer',))
    """
    site, groups, at = asked(model, site, prompts, labels, groups, at)
    control = control_task(labels, kinds, seed)
    _memorable(kinds, groups)
    shuffled = [labels[i] for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()]
    x = values_at(model, site, prompts, at)
    y = values_at(untrained(model, seed), site, prompts, at)
    pairs = ((x, labels), (x, control), (x, shuffled), (y, labels))
    found = [_scored(a, b, groups, fit, folds, seed, name) for name, (a, b) in zip(SOURCES, pairs)]
    axes, words = labelled(model, site, at)
    return _grid(
        torch.stack(found, 1),
        (("source", *axes), {"source": list(SOURCES), **words}),
        labels,
        groups,
        folds,
        f"What {site} says, and its controls",
    )


def selectivity(grid: Grid) -> Grid:
    """The real score minus that of the control task, group by group: what is not the probe's own memory."""
    real, control = grid.at(source="labels"), grid.at(source="control task")
    assert real.each is not None and control.each is not None
    return replace(real, values=real.values - control.values, each=real.each - control.each, scale="diverging",
                   title=f"Selectivity: {grid.title}", unit="score above the control task", baseline={"none": 0.0})  # fmt: skip


def control_task(labels: Sequence | Tensor, kinds: Sequence[Hashable], seed: int = 0) -> list:
    """A label for each kind, drawn from the real labels with their frequencies; every class comes out, so chance is as it was.

    >>> made = control_task(["noun", "verb"] * 4, ["cook", "play", "walk", "work"] * 2)
    >>> made[:4] == made[4:], len(set(made))
    (True, 2)
    """
    if len(kinds) != len(labels):
        raise ShapeMismatch(f"{len(kinds)} kinds for {len(labels)} labels; give one for each prompt.")
    distinct = list(dict.fromkeys(kinds))
    if len(distinct) < 2:
        raise WrongPrompt(f"a control task gives every kind a label by lot, and there is one kind only, {distinct[0]}.")
    chosen = torch.Generator().manual_seed(seed)
    pool = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    classes = coded(labels)[1]
    if len(classes) > len(distinct):
        raise WrongPrompt(f"{len(distinct)} kinds cannot be given {len(classes)} classes by lot; name finer kinds.")
    for _ in range(LOTS):
        picks = torch.randint(len(pool), (len(distinct),), generator=chosen).tolist()
        dealt = {kind: pool[i] for kind, i in zip(distinct, picks)}
        if len(set(dealt.values())) >= max(len(classes), 2):
            return [dealt[kind] for kind in kinds]
    raise WrongPrompt(f"{LOTS} lots gave no kind one of the rarer classes; name finer kinds, or leave rare classes out.")


def lines(grids: Mapping[str, Grid], level: float = 0.95) -> Lines:
    """Scores over layers, one line a grid, with bands where the truth lies at this level of confidence.

    >>> from patchclamp.probe.layers import beside, lines
    >>> found = Grid(torch.rand(2, 3), ("source", "layer"), {"source": ["labels", "shuffled"]})
    >>> [one.name for one in lines({w: found.at(source=w) for w in found.words("source")}).series]
    ['labels', 'shuffled']
    """
    series, axis = [], ""
    for name, grid in grids.items():
        if len(grid.axes) != 1:
            raise WrongAxis(f"a line has one axis, and {name} has {' '.join(grid.axes)}; fix the others with grid.at().")
        axis = grid.axes[0]
        low, high = (None, None) if grid.each is None else grid.interval(level).values.numpy()
        series.append(Series(name, grid.values.numpy(), low, high))
    first = next(iter(grids.values()))
    return Lines(torch.arange(len(first.values)).numpy(), tuple(series), axis, first.unit, title=first.title, note=first.note)


# ---- what is asked, and where


def asked(model: Model, site: str | Site, prompts: Sequence, labels: Sequence | Tensor, groups: Sequence[Hashable] | None,
          at: At | None) -> tuple[Site, Sequence[Hashable], At | None]:  # fmt: skip
    """The question, with what was left out filled in: equal prompts are one group, a starred position is every position."""
    site = Site.parse(site)
    if len(labels) != len(prompts):
        raise ShapeMismatch(f"{len(labels)} labels for {len(prompts)} prompts; give one for each.")
    coded(labels)
    if groups is None:
        groups = [str(p.tolist()) if isinstance(p, Tensor) else str(p) for p in prompts]
    if "pos" in site.stars:
        lengths = _lengths(model, prompts)
        if len(lengths) > 1:
            raise WrongPrompt(f"{site}: prompts are {min(lengths)} to {max(lengths)} tokens long; say the positions with at=.")
        at = {str(i): [i] * len(prompts) for i in range(lengths.pop())}
        site = Site(site.parts, tuple((a, v) for a, v in site.index if a != "pos"), site.raw)
    return site, groups, at


def _lengths(model: Model, prompts: Sequence) -> set[int]:
    window = model.inputs(list(prompts)).windows[""]
    return {len(window.tokens(row)) for row in range(len(prompts))}


def values_at(model: Model, site: Site, prompts: Sequence, at: At | None) -> Tensor:
    """(place, prompt, d); the places are the layers, each with all its roles, or a single one."""
    each = [at[role] for role in at] if isinstance(at, Mapping) else [at]
    found = [gather(model, site, prompts, positions).flatten(2 if site.bare().stars else 1) for positions in each]
    return torch.stack(found, 1).flatten(0, 1) if site.bare().stars else torch.stack(found)


def _scored(
    x: Tensor, labels: Sequence | Tensor, groups: Sequence[Hashable], fit: Fit, folds: int, seed: int, label: str
) -> Tensor:
    """(group, place). Places that are done are kept by an open journal."""
    page = leaf(f"probing {label}", lambda: (x, list(labels), list(groups), of_function(fit), folds, seed))
    for n, place in enumerate(progress(x, total=len(x), label=f"probing {label}")):
        if n not in page.known:
            page.write(n, by_group(held_out(place, labels, groups, fit, folds, seed), groups))
    return torch.stack([page.known[n] for n in range(len(x))], 1)


def labelled(model: Model, site: Site, at: At | None) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The axes of the answer and their labels."""
    axes: tuple[str, ...] = ()
    words: dict[str, list[str]] = {}
    if site.bare().stars:
        axes = site.bare().stars
        words[axes[0]] = [str(site.bare().star_values(p)[0]) for p in model.places(site)]
    if isinstance(at, Mapping):
        axes, words = (*axes, "pos"), {**words, "pos": list(at)}
    return axes, words


def _memorable(kinds: Sequence[Hashable], groups: Sequence[Hashable]) -> None:
    homes: dict[Hashable, set[Hashable]] = {}
    for kind, group in zip(kinds, groups):
        homes.setdefault(kind, set()).add(group)
    if all(len(found) == 1 for found in homes.values()):
        raise WrongPrompt(
            "each kind is in one group only, so no split lets the control task be memorised, and selectivity would flatter the "
            "probe. Group by something else than the kinds (the template, say)."
        )


def _grid(each: Tensor, places: tuple[tuple[str, ...], dict[str, list[str]]], labels: Sequence | Tensor,
          groups: Sequence[Hashable], folds: int, title: str) -> Grid:  # fmt: skip
    axes, words = places
    shape = [len(words[a]) for a in axes]
    each = each.reshape(len(each), *shape)
    classes = coded(labels)[1]
    unit = "balanced accuracy" if classes else "R squared"
    note = (
        f"Held out in {folds} folds; {len(set(groups))} groups, none on both sides of a split. Chance is {chance(labels):.3g}."
    )
    return Grid(each.mean(0), axes, words, unit, title, note, "sequential", baseline={"chance": chance(labels)}, each=each)
