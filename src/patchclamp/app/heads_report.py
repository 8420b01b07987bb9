"""The body of `patchclamp heads`: which heads there are, what they do, what the model loses without them, when they came."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchclamp.app.asked import WrongOption, prompt
from patchclamp.app.readings import signed
from patchclamp.app.report import Report
from patchclamp.core.errors import NotSaved
from patchclamp.core.grid import Grid
from patchclamp.core.pair import Pair
from patchclamp.lenses.attention import repeated, summaries
from patchclamp.lenses.heads import CLEAR, LEAST, ORDER, TIMES, listed, name_heads
from patchclamp.lenses.phase import MEASURES, checkpoints, jump, phase
from patchclamp.model.model import Model
from patchclamp.model.untrained import untrained
from patchclamp.picture import Lines, Page, Section, Series
from patchclamp.task.tasks import draw

FEWEST = 4
"""Checkpoints from which a jump is looked for."""


@dataclass(frozen=True)
class How:
    """What is asked, as the options say it."""

    prompts: Path | None = None
    task: str | None = None
    movers: str | None = None
    count: int = 16
    checkpoints: Path | None = None
    untrained: bool = True
    seed: int = 0

    def checked(self) -> How:
        """The same, provided that it can be done; told before a model is opened."""
        if self.prompts is not None and self.task is not None:
            raise WrongOption("prompts come from --prompts or from --task; leave out one of them.")
        if self.count < 2:
            raise WrongOption(f"--count is how many prompts, two or more; got {self.count}.")
        if self.prompts is not None and not self.prompts.is_file():
            raise NotSaved(f"there is no file {self.prompts}; --prompts takes a file of texts, one a line.")
        return self


def texts(model: Model, how: How) -> list | None:
    """The prompts with repeats, or None for random tokens."""
    if how.task is not None:
        return [p.clean if isinstance(p.clean, str) else list(p.clean) for p in _pairs(model, how.task, how)]
    if how.prompts is None:
        return None
    try:
        lines = how.prompts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NotSaved(f"{how.prompts} could not be read as text ({error}); give a file of texts, one a line.") from None
    found = [prompt(model, line.strip()) for line in lines if line.strip()][: how.count]
    if len(found) < 2:
        raise NotSaved(f"{how.prompts} has {len(found)} texts, one a line; give two or more, with words that are repeated.")
    return found


def heads_report(model: Model, how: How) -> Report:
    """Name the heads, measure what is lost without them, and make the report."""
    started, prompts = time.perf_counter(), texts(model, how)
    pairs = _pairs(model, how.movers, how) if how.movers is not None else []
    grid = name_heads(model, prompts, pairs=pairs, seed=how.seed)
    plain = name_heads(untrained(model, how.seed), prompts, pairs=pairs, seed=how.seed) if how.untrained else None
    spread = summaries(model, repeated(model, seed=how.seed) if prompts is None else prompts)
    sections, grids = [_named(grid, plain), _map(grid), _spread(spread)], {"heads": grid, "spread": spread}
    if how.checkpoints is not None:
        grids["checkpoints"] = phase(checkpoints(how.checkpoints), prompts)
        sections.append(_learnt(grids["checkpoints"]))
    sections.append(_scores(grid))
    facts = {
        "model": f"{type(model.hf).__name__}, {model.layers} blocks, {model.heads} heads each",
        "prompts": _told(how, prompts),
        "took": f"{time.perf_counter() - started:.1f} s",
    }
    page = Page(f"The heads of {model.name}", "", facts, tuple(sections),
                "Written by patchclamp heads. Everything on this page is in this one file.")  # fmt: skip
    table = listed(grid)
    data: dict[str, Any] = {
        "model": model.name,
        "facts": facts,
        "readings": {s.title: s.reading for s in sections if s.reading},
        "heads": [dict(zip(("head", "name", "score", "control", "effect"), row)) for row in table.rows],
        "grids": {name: one.json() for name, one in grids.items()},
    }
    return Report(page, data)


def _pairs(model: Model, task: str, how: How) -> Sequence[Pair]:
    return draw(task, how.count, how.seed, model.tokenizer)


def _told(how: How, prompts: list | None) -> str:
    if prompts is None:
        return "random tokens, and then the same again"
    return f"{len(prompts)} of {how.task or how.prompts}, such as: {prompts[0]}"


def _named(grid: Grid, plain: Grid | None) -> Section:
    counts = Counter(name for row in grid.text or () for name in row if name)
    said = ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "none"
    told = f"Heads with a name: {said}."
    if plain is not None:
        odd = Counter(name for row in plain.text or () for name in row if name)
        told += f" In an untrained copy: {', '.join(f'{n} {name}' for name, n in odd.most_common()) or 'none'}."
    if not counts:
        told += " A model that only ever read language may do nothing with random tokens; "
        told += "--prompts takes texts that repeat words."
        return Section("Which heads there are", told)
    return Section("Which heads there are", told, (listed(grid),))


def _map(grid: Grid) -> Section:
    (where, most), *_ = grid.top(1)
    told = f"Head {where['layer']}.{where['head']} matters most: without it the probabilities of the next token move by "
    told += f"{most:.3g} nats."
    return Section("What is lost without each", told, (grid.picture(),))


def _spread(spread: Grid) -> Section:
    first = spread.at(summary="first")
    sinks, all_heads = int((first.values > 0.5).sum()), int(first.values.isfinite().sum())
    told = f"{sinks} of {all_heads} heads give the first token more than half of their attention."
    pictures = tuple(spread.at(summary=name).picture() for name in spread.words("summary"))
    return Section("How they spread their attention", told, pictures, folded=True)


def _learnt(curves: Grid) -> Section:
    steps = np.array([int(s) for s in curves.words("step")], dtype=float)
    looks = tuple(Series(m, curves.at(measure=m).values.numpy()) for m in MEASURES[3:])
    losses = tuple(Series(m, curves.at(measure=m).values.numpy()) for m in MEASURES[:3])
    ends = curves.at(measure="induction").values
    told = f"The best induction head's attention goes from {float(ends[0]):.2f} to {float(ends[-1]):.2f}"
    told += f" (control: {float(curves.at(measure='induction, control').values[-1]):.2f})"
    if len(steps) >= FEWEST:
        found = jump(curves.at(measure="induction"))
        told += f"; it jumps by {signed(found.size)} between steps {found.before} and {found.after}"
    pictures = (Lines(steps, looks, "step", "attention", title="Attention"), Lines(steps, losses, "step", "nats", title="Loss"))
    return Section("When it learnt that", f"{told}.", pictures)


def _scores(grid: Grid) -> Section:
    told = f"A head has a name from {LEAST} on, if that is {TIMES:g} times its control; "
    told += f"{', '.join(ORDER)} from {CLEAR} on, and only where no other fits."
    made = []
    for name in (n for n in grid.details if not n.endswith(", control")):
        details = {"control": grid.details[f"{name}, control"]}
        made.append(Grid(grid.details[name], grid.axes, grid.labels, title=name, details=details))
    return Section("Every score", told, tuple(one.picture() for one in made), folded=True)
