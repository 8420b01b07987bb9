"""Progress bars for anything that takes longer than two seconds, and silence for everything else.

Work inside work has its bar below the outer one: what is on the screen is shared, and gone when the last bar is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
PATIENCE = 2.0
"""Seconds before a bar appears."""


def progress(items: Iterable[Item], total: int | None = None, label: str = "") -> Iterator[Item]:
    """Yield the items; draw a bar on standard error once it takes longer than two seconds and somebody is looking.

    >>> list(progress(range(3), label="counting"))
    [0, 1, 2]
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    started, task = time.monotonic(), None
    try:
        for done, item in enumerate(items):
            if task is None and time.monotonic() - started > PATIENCE and _watched():
                task = _begin(label, total, done)
            yield item
            if task is not None:
                _screen[0].update(task, advance=1)
    finally:
        if task is not None:
            _end(task)


_screen: list[Any] = []
"""What the bars of the moment are drawn on; empty while there are none."""


def _watched() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _begin(label: str, total: int | None, done: int) -> Any:
    """A bar on the screen, which is set up for the first."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not _screen:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        _screen.append(Progress(*columns, console=Console(stderr=True), transient=True))
        _screen[0].start()
    return _screen[0].add_task(label, total=total, completed=done)


def _end(task: Any) -> None:
    _screen[0].remove_task(task)
    if not _screen[0].tasks:
        _screen.pop().stop()
