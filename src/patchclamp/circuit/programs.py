"""Programs with a known circuit: reverse, histogram, sort, fraction of previous, duplicates, brackets, most frequent.

The first seven are those by which Weiss et al. 2021 and Lindner et al. 2023 (Tracr) show what a transformer can compute; each
is a few lines of the language in `rasp.py`, with an oracle in plain Python beside it. They differ in what has to be found:
`histogram` is one head and one feed-forward layer, `dyck2` six blocks; `reverse` computes with places alone before it looks
at any token, which no patching between prompts of one length can see.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence

from patchclamp.circuit.rasp import (
    Look,
    Map,
    Program,
    aggregate,
    anything,
    constant,
    everywhere,
    indices,
    map,
    mean,
    select,
    selector_width,
    tokens,
)


def reverse(vocab: Sequence[Hashable] = "abc", length: int = 5) -> Program:
    """The sequence backwards.

    >>> from patchclamp.circuit.programs import reverse
    >>> reverse()("abbc")
    ['c', 'b', 'b', 'a']
    """
    count = selector_width(everywhere(), name="length")
    mirror = map(lambda n, i: max(n - 1 - i, 0), count, indices, name="mirror")
    output = aggregate(select(indices, mirror), tokens, name="token at mirror")
    return Program("reverse", output, tuple(vocab), length, lambda s: list(reversed(s)))


def histogram(vocab: Sequence[Hashable] = "abc", length: int = 5) -> Program:
    """How often each token occurs in the sequence."""
    return Program("histogram", _count(), tuple(vocab), length, lambda s: [s.count(t) for t in s])


def _count() -> Map:
    return selector_width(select(tokens, tokens), name="count")


def sort(vocab: Sequence[Hashable] = "abc", length: int = 5) -> Program:
    """The tokens in order; equal ones keep theirs."""
    tagged = map(lambda t, i: (t, i), tokens, indices, name="token and place")
    rank = selector_width(select(tagged, tagged, lambda key, query: key < query), name="rank")
    return Program("sort", aggregate(select(rank, indices), tokens, name="token of this rank"), tuple(vocab), length, sorted)


def fraction_of_previous(token: Hashable = "a", vocab: Sequence[Hashable] = "abc", length: int = 5) -> Program:
    """The share of one token among those up to here: a number."""
    hit = map(lambda t: int(t == token), tokens, name=f"is {token}")
    output = mean(select(indices, indices, _up_to), hit, name=f"share of {token}")
    return Program(
        "fraction of previous", output, tuple(vocab), length,
        lambda s: [s[: i + 1].count(token) / (i + 1) for i in range(len(s))],
    )  # fmt: skip


def _up_to(key: int, query: int) -> bool:
    return key <= query


def deduplicate(vocab: Sequence[Hashable] = "abc", length: int = 5, mark: Hashable = "_") -> Program:
    """The first occurrence of each token, with later ones struck out."""
    earlier = select(indices, indices, lambda key, query: key < query)
    seen = selector_width(select(tokens, tokens) & earlier, name="seen before")
    output = map(lambda t, n: mark if n else t, tokens, seen, name="first occurrences")
    return Program(
        "deduplicate", output, tuple(vocab), length, lambda s: [mark if t in s[:i] else t for i, t in enumerate(s)]
    )  # fmt: skip


def most_frequent(vocab: Sequence[Hashable] = "abc", length: int = 5) -> Program:
    """The token that occurs most often; of several, the first in order. The same answer at every token."""
    order = map(lambda n, t: (-n, t), _count(), tokens, name="count and token")
    beaten = selector_width(select(order, order, lambda key, query: key < query), name="beaten by")
    output = aggregate(select(beaten, constant(0)), tokens, name="token beaten by none")
    return Program(
        "most frequent", output, tuple(vocab), length, lambda s: [min(set(s), key=lambda t: (-s.count(t), t))] * len(s)
    )  # fmt: skip


def dyck1(brackets: str = "()", length: int = 6) -> Program:
    """Whether brackets of one kind are balanced. The same answer at every token.

    No token may have more closed than opened up to it, and in the end both must be as many.

    >>> from patchclamp.circuit.programs import dyck1
    >>> dyck1()("(())")[0], dyck1()("())(")[0]
    (True, False)
    """
    opened, closed = _opened(brackets[::2]), _opened(brackets[1::2], "closed")
    below = map(lambda o, c: int(c > o), opened, closed, name="below zero")
    never = map(lambda share: share == 0, mean(everywhere(), below), name="never below zero")
    output = map(lambda a, b: a and b, never, _level(brackets), name="balanced")
    return Program("Dyck-1", output, tuple(brackets), length, lambda s: [balanced(s, brackets)] * len(s), _brackets)


def dyck2(brackets: str = "()[]", length: int = 6) -> Program:
    """Whether brackets of two kinds are balanced and close each other. The same answer at every token.

    A bracket and the one that closes it lie at the same depth, with nothing else at that depth between them: so each
    closing bracket looks for the bracket before it at its depth (Weiss et al. 2021, section 5).
    """
    closes = dict(zip(brackets[1::2], brackets[::2]))
    opened, closed = _opened(brackets[::2]), _opened(brackets[1::2], "closed")
    depth = map(lambda o, c, t: max(o - c + (t in closes), 0), opened, closed, tokens, name="depth")
    same, before = select(depth, depth), select(indices, indices, _up_to)
    turn = selector_width(same & before, name="turn at this depth")
    partner = aggregate(same & select(turn, turn, lambda key, query: key == query - 1), tokens, name="partner")
    wrong = map(lambda t, p: int(t in closes and p != closes[t]), tokens, partner, name="wrong partner")
    none = map(lambda share: share == 0, mean(everywhere(), wrong), name="no wrong partner")
    output = map(lambda a, b: a and b, none, _level(brackets), name="balanced")
    return Program("Dyck-2", output, tuple(brackets), length, lambda s: [balanced(s, brackets)] * len(s), _brackets)


def _opened(kinds: str, name: str = "opened") -> Map:
    before = select(indices, indices, _up_to)
    return selector_width(before & select(tokens, constant(kinds), lambda key, query: key in query), name=name)


def _level(brackets: str) -> Map:
    step: Look = mean(everywhere(), map(lambda t: 1 if t in brackets[::2] else -1, tokens, name="up or down"))
    return map(lambda average: average == 0, step, name="ends at zero")


def balanced(sequence: Sequence[Hashable], brackets: str) -> bool:
    """Whether every bracket is closed by its own kind, in the right order, by a stack."""
    closes: dict[Hashable, str] = dict(zip(brackets[1::2], brackets[::2]))
    stack: list[Hashable] = []
    for t in sequence:
        if t not in closes:
            stack.append(t)
        elif not stack or stack.pop() != closes[t]:
            return False
    return not stack


def _brackets(draw: random.Random, vocab: Sequence[Hashable], length: int) -> tuple[Hashable, ...]:
    """A balanced sequence, half of the time with one bracket changed; of odd length, any brackets."""
    if length % 2:
        return anything(draw, vocab, length)
    stack: list[Hashable] = []
    made: list[Hashable] = []
    while len(made) < length:
        if stack and (len(stack) == length - len(made) or draw.random() < 0.5):
            made.append(stack.pop())
        else:
            kind = 2 * draw.randrange(len(vocab) // 2)
            made.append(vocab[kind])
            stack.append(vocab[kind + 1])
    if draw.random() < 0.5:
        made[draw.randrange(length)] = draw.choice(vocab)
    return tuple(made)


PROGRAMS = (reverse, histogram, sort, fraction_of_previous, deduplicate, most_frequent, dyck1, dyck2)
"""All of them, with defaults small enough to check every sequence."""
