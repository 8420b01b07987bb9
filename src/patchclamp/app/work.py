"""Long work in the shell: what is finished is kept, Ctrl-C loses nothing, and the same command goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patchclamp.core.journal import digest, keeping

STOPPED = 130
"""The exit status of a command that was stopped by hand."""


@contextmanager
def resumable(folder: Path | None, out: Path, card: Mapping[str, Any]) -> Iterator[None]:
    """Keep finished answers in a folder; without one, beside the report for as long as the work takes."""
    place = folder or out.with_name(f"{out.stem}.{digest(sorted(card.items()))[:8]}.part")
    count = 0
    try:
        with keeping(place, card, lasting=folder is not None) as journal:
            if journal.begun:
                say(f"Going on from what is finished in {place}.")
            try:
                yield
            finally:
                count = journal.count
    except KeyboardInterrupt:
        kept = f"{count} finished answers are kept; go on with --resume {place}" if count else "nothing was finished yet"
        say(f"Stopped: {kept}.")
        sys.exit(STOPPED)


def say(*lines: str) -> None:
    """A word to whoever waits, beside the output."""
    for line in lines:
        print(line, file=sys.stderr)
