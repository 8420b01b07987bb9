"""Pictures to draw in tests: ordinary ones of every kind, extreme ones, and tokens that mean harm."""

from __future__ import annotations

import numpy as np

from patchclamp.picture import (
    Attention,
    Bars,
    Heatmap,
    Image,
    Lines,
    Network,
    Node,
    Page,
    Pattern,
    Picture,
    Scatter,
    Section,
    Series,
    Table,
    Tokens,
)

SENTENCE = (
    "When",
    " Mary",
    " and",
    " John",
    " went",
    " to",
    " the",
    " store",
    ",",
    " John",
    " gave",
    " a",
    " drink",
    " to",
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"onmouseover=alert(1) x="',
    "' onfocus='alert(1)",
    "]]>",
    "-->",
    "<!--",
    "</style>",
    "</textarea><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "&lt;",
    "\n",
    "\t",
    " ",
    " " * 12,
    "\u200b",
    "\u202eevil",
    "\u200f",
    "👩\u200d🔬",
    "漢字かな",
    "مرحبا",
    "\u0301",
    "\x1b[2J\x1b[31m",
    "\x00",
    "\ud800",
    "a" * 300,
    "",
    "`${x}`",
)


def causal(count: int, seed: int = 0) -> np.ndarray:
    """Attention weights of a causal model: rows that sum to one."""
    weights = np.tril(np.random.default_rng(seed).gamma(0.3, size=(count, count)) + 1e-3)
    return weights / weights.sum(axis=1, keepdims=True)


