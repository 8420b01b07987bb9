"""What `patchclamp reproduce` does: a paper's claims measured one by one, each kept as soon as it is known."""

from __future__ import annotations

from pathlib import Path

from patchclamp.core.errors import PatchclampError
from patchclamp.papers.claims import Paper, Report
from patchclamp.papers.shelf import PAPERS, paper
from patchclamp.picture import Table


class Wrong(PatchclampError):
    """An option that makes no sense."""


def listed(name: str = "") -> Table:
    """The papers there are; or the claims of one."""
    if name:
        return paper(name).picture()
    rows = tuple((each, paper(each).title, len(paper(each).claims), paper(each).source) for each in PAPERS)
    return Table(("paper", "title", "claims", "source"), rows, title="What can be reproduced")


def opened(name: str, seeds: int) -> Paper:
    """The paper, after a look at the options."""
    if seeds < 1:
        raise Wrong(f"--seeds is how many seeds each measure is taken with, one or more; got {seeds}.")
    return paper(name)


def reproduce(asked: Paper, out: Path, quick: bool, seeds: int, fresh: bool) -> Report:
    """Measure, the results lying beside the page that will be written; those that lie there already are not measured again."""
    store = kept(out)
    if fresh:
        store.unlink(missing_ok=True)
    return asked.reproduce(quick=quick, seeds=seeds, store=store)


def kept(out: Path) -> Path:
    """Where the results lie."""
    if out.suffix == ".json":
        raise Wrong(f"--out names the page, and the results lie beside it as JSON; name it {out.with_suffix('.html')}.")
    return out.with_suffix(".json")
