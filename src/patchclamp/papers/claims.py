"""Paper: a list of claims. What they said, how it is measured here, what came out, and whether that holds.

A claim has a mark that its value must meet, and a control that must not meet it: whatever passes for the control as well
proves nothing. `Paper.reproduce` measures one claim after the other and writes each down as soon as it is known, so that
what was interrupted goes on where it was; the report shows itself like any other noun.

What a verdict does not say: that a paper is wrong. Models here are small, and what is measured is what the claim says of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from patchclamp.core.errors import NotSaved, PatchclampError, did_you_mean
from patchclamp.core.progress import progress
from patchclamp.picture import Page, Section, Table

VERSION = 1


class UnknownPaper(PatchclampError):
    """A paper or a claim that there is not."""


@dataclass(frozen=True)
class Asked:
    """How thoroughly to measure."""

    quick: bool = False
    """Fewer models, shorter searches: a look within a minute, not the result."""
    seeds: int = 3


@dataclass(frozen=True)
class Mark:
    """What a value must be: from `low` to `high`.

    >>> str(Mark(low=0.99)), str(Mark(0.45, 0.55)), Mark(high=0.3).met(0.4)
    ('≥ 0.99', '0.45 to 0.55', False)
    """

    low: float = float("-inf")
    high: float = float("inf")

    def met(self, value: float) -> bool:
        """Whether a value is as it must be; what is not a number is not."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.low > float("-inf") and self.high < float("inf"):
            return f"{self.low:g} to {self.high:g}"
        return f"≥ {self.low:g}" if self.high == float("inf") else f"≤ {self.high:g}"


@dataclass(frozen=True)
class Measured:
    """What a measure found."""

    value: float
    control: float
    """The same for the control, which must miss the mark."""
    said: str = ""
    """The value with its circumstances: median and worst, of how many."""
    control_said: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str | float | int | None, ...], ...] = ()
    """Case by case, for who wants to see."""


@dataclass(frozen=True, eq=False)
class Claim:
    """What somebody said, and a function that measures it. Made by `claim`."""

    name: str
    statement: str
    source: str
    mark: Mark
    measure: Callable[[Asked], Measured]
    control: str
    """What the control is."""

    @property
    def how(self) -> str:
        """How it is measured."""
        return " ".join((self.measure.__doc__ or "").split())


def claim(statement: str, *, source: str, mark: Mark, control: str) -> Callable[[Callable[[Asked], Measured]], Claim]:
    """Make a claim of a function that measures it; the function's name is the claim's, its docstring says how.

    >>> @claim("Two and two are four.", source="Peano 1889", mark=Mark(4, 4), control="two and one")
    ... def sum_of_two(asked):
    ...     '''By adding.'''
    ...     return Measured(2 + 2, 2 + 1)
    >>> sum_of_two.name, sum_of_two.how
    ('sum of two', 'By adding.')
    """

    def made(measure: Callable[[Asked], Measured]) -> Claim:
        return Claim(measure.__name__.replace("_", " "), statement, source, mark, measure, control)

    return made


@dataclass(frozen=True)
class Result:
    """A claim that was measured."""

    claim: str
    holds: bool
    measured: Measured
    seconds: float


@dataclass(frozen=True, eq=False)
class Paper:
    """A title and its claims.

    >>> @claim("Two and two are four.", source="Peano 1889", mark=Mark(4, 4), control="two and one")
    ... def sum_of_two(asked):
    ...     return Measured(2 + 2, 2 + 1)
    >>> Paper("sums", "On sums", "Peano 1889", (sum_of_two,)).reproduce().verdicts
    {'sum of two': 'holds'}
    """

    name: str
    title: str
    source: str
    claims: tuple[Claim, ...]

    def __getitem__(self, name: str) -> Claim:
        known = {c.name: c for c in self.claims}
        if name not in known:
            raise UnknownPaper(f'"{self.title}" makes no claim "{name}".{did_you_mean(name, known)}')
        return known[name]

    def reproduce(self, *, quick: bool = False, seeds: int = 3, store: str | Path | None = None,
                  only: Iterable[str] = ()) -> Report:  # fmt: skip
        """Measure every claim, or `only` some, and report.

        With `store`, a JSON file, each result is written as soon as it is known, and results found there are not measured
        again; they must have been measured in the same way. Ctrl-C gives the report of what is done.
        """
        asked, wanted = Asked(quick, seeds), [self[name] for name in only] or list(self.claims)
        done = {} if store is None else _read(Path(store), self, asked)
        report = Report(self, asked, done)
        try:
            for each in progress(wanted, label=f"claims of {self.name}"):
                if each.name in report.results:
                    continue
                began = time.perf_counter()
                measured = each.measure(asked)
                holds = each.mark.met(measured.value) and not each.mark.met(measured.control)
                result = Result(each.name, holds, measured, time.perf_counter() - began)
                report = replace(report, results={**report.results, each.name: result})
                if store is not None:
                    report.save(store)
        except KeyboardInterrupt:
            return replace(report, interrupted=True)
        return report

    def picture(self) -> Table:
        """What is claimed."""
        rows = tuple((c.name, c.statement, c.source, str(c.mark), c.control) for c in self.claims)
        return Table(("claim", "what they said", "source", "mark", "control"), rows, title=self.title)

    def show(self) -> None:
        """List the claims."""
        self.picture().show()


