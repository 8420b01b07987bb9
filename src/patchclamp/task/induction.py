"""Induction: a random sequence begins again, and goes on as it did before.

Olsson et al. 2022, "In-context learning and induction heads": find the earlier copy of this token, and say what followed it.
Random tokens leave nothing else to go by. The sequence is words for models that read text, and ids for those that do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from patchclamp.core.errors import WrongPrompt
from patchclamp.core.pair import Pair, Stretch, Word
from patchclamp.task.template import known
from patchclamp.task.words import ARGUMENTS, FILLERS

CORRUPTIONS = ("answer", "copy")
WORDS = FILLERS + ARGUMENTS


def induction(
    rng: Random, length: int = 10, vocab: Sequence[Word] = WORDS, corruption: str = "answer", bos: int | None = None
) -> Iterator[Pair]:
    """`A B C D E A B C` -> `D`: `length` different tokens, and then their beginning again, cut at any of them.

    In `corrupt`, by `corruption`: "answer", another token stands in its place in the first copy, and is then right; "copy",
    the whole first copy is of other tokens, so that there is nothing to copy. `vocab` are words, or ids (`range(5, 50)`) for
    pairs of ids, which begin with `bos` where one is given. A text begins with a space, so that its first word is the same
    token as when it comes again. Roles: earlier (the first copy of the last token), answer (the token after it).

    >>> pair = next(induction(Random(0), length=4, vocab=range(100), bos=0))
    >>> pair.clean, pair.answers
    ((0, 50, 98, 54, 6, 50, 98), (54,))
    """
    known("corruption", corruption, CORRUPTIONS)
    kinds = {type(token) for token in vocab}
    if kinds not in ({str}, {int}):
        raise WrongPrompt(
            f"vocab is a list of words or one of ids, not of {' and '.join(sorted(k.__name__ for k in kinds)) or 'nothing'}."
        )
    if bos is not None and str in kinds:
        raise WrongPrompt(
            "a tokenizer puts the beginning-of-sequence token before a text by itself; leave bos to sequences of ids."
        )
    tokens = [token for token in dict.fromkeys(vocab) if token != bos]
    if length < 2 or len(tokens) < 2 * length:
        raise WrongPrompt(
            f"length is 2 or more, and takes twice as many different tokens: {length} of {len(tokens)} cannot be drawn."
        )
    while True:
        drawn = rng.sample(tokens, 2 * length)
        first, others = drawn[:length], drawn[length:]
        cut = rng.randint(1, length - 1)
        changed = others if corruption == "copy" else [*first[:cut], others[cut], *first[cut + 1 :]]
        (clean, where), (corrupt, there) = (_sequence([*copy, *first[:cut]], bos) for copy in (first, changed))
        wrongs = dict.fromkeys([changed[cut], *(token for token in first if token != first[cut])])
        spaced = [f" {token}" if isinstance(token, str) else token for token in (first[cut], *wrongs)]
        roles, corrupt_roles = ({"earlier": at[cut - 1], "answer": at[cut]} for at in (where, there))
        yield Pair(clean, corrupt, tuple(spaced[:1]), tuple(spaced[1:]), roles, corrupt_roles, f"{length} tokens")


def _sequence(tokens: Sequence[Word], bos: int | None) -> tuple[str | tuple[int, ...], list[Stretch]]:
    """A prompt, and where each of its tokens stands."""
    ids = [token for token in tokens if isinstance(token, int)]
    if ids:
        lead = () if bos is None else (bos,)
        return (*lead, *ids), [(i + len(lead), i + len(lead) + 1) for i in range(len(ids))]
    text, where = "", []
    for word in tokens:
        where.append((len(text) + 1, len(text) + 1 + len(str(word))))
        text += f" {word}"
    return text, where
