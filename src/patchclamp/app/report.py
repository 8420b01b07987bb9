"""Report: what a command found, three times over: a page to keep, what the terminal shows of it, and the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchclamp.app.readings import quoted
from patchclamp.core.grid import Grid
from patchclamp.picture import Page, Section


@dataclass(frozen=True, eq=False)
class Report:
    """A page, and all its numbers as plain data. Sections that are folded show only their reading in a terminal."""

    page: Page
    data: dict[str, Any]

    def summary(self) -> Page:
        """What the terminal shows."""
        sections = [Section(s.title, s.reading, () if s.folded else s.pictures, s.left_out) for s in self.page.sections]
        return Page(self.page.title, self.page.subtitle, self.page.facts, tuple(sections))


def described(asked: Any, metric: Any, ends: Sequence[tuple[float, str]]) -> dict[str, str]:
    """The facts at the head of a report: the model, the prompts, the answer, and the metric's two ends."""
    model = asked.model
    facts = {"model": f"{type(model.hf).__name__}, {model.layers} blocks, width {model.width}"}
    texts = [asked.clean[0], *(asked.corrupt or [])[:1]]
    if len(asked.clean) > 1:
        facts["prompts"] = asked.told
    facts |= {name: _text(t) + (" …" if len(asked.clean) > 1 else "") for name, t in zip(("clean", "corrupt"), texts)}
    right, wrong = asked.words
    facts["answer"] = quoted(right) + (f", not {quoted(wrong)}" if wrong else "")
    if asked.left_out:
        facts["left out"] = asked.left_out
    said = ", ".join(f"{value:.3f} {where}" for value, where in ends).replace("-", "−")
    facts["metric"] = f"{metric.name} in {metric.unit}: {said}" if said else f"{metric.name} in {metric.unit}"
    return facts


def cells(grid: Grid) -> list[dict[str, str]]:
    """The labels of every cell, in the order of the values."""
    found: list[dict[str, str]] = [{}]
    for axis in grid.axes:
        found = [{**where, axis: str(w)} for where in found for w in grid.words(axis)]
    return found


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
