"""A little language for what attention and feed-forward layers can do, so that programs can be written in it.

A program is a variable: something that has a value at every token of a sequence. `tokens` and `indices` are given; `map`
computes with what is at one token; `select` says which tokens a token looks at, by comparing a key there with a query here;
`aggregate`, `mean` and `selector_width` bring together what is selected. Weiss et al. 2021, "Thinking Like Transformers".
Each has a part of a transformer that can do it: a map a feed-forward layer, whatever looks at other tokens an attention head.

`evaluate` runs a program in Python; `compile.py` turns it into weights. Values are of two sorts: one of finitely many things
(any that can be a key of a dictionary), or a number, which only `mean` makes and which keys and queries cannot be.
"""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from patchclamp.core.errors import Unserved, WrongPrompt, WrongToken, did_you_mean

NUMBERS = 512
"""How many different values a mean may take where a map reads it."""


@dataclass(frozen=True, eq=False)
class Given:
    """`tokens` or `indices`."""

    name: str


@dataclass(frozen=True, eq=False)
class Constant:
    """The same value at every token."""

    value: Hashable
    name: str = ""


@dataclass(frozen=True, eq=False)
class Map:
    """A function of what is at one token."""

    function: Callable[..., Any]
    arguments: tuple[Variable, ...]
    name: str = ""


@dataclass(frozen=True, eq=False)
class Match:
    """One comparison of a selector: `test(key, query)`."""

    keys: Variable
    queries: Variable
    test: Callable[[Any, Any], bool]


@dataclass(frozen=True, eq=False)
class Selector:
    """Which tokens each token looks at. `a & b` looks where both do."""

    matches: tuple[Match, ...]

    def __and__(self, other: Selector) -> Selector:
        return Selector(self.matches + other.matches)


@dataclass(frozen=True, eq=False)
class Look:
    """What a token gets from those it looks at."""

    selector: Selector
    values: Variable
    way: str
    """`copy`: the one value they have. `mean`: the average of their numbers. `share`: of n tokens n / (n + 1)."""
    default: Hashable = None
    """What `copy` gives where nothing is selected; the other two give 0."""
    name: str = ""


Variable = Given | Constant | Map | Look
tokens = Given("tokens")
indices = Given("indices")


def constant(value: Hashable) -> Constant:
    """A variable that is the same everywhere."""
    return Constant(value, f"{value}")


def select(keys: Variable, queries: Variable, test: Callable[[Any, Any], bool] = operator.eq) -> Selector:
    """Look at every token whose key passes `test(key, query)` with the query here; by default, where the two are equal.

    >>> from patchclamp.circuit.rasp import evaluate, indices, select, selector_width
    >>> evaluate(selector_width(select(indices, indices, lambda key, query: key < query)), "abc")
    [0, 1, 2]
    """
    for side, variable in (("keys", keys), ("queries", queries)):
        if is_number(variable):
            raise Unserved(
                f"the {side} of a selection are one of finitely many things; map the number {variable.name} to some first."
            )
    return Selector((Match(keys, queries, test),))


def everywhere() -> Selector:
    """Look at every token."""
    return select(constant(0), constant(0))


def aggregate(selector: Selector, values: Variable, default: Hashable = None, name: str = "") -> Look:
    """The value that the selected tokens have, all the same one; `default` where nothing is selected."""
    if is_number(values):
        raise Unserved(f"{values.name} is a number, and numbers are averaged: use mean instead of aggregate.")
    return Look(selector, values, "copy", default, name or f"{values.name} there")


def mean(selector: Selector, values: Variable, name: str = "") -> Look:
    """The average of the numbers that the selected tokens have; 0 where nothing is selected."""
    return Look(selector, values, "mean", 0, name or f"mean {values.name}")


def map(function: Callable[..., Any], *arguments: Variable, name: str = "") -> Map:
    """A function of one or several variables, token by token. A number can only be mapped by itself."""
    numbers = [a.name for a in arguments if is_number(a)]
    if numbers and len(arguments) > 1:
        raise Unserved(f"{numbers[0]} is a number, and a map of several variables takes none; map it by itself first.")
    if not arguments:
        raise Unserved("a map has at least one variable; for what is the same everywhere use constant.")
    return Map(function, arguments, name or "map")


def selector_width(selector: Selector, name: str = "") -> Map:
    """How many tokens are selected. An attention head makes n / (n + 1), and a feed-forward layer n of it."""
    share = Look(selector, constant(1), "share", 0, f"share of {name or 'width'}")
    return Map(_width, (share,), name or "width")


def _width(share: Fraction) -> int:
    return round(share / (1 - share))


def is_number(variable: Variable) -> bool:
    """Whether a variable is a number rather than one of finitely many things."""
    return isinstance(variable, Look) and variable.way != "copy"


def reads(variable: Variable) -> list[tuple[str, Variable]]:
    """What a variable is made from, each with the way it goes in: `q`, `k`, `v` of a head, `mlp` of a feed-forward layer."""
    if isinstance(variable, Map):
        return [("mlp", a) for a in variable.arguments]
    if not isinstance(variable, Look):
        return []
    sides = [side for m in variable.selector.matches for side in (("q", m.queries), ("k", m.keys))]
    return [*sides, ("v", variable.values)]


def varies(variable: Variable) -> bool:
    """Whether it depends on the tokens at all, and not just on how many there are."""
    return variable is tokens or any(varies(v) for _, v in reads(variable))


Instead = Callable[[Variable, str, Variable], "list[Any] | None"]
"""(reader, way in, what is read) -> other values to read, or None for those there are."""


