"""Errors a user can act on: each names the place, what was found there, and the cure.

Everything raised for a user's mistake is a `PatchclampError`, so the command line prints its message and no stack trace.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PatchclampError(Exception):
    """A mistake that the message explains. The class name is part of the message.

    >>> try:
    ...     model.run(clean, keep="blocks.0.attn.patern")
    ... except pc.PatchclampError as error:
    ...     print(str(error).partition(" Beside")[0])
    UnknownSite: no site "blocks.0.attn.patern" in specimen:town. Did you mean "blocks.0.attn.pattern"?
    """

    def __str__(self) -> str:
        return f"{type(self).__name__}: {super().__str__()}"


class UnknownSite(PatchclampError):
    """A site string that is not in the grammar, or names no place of this model."""


class Unserved(PatchclampError):
    """A place that exists in the grammar but that this model cannot serve, with the reason."""


class NeverFired(PatchclampError):
    """A forward pass ended without passing a place that was to be kept or changed."""


class ShapeMismatch(PatchclampError):
    """A tensor that does not fit the place it was meant for."""


class WrongAxis(PatchclampError):
    """An axis that a site or a grid does not have, or an index outside it."""


class WrongToken(PatchclampError):
    """A token that is no token, or several."""


class WrongPrompt(PatchclampError):
    """A prompt this model cannot read: too long, empty, of the wrong kind, or not comparable with another."""


class NotAModel(PatchclampError):
    """A folder, name or object that is no model we can open."""


class UnsafeWeights(PatchclampError):
    """Weights in a format that can run code while loading."""


class NotKept(PatchclampError):
    """A value asked of a run that did not keep it."""


class NotSaved(PatchclampError):
    """Something that cannot be written to, or read from, a folder."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """` Did you mean "..."?` with the nearest option, or nothing.

    >>> did_you_mean("patern", ["pattern", "scores"])
    ' Did you mean "pattern"?'
    """
    known = list(options)
    near = [o for o in known if o.lower() == word.lower()] or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