@dataclass(frozen=True, eq=False)
class Report:
    """What came out: a result for each claim that was measured."""

    paper: Paper
    asked: Asked
    results: Mapping[str, Result] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def verdicts(self) -> dict[str, str]:
        """Claim -> `holds`, `fails` or `not run`."""
        words = {None: "not run", True: "holds", False: "fails"}
        return {c.name: words[self.results[c.name].holds if c.name in self.results else None] for c in self.paper.claims}

    def __repr__(self) -> str:
        return f"Report({self.paper.name}: {', '.join(f'{n} {word}' for word, n in self._counts())})"

    def picture(self) -> Page:
        """Claim, what they said, what came out, verdict; and each claim's cases."""
        how = "quick" if self.asked.quick else f"{self.asked.seeds} seed{'' if self.asked.seeds == 1 else 's'}"
        facts = {"measured": how, "verdicts": ", ".join(f"{n} {w}" for w, n in self._counts()), "source": self.paper.source}
        first = Section("Claims", pictures=(self.table(),))
        return Page(self.paper.title, facts=facts, sections=(first, *map(self._section, self.paper.claims)))

    def table(self) -> Table:
        """One row a claim."""
        rows = []
        for c in self.paper.claims:
            found = self.results.get(c.name)
            got = ("", "") if found is None else (_told(found.measured.value, found.measured.said),
                                                  _told(found.measured.control, found.measured.control_said))  # fmt: skip
            rows.append((c.statement, str(c.mark), *got, self.verdicts[c.name]))
        return Table(("what they said", "mark", "what came out", "control", "verdict"), tuple(rows))

    def _counts(self) -> list[tuple[str, int]]:
        said = list(self.verdicts.values())
        return [(word, said.count(word)) for word in ("holds", "fails", "not run") if word in said]

    def _section(self, c: Claim) -> Section:
        found, mark = self.results.get(c.name), str(c.mark)
        how = f"{c.statement} {c.how} Mark: {mark}. Control: {c.control}. Source: {c.source}."
        if found is None:
            return Section(c.name, how, left_out="not run", folded=True)
        cases = (Table(found.measured.columns, found.measured.rows, digits=3),) if found.measured.rows else ()
        return Section(f"{c.name}: {self.verdicts[c.name]}", f"{how} {found.seconds:.1f} seconds.", cases, folded=True)

    def summary(self) -> Table:
        """One short row a claim."""
        rows = []
        for c in self.paper.claims:
            found = self.results.get(c.name)
            numbers = (None, None) if found is None else (found.measured.value, found.measured.control)
            rows.append((c.name, self.verdicts[c.name], str(c.mark), *numbers))
        told = ", ".join(f"{n} {word}" for word, n in self._counts())
        return Table(("claim", "verdict", "mark", "value", "control"), tuple(rows), 3, f"{self.paper.title}: {told}")

    def show(self) -> None:
        """Draw the summary in the terminal or notebook."""
        self.summary().show()

    def html(self) -> str:
        """One self-contained HTML page, with every case."""
        return self.picture().html()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()

    def json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "paper": self.paper.name, "version": VERSION, "asked": asdict(self.asked),
            "claims": {
                c.name: {
                    "statement": c.statement, "source": c.source, "mark": str(c.mark), "control": c.control, "how": c.how,
                    "verdict": self.verdicts[c.name], "result": _plain(self.results.get(c.name)),
                }
                for c in self.paper.claims
            },
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write as JSON; the file is whole at every moment."""
        path = Path(path)
        fresh = path.with_name(path.name + ".new")
        try:
            fresh.write_text(json.dumps(self.json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            raise NotSaved(f"{path} could not be written ({error.strerror}); name another file.") from None
        return path


def _told(value: float, said: str) -> str:
    return said or f"{value:.3g}"


def _plain(result: Result | None) -> dict[str, Any] | None:
    return None if result is None else asdict(result)


def _read(path: Path, paper: Paper, asked: Asked) -> dict[str, Result]:
    """The results of an earlier run; an error where they are of another paper or were measured otherwise."""
    if not path.exists():
        return {}
    cure = "Name another file, or remove this one."
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        of, version, how = said["paper"], said["version"], said["asked"]
        results = {name: _result(c["result"]) for name, c in said["claims"].items() if c["result"] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotSaved(f"{path} holds no results that can be read ({type(error).__name__}: {error}). {cure}") from None
    if (of, version) != (paper.name, VERSION):
        raise NotSaved(f"{path} holds results of {of}, version {version}; wanted are {paper.name}, version {VERSION}. {cure}")
    if how != asdict(asked):
        said, wanted = _options(how), _options(asdict(asked))
        raise NotSaved(f"{path} holds results that were measured with {said}, not with {wanted}. {cure}")
    return {name: result for name, result in results.items() if name in {c.name for c in paper.claims}}


def _result(said: Mapping[str, Any]) -> Result:
    measured = said["measured"]
    rows: Sequence[Sequence[Any]] = measured["rows"]
    told = {**measured, "columns": tuple(measured["columns"]), "rows": tuple(map(tuple, rows))}
    return Result(said["claim"], said["holds"], Measured(**told), said["seconds"])


def _options(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in asked.items())
