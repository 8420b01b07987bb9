"""Pictures inside notebooks. IPython is never imported: a notebook has it loaded already."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchclamp.picture.picture import Picture


def running() -> bool:
    """Whether a notebook's kernel runs this code, and so can show HTML; IPython in a terminal cannot."""
    shell = _shell()
    return shell is not None and hasattr(shell, "kernel")


def display(picture: Picture) -> None:
    """Draw below the running cell: as HTML, and as text where a notebook is read without it."""
    from patchclamp.picture import html, terminal

    shown = {"text/html": html.fragment(picture), "text/plain": terminal.text(picture, width=100)}
    sys.modules["IPython.display"].display(shown, raw=True)


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