def evaluate(variable: Variable, sequence: Iterable[Hashable], instead: Instead | None = None) -> list[Any]:
    """The value at every token of a sequence.

    `instead` may let one variable read other values of another than it has: an interchange (see `siit.py`).

    >>> from patchclamp.circuit.rasp import aggregate, evaluate, indices, map, select, tokens
    >>> before = map(lambda i: i - 1, indices)
    >>> evaluate(aggregate(select(indices, before), tokens, default="?"), "abc")
    ['?', 'a', 'b']
    """
    given = tuple(sequence)

    @cache
    def run(v: Variable) -> list[Any]:
        if isinstance(v, Given):
            return list(given if v is tokens else range(len(given)))
        if isinstance(v, Constant):
            return [v.value] * len(given)

        def ask(into: str, before: Variable) -> list[Any]:
            other = instead(v, into, before) if instead else None
            return run(before) if other is None else other

        if isinstance(v, Map):
            return [v.function(*row) for row in zip(*(ask("mlp", a) for a in v.arguments))]
        sides = [(ask("k", m.keys), ask("q", m.queries), m.test) for m in v.selector.matches]
        values, places = ask("v", v.values), range(len(given))
        return [_brought(v, i, [values[j] for j in places if all(t(k[j], q[i]) for k, q, t in sides)]) for i in places]

    return run(variable)


def _brought(look: Look, here: int, found: list[Any]) -> Any:
    if look.way == "share":
        return Fraction(len(found), len(found) + 1)
    if look.way == "mean":
        return sum(_number(look, v) for v in found) / Fraction(max(len(found), 1))
    if len(set(found)) > 1:
        raise Unserved(
            f"at token {here} {look.name} selects the values {found}, of which there can be one only; "
            "narrow the selection, or use mean for numbers."
        )
    return found[0] if found else look.default


def _number(look: Look, value: Any) -> Fraction:
    try:
        return Fraction(value)
    except (TypeError, ValueError):
        raise Unserved(
            f"{look.name} takes numbers; {look.values.name} has the value {value!r}. Map it to numbers first."
        ) from None


def domain(variable: Variable, vocab: Sequence[Hashable], length: int) -> tuple[Any, ...]:
    """Every value a variable may have, on sequences of up to `length` tokens of a vocabulary; some may never come about.

    >>> from patchclamp.circuit.rasp import domain, indices, map, tokens
    >>> domain(map(lambda t, i: t * i, tokens, indices), "ab", 3)
    ('', 'a', 'aa', 'b', 'bb')
    """

    @cache
    def run(v: Variable) -> tuple[Any, ...]:
        if isinstance(v, Given):
            return tuple(vocab if v is tokens else range(length))
        if isinstance(v, Constant):
            return (v.value,)
        if isinstance(v, Map):
            return tuple(dict.fromkeys(v.function(*row) for row in itertools.product(*(run(a) for a in v.arguments))))
        if v.way == "share":
            return tuple(Fraction(n, n + 1) for n in range(length + 1))
        return tuple(dict.fromkeys([*run(v.values), v.default])) if v.way == "copy" else _means(v, run(v.values), length)

    return run(variable)


def _means(look: Look, values: tuple[Any, ...], length: int) -> tuple[Fraction, ...]:
    """Every average of up to `length` of some values."""
    steps = [_number(look, v) for v in values]
    sums, found = {Fraction(0)}, {Fraction(0)}
    for n in range(1, length + 1):
        sums = {s + v for s in sums for v in steps}
        found |= {s / n for s in sums}
        if len(found) > NUMBERS:
            raise Unserved(f"{look.name} takes more than {NUMBERS} values, too many for a map to tell apart; average fewer.")
    return tuple(sorted(found))


def anything(draw: random.Random, vocab: Sequence[Hashable], length: int) -> tuple[Hashable, ...]:
    """A sequence of tokens drawn one by one."""
    return tuple(draw.choice(vocab) for _ in range(length))


@dataclass(frozen=True, eq=False)
class Program:
    """A variable to be computed, the sequences it is meant for, and what it should come to.

    >>> from patchclamp.circuit.programs import histogram
    >>> histogram()("abba")
    [2, 2, 2, 2]
    """

    name: str
    output: Variable
    vocab: tuple[Hashable, ...]
    length: int
    """The longest sequence."""
    oracle: Callable[[tuple[Any, ...]], list[Any]]
    """The same said in plain Python, by which the program is checked."""
    sample: Callable[[random.Random, Sequence[Hashable], int], tuple[Hashable, ...]] = anything
    """How to draw a sequence on which the answer is not nearly always the same."""

    def __call__(self, sequence: Iterable[Hashable]) -> list[Any]:
        """The program's value at every token."""
        return evaluate(self.output, self.checked(sequence))

    def checked(self, sequence: Iterable[Hashable]) -> tuple[Hashable, ...]:
        """The sequence, if it is one of those the program is meant for."""
        given = tuple(sequence)
        if not 1 <= len(given) <= self.length:
            raise WrongPrompt(f"{self.name} reads 1 to {self.length} tokens; got {len(given)}. Build it with a larger length=.")
        for token in given:
            if token not in self.vocab:
                options = [str(v) for v in self.vocab]
                raise WrongToken(
                    f"{self.name} reads {', '.join(options)}; {token!r} is none of them.{did_you_mean(str(token), options)}"
                )
        return given

    def sequences(self) -> Iterable[tuple[Hashable, ...]]:
        """Every sequence it is meant for, shorter ones first."""
        return (s for n in range(1, self.length + 1) for s in itertools.product(self.vocab, repeat=n))
