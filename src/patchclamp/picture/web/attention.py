"""Attention: small multiples to compare heads, one pattern large with its tokens, and its token-to-token lines.

Without the script the first pattern is the large one; the script changes it on a click and adds the lines. All weights
share one scale from 0 to 1, so that heads can be compared.
"""

from __future__ import annotations

import numpy as np

from patchclamp.picture import colour, words
from patchclamp.picture.picture import Attention, Pattern
from patchclamp.picture.web import raster
from patchclamp.picture.web.cells import axis_names
from patchclamp.picture.web.figure import behind, figure, legend, nothing, scroll
from patchclamp.picture.web.markup import Html, data, rounded, tag

LIMITS = (0.0, 1.0)


def attention(picture: Attention) -> Html:
    """All patterns small, the first one large."""
    if not picture.patterns or not picture.queries or not picture.keys:
        return nothing("attention", picture.title, picture.note)
    return figure(
        "attention",
        picture.title,
        picture.note,
        _large(picture, picture.patterns[0]),
        tag("div", *(_small(pattern, at == 0) for at, pattern in enumerate(picture.patterns)), class_="heads"),
        legend("sequential", LIMITS, "attention weight"),
        _strongest(picture),
        data(_numbers(picture)),
    )


def _large(picture: Attention, pattern: Pattern) -> Html:
    about = f"attention of {pattern.name}, queries down, keys across"
    chart = raster.chart(_levels(pattern), "sequential", picture.queries, picture.keys, about)
    return tag(
        "div",
        tag("p", tag("b", pattern.name), tag("span", pattern.note), class_="head"),
        tag(
            "div",
            tag("div", scroll(chart, about=about), tag("p", axis_names("query", "key"), class_="axes"), class_="map"),
            tag("div", class_="lines"),
            class_="pair",
        ),
        class_="large",
    )


def _small(pattern: Pattern, chosen: bool) -> Html:
    """A pattern as a button. One that differs in note only still has its own name read out."""
    return tag(
        "button",
        raster.shaded(_levels(pattern), "sequential"),
        tag("b", pattern.name),
        tag("small", pattern.note) if pattern.note else None,
        type="button",
        aria_pressed="true" if chosen else "false",
    )


def _levels(pattern: Pattern) -> np.ndarray:
    return colour.levels(pattern.weights, "sequential", LIMITS)


def _numbers(picture: Attention) -> dict:
    """Every weight for the script. Four decimals: a weight below 0.0001 is nothing to look at."""
    patterns = [
        {
            "name": pattern.name,
            "note": pattern.note,
            "values": rounded(np.round(np.asarray(pattern.weights, dtype=float), 4)),
        }
        for pattern in picture.patterns
    ]
    return {
        "rows": [words.visible(text) for text in picture.queries],
        "columns": [words.visible(text) for text in picture.keys],
        "axes": ["query", "key"],
        "unit": "weight",
        "patterns": patterns,
    }


def _strongest(picture: Attention) -> Html:
    """For each query and head the key it looks at most: what a reader without eyes or script needs first."""
    rows = []
    for at, query in enumerate(picture.queries):
        row: list[object] = [query]
        for pattern in picture.patterns:
            weights = np.nan_to_num(np.asarray(pattern.weights, dtype=float)[at])
            key = int(weights.argmax())
            row.append(f"{words.visible(picture.keys[key])} {words.number(float(weights[key]), 2)}")
        rows.append(row)
    return behind(("query", *(pattern.name for pattern in picture.patterns)), rows, "Strongest key of each query")
