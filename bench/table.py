"""Lines of a benchmark, and the table that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rich.table import Table

from bench.clock import Spread

PACKAGES = ("patchclamp", "torch", "transformers", "transformer-lens", "nnsight", "interpkit")
VERSIONS = ", ".join(f"{name} {version(name)}" for name in PACKAGES)


@dataclass(frozen=True)
class Line:
    """One comparison."""

    what: str
    fraction: str
    """Whose number over whose, or minus whose."""
    spread: Spread
    target: str = ""
    """`<= 1.02` or `>= 15`, in the line's unit; empty where a peer is only shown beside."""
    unit: str = "x"
    aside: str = ""
    answer: bool = False
    """It compares answers, not costs: a miss is an error, whatever the machine."""

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target.

        >>> Line("a run", "us / them", Spread.of([1.0, 1.5, 1.01]), "<= 1.02").met
        True
        """
        if not self.target:
            return None
        sign, bound = self.target.split()
        return self.spread.median <= float(bound) if sign == "<=" else self.spread.median >= float(bound)

    def number(self, value: float) -> str:
        """A value in the line's unit, with as many digits as a clock gives."""
        if self.unit == "x":
            return f"{value:.3f}" if value < 2 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
        if self.unit == "ms":
            return f"{value:.3f} ms" if abs(value) < 10 else f"{value:.0f} ms"
        return f"{value:.1e}" if value else "0"


def table(pairs: Sequence[tuple[Line, Line | None]]) -> Table:
    """One row a line; beside it the same by wall time, where that was measured."""
    wall = any(other is not None for _, other in pairs)
    made = Table(title=VERSIONS, caption="a / b: a's time over b's in the same round. Median of rounds, and the quartiles.")
    for column in ("what", "fraction"):
        made.add_column(column, overflow="fold")
    for column in ("median", "from", "to", "rounds", "target", "", *(["by wall time"] if wall else ())):
        made.add_column(column, justify="right", no_wrap=True)
    for n, (line, other) in enumerate(pairs):
        s, met = line.spread, {None: "", True: "[green]pass[/]", False: "[bold red]miss[/]"}[line.met]
        fraction = line.fraction + (f" ({line.aside})" if line.aside else "")
        numbers = [line.number(v) for v in (s.median, s.low, s.high)]
        last = n + 1 == len(pairs) or _subject(pairs[n + 1][0]) != _subject(line)
        walls = [_wall(other)] if wall else ()
        made.add_row(line.what, fraction, *numbers, str(s.rounds), line.target, met, *walls, end_section=last)
    return made


def plain(line: Line, other: Line | None) -> dict[str, Any]:
    """A line as data for a file."""
    return {**asdict(line), "met": line.met, "wall": None if other is None else asdict(other.spread)}


def _subject(line: Line) -> str:
    return line.what.partition(",")[0]


def _wall(line: Line | None) -> str:
    if line is None or line.spread.rounds == 1:  # an error, not a time
        return ""
    s = line.spread
    return f"{line.number(s.median)} ({line.number(s.low)}-{line.number(s.high)})"
