"""HTML built so that a token can never become markup.

`Html` is text known to be markup. Everything else that goes into `tag` is escaped, so forgetting to escape is not
possible; only this file and literals in this folder make `Html`.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

import numpy as np

from patchclamp.picture import words

if TYPE_CHECKING:
    from collections.abc import Iterable


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


_VOID = ("img", "br", "meta", "link")


def tag(element: str, /, *children: object, **attributes: object) -> Html:
    """One element. Children are escaped unless they are Html, attributes always; None and False leave one out.

    A trailing underscore keeps `class_` from being a Python keyword, other underscores become hyphens.

    >>> tag("td", "<script>", class_="q3", title='"', hidden=True, colspan=None)
    '<td class="q3" title="&quot;" hidden>&lt;script&gt;</td>'
    """
    opening = "".join(_attribute(key, value) for key, value in attributes.items())
    if element in _VOID:
        return Html(f"<{element}{opening}>")
    return Html(f"<{element}{opening}>{join(children)}</{element}>")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escape(str(value))}"'


def join(children: Iterable[object]) -> Html:
    """Pieces one after another; None is nothing."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children if child is not None))


def escape(text: str) -> Html:
    """Text as it must stand in markup and in quoted attributes."""
    return Html(html.escape(words.prose(text), quote=True))


def label(text: str) -> Html:
    """A label or token with its invisible characters shown as subdued marks."""
    pieces = words.pieces(text)
    # A token that is nothing but marks must be read; beside letters a mark may stand back.
    kind = "mark" if any(not piece.mark for piece in pieces) else "mark alone"
    return join(tag("i", piece.text, class_=kind) if piece.mark else piece.text for piece in pieces)


def shown(text: str) -> Html:
    """A token where an empty one must leave a trace."""
    return label(text) if text else tag("i", "∅", class_="mark alone")


def name(text: str, **attributes: object) -> Html:
    """A label on its own: kept apart from its neighbours' writing direction, its whole text in the tooltip."""
    whole = words.visible(text)
    return tag("bdi", label(text), title=whole if len(whole) > 12 else None, **attributes)


def data(value: object) -> Html:
    """Numbers and words for the script, in a block that the browser neither runs nor shows."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    # "<" is the only character that could end the block early (or open a comment in it).
    return Html(f'<script type="application/json">{text.replace("<", chr(92) + "u003c")}</script>')


def rounded(values: np.ndarray, digits: int = 4) -> list:
    """A matrix as nested lists of short numbers for `data`; None where there is no number.

    >>> rounded(np.array([[0.123456, 1.0], [np.nan, 0.0]]))
    [[0.1235, 1], [None, 0]]
    """
    if values.ndim > 1:
        return [rounded(row, digits) for row in values]
    return [_short(value, digits) for value in np.asarray(values, dtype=float).tolist()]


def _short(value: float, digits: int) -> float | int | None:
    if not np.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short
