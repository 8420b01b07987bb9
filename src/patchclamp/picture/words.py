"""Words and numbers as a reader wants to see them: invisible characters made visible, numbers short and aligned.

A token may be a space, half an emoji or a mark that turns the line around. A label shows what is there: marks stand for
characters without a shape. Both the terminal and the page write their words with this file, so they agree.
"""

from __future__ import annotations

import math
import unicodedata
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Part of a label. A `mark` stands for something invisible and is drawn in a subdued colour."""

    text: str
    mark: bool = False


_MARKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽", "\u3000": "□"}
_FIGURE_SPACE, _POINT_SPACE = "\u2007", "\u2008"  # as wide as a digit, as wide as a point
MISSING = "–"


def pieces(text: str) -> list[Piece]:
    """A label in visible pieces.

    A space inside words stays a space; leading, trailing and repeated ones become dots, a token of spaces only becomes
    open boxes. Control, formatting and direction marks are written as their code points.

    >>> [piece.text for piece in pieces(" John\\n")]
    ['·', 'John', '↵']
    """
    if text and not text.strip(" "):
        return [Piece("␣" * len(text) if len(text) <= 4 else f"␣×{len(text)}", mark=True)]
    parts: list[Piece] = []
    for at, char in enumerate(text):
        shown = _mark(char, inside=_within(text, at))
        piece = Piece(char) if shown is None else Piece(shown, mark=True)
        if parts and parts[-1].mark == piece.mark:
            parts[-1] = Piece(parts[-1].text + piece.text, piece.mark)
        else:
            parts.append(piece)
    # An accent with nothing below it would settle on the neighbouring word.
    if parts and not parts[0].mark and unicodedata.combining(parts[0].text[0]):
        parts[0] = Piece("◌" + parts[0].text)
    return parts


def _within(text: str, at: int) -> bool:
    """Whether the character stands alone between two characters that have a shape, as a space between words does."""
    return 0 < at < len(text) - 1 and not text[at - 1].isspace() and not text[at + 1].isspace()


def _mark(char: str, inside: bool) -> str | None:
    if char == " " and inside:
        return None
    if char in _MARKS:
        return _MARKS[char]
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"):
        return f"‹{ord(char):04X}›"
    return None


def visible(text: str) -> str:
    """The label as one plain string."""
    return "".join(piece.text for piece in pieces(text))


def prose(text: str) -> str:
    """Running text without what no page or terminal should be given: controls, half characters, reversed writing.

    >>> prose("a\\nb\\x1b[31m")
    'a\\nb\ufffd[31m'
    """
    return "".join("\ufffd" if _harmful(char) else char for char in text)


def _harmful(char: str) -> bool:
    return char not in "\n\t" and (unicodedata.category(char) in ("Cc", "Cs") or char in "\u202d\u202e")


def number(value: object, digits: int = 4) -> str:
    """A number with at most `digits` significant digits, without trailing zeros, with a true minus sign.

    >>> number(-0.30000000004), number(0.00001), number(1234567.8), number(float("nan")), number(3.2e-9)
    ('−0.3', '0.00001', '1234568', '–', '3.2×10⁻⁹')
    """
    if value is None:
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return str(value).replace("-", "−")
    if not isinstance(value, (float, np.floating)):
        return visible(str(value))
    size = abs(float(value))
    if math.isnan(size):
        return MISSING
    if math.isinf(size):
        written = "∞"
    elif size == 0 or 1e-6 <= size < 1e7:
        written = _trimmed(f"{size:.{decimals(size, digits)}f}")
    else:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        written = f"{_trimmed(mantissa)}×10{_raised(int(exponent))}"
    return "−" + written if value < 0 and written != "0" else written


def decimals(size: float, digits: int) -> int:
    """How many decimals show `digits` significant digits of a number of this size."""
    return 0 if size == 0 else max(0, digits - 1 - math.floor(math.log10(size)))


def _trimmed(written: str) -> str:
    return written.rstrip("0").rstrip(".") if "." in written else written


def _raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def cells(values: np.ndarray) -> list[str]:
    """Numbers for the cells of one matrix: equal decimals, about five characters at most.

    >>> cells(np.array([0.123, -0.9, 0.001, np.nan])), cells(np.array([12.34, -1.0]))
    (['0.12', '−0.90', '0', '–'], ['12.3', '−1.0'])
    """
    flat = np.asarray(values, dtype=float).ravel()
    top = float(np.abs(flat[np.isfinite(flat)]).max(initial=0.0))
    if not 1e-3 <= top < 1e5:
        return [number(value, 2) for value in flat]
    places = decimals(top, 2 if top < 1 else 3)
    return [_fixed(value, places) if math.isfinite(value) else number(value) for value in flat.tolist()]


def _fixed(value: float, places: int) -> str:
    written = f"{abs(value):.{places}f}"
    if not float(written):
        return "0"
    return "−" + written if value < 0 else written


def beside(values: np.ndarray) -> list[str]:
    """Numbers beside marks of one scale: three significant digits, but nothing far below what can be seen.

    >>> [text.strip(chr(0x2007)) for text in beside(np.array([24.81, -0.3333, 1e-9]))]
    ['24.8', '−0.333', '0\u2008']
    """
    flat = np.asarray(values, dtype=float)
    top = float(np.abs(flat[np.isfinite(flat)]).max(initial=0.0))
    places = decimals(top, 3) + 2
    return column([round(value, places) if math.isfinite(value) else value for value in flat.tolist()], 3)


def column(values: tuple[object, ...] | list[object], digits: int = 4) -> list[str]:
    """Numbers of one table column, padded on the right so that their points stand below each other.

    >>> [text.replace(chr(0x2007), "_").replace(chr(0x2008), ",") for text in column([0.6812, 12.5, 3])]
    ['0.6812', '12.5___', '3,____']
    """
    written = [number(value, digits) for value in values]
    plain = [
        isinstance(value, (int, float, np.number)) and text[-1:].isdigit() and "×" not in text
        for value, text in zip(values, written)
    ]
    room = max((len(text.partition(".")[2]) for text, flag in zip(written, plain) if flag), default=0)
    return [_padded(text, room) if flag else text for text, flag in zip(written, plain)]


def _padded(written: str, room: int) -> str:
    whole, point, tail = written.partition(".")
    return whole + (point or _POINT_SPACE * (room > 0)) + tail + _FIGURE_SPACE * (room - len(tail))
