"""The body of `patchclamp blimp`: which of two sentences a model finds more probable, paradigm by paradigm."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from patchclamp.app.report import Report
from patchclamp.core.grid import Grid
from patchclamp.model.likelihood import masked
from patchclamp.model.model import Model
from patchclamp.picture import Bars, Page, Section, Table
from patchclamp.task.blimp import Contrast, blimp

Paradigms = Mapping[str, Sequence[Contrast]]


def planned(paradigms: Paradigms) -> str:
    """What is going to be done, in a line."""
    pairs = sum(map(len, paradigms.values()))
    return f"{pairs} pairs of sentences in {len(paradigms)} paradigm{'s' * (len(paradigms) > 1)}"


def blimp_report(model: Model, paradigms: Paradigms, bos: bool = True) -> Report:
    """Score every pair, and make the report."""
    started = time.perf_counter()
    grid = blimp(model, paradigms, bos)
    facts = {
        "model": f"{type(model.hf).__name__}, {model.layers} blocks, width {model.width}",
        "pairs": planned(paradigms),
        "measure": "pseudo-log-likelihood, token by token" if masked(model) else "total log-probability",
        "before a sentence": _before(model, bos),
        "took": f"{time.perf_counter() - started:.1f} s",
    }
    sections = (_drawn(grid), *_fields(grid, paradigms), _listed(grid, paradigms))
    page = Page(f"Minimal pairs in {model.name}", "", facts, sections,
                "Written by patchclamp blimp. Everything on this page is in this one file.")  # fmt: skip
    readings = {s.title: s.reading for s in sections if s.reading}
    return Report(page, {"model": model.name, "facts": facts, "readings": readings, "grids": {"paradigms": grid.json()}})


def _before(model: Model, bos: bool) -> str:
    token = getattr(model.tokenizer, "bos_token", None)
    return "whatever the tokenizer puts there" if masked(model) else f"{token}" if bos and token else "nothing"


def _drawn(grid: Grid) -> Section:
    names, low, high = grid.words("paradigm"), grid.details["low"], grid.details["high"]
    above, below = int((low > 0.5).sum()), int((high < 0.5).sum())
    told = f"On average {grid.baseline['mean']:.1%} of good sentences are the more probable ones. Of {len(names)} paradigms "
    told += f"{above} lie above chance and {below} below it, by their 95 % intervals."
    ties = int(grid.details["ties"].sum())
    if ties:
        told += f" In {ties} pair{'s' * (ties > 1)} both are equally probable, which counts as wrong; a tokenizer may not tell "
        told += "them apart."
    bars = Bars(grid.values.numpy(), tuple(names), grid.unit, "paradigm", "sequential", low.numpy(), high.numpy(),
                title=grid.title, note=grid.note)  # fmt: skip
    return Section("Which sentence is more probable", told, (bars,))


def _fields(grid: Grid, paradigms: Paradigms) -> list[Section]:
    """The mean of each field, where the files name theirs."""
    scores: dict[str, list[float]] = {}
    for name, value in zip(grid.words("paradigm"), grid.values.tolist()):
        scores.setdefault(paradigms[str(name)][0].field, []).append(value)
    if "" in scores or len(scores) < 2:
        return []
    rows = tuple((field, len(values), sum(values) / len(values)) for field, values in sorted(scores.items()))
    return [Section("By field", pictures=(Table(("field", "paradigms", "share of pairs"), rows, digits=3),))]


def _listed(grid: Grid, paradigms: Paradigms) -> Section:
    columns = ("paradigm", "phenomenon", "share", "low", "high", "pairs", "ties", "margin, nats")
    figures = zip(grid.values.tolist(), *(grid.details[k].tolist() for k in ("low", "high", "pairs", "ties", "margin")))
    rows = tuple(
        (name, paradigms[name][0].term, share, low, high, int(pairs), int(ties), margin)
        for name, (share, low, high, pairs, ties, margin) in zip(map(str, grid.words("paradigm")), figures)
    )
    return Section("Every paradigm", pictures=(Table(columns, rows, digits=3),))