def lens(rows: int = 12, columns: int = 30) -> Heatmap:
    """A logit lens: words in the cells, three details each."""
    random = np.random.default_rng(1)
    labels = tuple((SENTENCE * (columns // len(SENTENCE) + 1))[:columns])
    return Heatmap(
        random.random((rows, columns)),
        tuple(map(str, range(rows))),
        labels,
        "layer",
        "position",
        unit="probability",
        text=tuple(labels for _ in range(rows)),
        details={
            "KL (nats)": random.random((rows, columns)),
            "rank": random.integers(0, 5000, (rows, columns)),
            "entropy (nats)": random.random((rows, columns)),
        },
        title="Logit lens",
    )


def effects(rows: int = 12, columns: int = 12) -> Heatmap:
    values = np.random.default_rng(2).normal(size=(rows, columns))
    names = tuple(map(str, range(rows))), tuple(map(str, range(columns)))
    return Heatmap(values, *names, "layer", "head", "diverging", unit="logits", title="Effects")


def attention(heads: int = 6, count: int = 14) -> Attention:
    words = tuple((SENTENCE * (count // len(SENTENCE) + 1))[:count])
    patterns = tuple(Pattern(f"L{at}H{at}", causal(count, at), "a note") for at in range(heads))
    return Attention(words, words, patterns, title="Attention")


def bars() -> Bars:
    values = np.array([2.41, -0.62, 0.93, 0.0])
    return Bars(values, ("9", "10", "11", "0"), "logits", "layer", low=values - 0.1, high=values + 0.1, title="Direct")


def lines() -> Lines:
    x = np.arange(12)
    band = Series("band", x / 20.0, low=x / 25.0, high=x / 15.0)
    return Lines(x, (Series(" Mary", x / 11.0), band), "layer", "probability", title="Depth")


def network() -> Network:
    nodes = (Node("a", " Mary", 0, 1), Node("b", "9.9", 9, 5, 0.8, "name mover"), Node("c", "out", 12, 5, 1.0))
    return Network(nodes, (("a", "b", 0.9), ("b", "c", -0.7)), "logits", "Paths")


def scatter() -> Scatter:
    random = np.random.default_rng(3)
    groups = tuple(("one", "two")[at % 2] for at in range(20))
    return Scatter(random.normal(size=20), random.normal(size=20), tuple(f"L{at}" for at in range(20)), groups, "x", "y")


def tokens() -> Tokens:
    return Tokens(SENTENCE, np.linspace(0, 1, 14), "weight", details={"id": tuple(range(14))}, title="Tokens")


def table() -> Table:
    return Table(("token", "probability", "rank"), ((" Mary", 0.7134, 1), (" him", 0.00091, 2), ("?", None, 3)), title="Top")


ORDINARY: dict[str, Picture] = {
    "lens": lens(12, 14),
    "effects": effects(),
    "wide": effects(12, 30),
    "large": effects(48, 200),
    "attention": attention(),
    "bars": bars(),
    "lines": lines(),
    "network": network(),
    "scatter": scatter(),
    "tokens": tokens(),
    "table": table(),
    "image": Image(np.random.default_rng(0).random((8, 8, 3)), "Pixels"),
}

_NAN = np.full((2, 3), np.nan)
EXTREME: dict[str, Picture] = {
    "no cells": Heatmap(np.zeros((0, 0)), (), ()),
    "one cell": Heatmap(np.array([[0.3]]), ("a",), ("b",)),
    "one row": Heatmap(np.array([[0.1, 0.2, 0.3]]), ("a",), ("x", "y", "z")),
    "equal cells": Heatmap(np.full((2, 3), 7.0), ("a", "b"), ("x", "y", "z")),
    "zero cells": Heatmap(np.zeros((2, 3)), ("a", "b"), ("x", "y", "z"), scale="diverging"),
    "no numbers": Heatmap(_NAN, ("a", "b"), ("x", "y", "z"), details={"detail": _NAN}),
    "some numbers": Heatmap(np.array([[np.nan, np.inf, -np.inf, 1.0]]), ("a",), ("w", "x", "y", "z")),
    "huge cells": Heatmap(np.array([[1.7e308, -1.7e308, 1e-300]]), ("a",), ("x", "y", "z"), scale="diverging"),
    "too few labels": Heatmap(np.ones((2, 2)), ("a",), ()),
    "whole numbers": Heatmap(np.arange(6).reshape(2, 3), ("a", "b"), ("x", "y", "z")),
    "beyond limits": Heatmap(np.array([[0.0, 0.5, 3.0]]), ("a",), ("x", "y", "z"), limits=(0.2, 1.0)),
    "no bars": Bars(np.array([]), ()),
    "zero bars": Bars(np.zeros(2), ("a", "b")),
    "huge bars": Bars(np.array([1.7e308, -1.7e308, np.nan, np.inf]), ("a", "b", "c", "d")),
    "many bars": Bars(np.arange(200.0), tuple(map(str, range(200)))),
    "no lines": Lines(np.array([]), ()),
    "one point": Lines(np.array([1.0]), (Series("one", np.array([2.0])),)),
    "flat": Lines(np.arange(4), (Series("flat", np.full(4, 3.0)), Series("gap", np.array([1, np.nan, 2, 4.0])))),
    "huge lines": Lines(np.arange(3), (Series("huge", np.array([1.7e308, -1.7e308, 0])),)),
    "no line's numbers": Lines(np.arange(3), (Series("none", np.full(3, np.nan)),)),
    "long lines": Lines(np.arange(5000), (Series("loss", np.exp(-np.arange(5000) / 900.0)),), "step", "loss", "nats"),
    "no tokens": Tokens(()),
    "plain tokens": Tokens(SENTENCE),
    "tokens without numbers": Tokens(SENTENCE, np.full(14, np.nan)),
    "no points": Scatter(np.array([]), np.array([])),
    "one scattered point": Scatter(np.array([1.0]), np.array([1.0]), ("one",)),
    "missing points": Scatter(np.array([1.0, np.nan]), np.array([1.0, 2.0])),
    "no nodes": Network((), ()),
    "no edges": Network((Node("a", "alone"),), ()),
    "unknown ends": Network((Node("a", "alone"),), (("a", "nobody", 1.0), ("a", "a", float("nan")))),
    "no heads": Attention((), (), ()),
    "one token": Attention(("a",), ("a",), (Pattern("L0H0", np.ones((1, 1))),)),
    "many tokens": attention(2, 120),
    "no rows": Table(("a",), ()),
    "no columns": Table((), ()),
    "short rows": Table(("a", "b"), (("x",), ("y", 1.0))),
    "wide table": Table(tuple(f"column {at}" for at in range(40)), (tuple(range(40)),)),
    "long table": Table(("a",), tuple((at,) for at in range(1000))),
    "no image": Image(np.zeros((0, 0))),
    "grey image": Image(np.array([[0.0, 0.5], [np.nan, 2.0]])),
    "empty page": Page("Empty"),
}


def hostile() -> Page:
    """Every picture with every hostile string in every place that takes words."""
    count = len(HOSTILE)
    values = np.random.default_rng(0).normal(size=(4, count))
    words = np.array([HOSTILE] * 4, dtype=object)
    bad = HOSTILE[0]
    numbers = values[0]
    pictures = (
        Heatmap(values, HOSTILE[:4], HOSTILE, bad, bad, unit=bad, title=bad, note=bad),
        Heatmap(values, HOSTILE[:4], HOSTILE, bad, bad, text=(HOSTILE,) * 4, details={bad: values, "w": words}),
        Heatmap(np.ones((200, 30)), HOSTILE * 8, HOSTILE * 2, bad, bad, unit=bad, details={bad: np.ones((200, 30))}),
        Bars(numbers, HOSTILE, bad, bad, title=bad, note=bad),
        Lines(np.arange(3), tuple(Series(text, np.arange(3.0)) for text in HOSTILE), bad, bad, bad, bad, bad),
        Tokens(HOSTILE, np.abs(numbers), bad, details={bad: HOSTILE}, title=bad, note=bad),
        Tokens(HOSTILE),
        Attention(HOSTILE, HOSTILE, tuple(Pattern(text, causal(count), text) for text in HOSTILE[:3]), bad, bad),
        Scatter(numbers, numbers, HOSTILE, HOSTILE, bad, bad, bad, bad),
        Network(
            tuple(Node(text, text, at, at, float(at), text) for at, text in enumerate(HOSTILE)),
            tuple((bad, text, 0.5) for text in HOSTILE),
            bad,
            bad,
            bad,
        ),
        Table(HOSTILE, (HOSTILE,), title=bad, note=bad),
        Image(np.ones((2, 2)), bad, bad),
    )
    sections = (Section(bad, bad, pictures, bad), Section(HOSTILE[1], HOSTILE[1], (), HOSTILE[1], folded=True))
    return Page(bad, HOSTILE[1], {text: text for text in HOSTILE}, sections, bad)


def report() -> Page:
    """The report of an ordinary examination, for the limits of size."""
    six = attention(6, 30)
    maps = tuple(effects(12, 30) for _ in range(3))
    tables = tuple(Table(("head", "effect", "note"), tuple((f"L{at}", at / 7, "a note") for at in range(20))) for _ in range(3))
    sections = (
        Section("Lens", "A reading.", (lens(),)),
        Section("Heads", "A reading.", (six, *(bars() for _ in range(3)))),
        Section("Patching", "A reading.", (*maps, *tables), "what was left out"),
    )
    return Page("A report", "a prompt", {"model": "gpt2"}, sections, "made by a test")


EVERYTHING: dict[str, Picture] = {**ORDINARY, **EXTREME, "hostile": hostile(), "report": report()}
