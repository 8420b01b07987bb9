"""The shelf: every paper by its name, opened when it is asked for."""

from __future__ import annotations

from importlib import import_module

from patchclamp.core.errors import did_you_mean
from patchclamp.papers.claims import Paper, UnknownPaper

PAPERS = {"circuits": "circuits", "framework": "framework"}
"""Each name, and the file that holds the paper."""


def paper(name: str) -> Paper:
    """Open a paper.

    >>> from patchclamp.papers.shelf import paper
    >>> paper("circuits").title
    'Finding circuits that are known'
    """
    if name not in PAPERS:
        raise UnknownPaper(f'there is no paper "{name}" here; there is {", ".join(PAPERS)}.{did_you_mean(name, PAPERS)}')
    return import_module(f"patchclamp.papers.{PAPERS[name]}").PAPER
