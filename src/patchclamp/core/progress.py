"""Progress bars for anything that takes longer than two seconds, and silence for everything else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
PATIENCE = 2.0
"""Seconds before a bar appears."""
_drawn: list = []
"""The bar that is being drawn."""


def progress(items: Iterable[Item], total: int | None = None, label: str = "") -> Iterator[Item]:
    """Yield the items; draw a bar on standard error once it takes longer than two seconds and somebody is looking.

    There is one bar at a time: work within work is shown by the bar that came first.

    >>> list(progress(range(3), label="counting"))
    [0, 1, 2]
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    started, bar, task = time.monotonic(), None, None
    try:
        for done, item in enumerate(items):
            if bar is None and not _drawn and time.monotonic() - started > PATIENCE and _watched():
                bar, task = _bar(label, total, done)
                _drawn.append(bar)
            yield item
            if bar is not None and task is not None:
                bar.update(task, advance=1)
    finally:
        if bar is not None:
            bar.stop()
            _drawn.remove(bar)


def _watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _bar(label: str, total: int | None, done: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task(label, total=total, completed=done)
