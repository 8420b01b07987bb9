"""Colour scales as data: perceptually even, safe for colour-blind readers, on a light and on a dark page.

A scale is a few anchors (lightness, chroma, hue) in OKLCH, the polar form of Ottosson's Oklab (2020), in which equal
steps look equal. Zero looks like the page, so that a picture shows where something *is*. Orange is below zero and blue
above: this pair survives the three kinds of colour-blindness, which red and green does not.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from patchclamp.picture.picture import Scale

Theme = Literal["light", "dark"]

LEVELS = 65
"""Shades drawn from a scale; finer steps cannot be told apart. Odd, so that a diverging scale has a middle."""

EMPTY = -1
"""The level of a cell without a value."""

_ORANGE_LIGHT = ((0.46, 0.125, 40), (0.59, 0.145, 45), (0.72, 0.125, 52), (0.85, 0.075, 62))
_BLUE_LIGHT = ((0.85, 0.065, 240), (0.72, 0.105, 245), (0.59, 0.125, 252), (0.46, 0.125, 262))
_ORANGE_DARK = ((0.80, 0.115, 66), (0.66, 0.130, 55), (0.52, 0.115, 48), (0.39, 0.075, 45))
_BLUE_DARK = ((0.39, 0.075, 262), (0.52, 0.115, 256), (0.66, 0.115, 248), (0.80, 0.095, 238))

ANCHORS: dict[tuple[str, str], tuple[tuple[float, float, float], ...]] = {
    ("sequential", "light"): (
        (0.972, 0.006, 230),
        (0.85, 0.062, 222),
        (0.70, 0.105, 236),
        (0.53, 0.125, 254),
        (0.36, 0.105, 270),
    ),
    ("sequential", "dark"): (
        (0.245, 0.012, 262),
        (0.40, 0.085, 264),
        (0.57, 0.118, 254),
        (0.745, 0.105, 232),
        (0.93, 0.055, 205),
    ),
    ("diverging", "light"): (*_ORANGE_LIGHT, (0.965, 0.0, 0), *_BLUE_LIGHT),
    ("diverging", "dark"): (*_ORANGE_DARK, (0.255, 0.0, 0), *_BLUE_DARK),
}
"""Lightness, chroma and hue (degrees), evenly spaced along the scale."""

GROUPS: dict[str, tuple[str, ...]] = {
    "light": ("#395ba7", "#cc824a", "#1e847c", "#771e3e", "#91701a", "#29476a"),
    "dark": ("#6c9fed", "#e2a95d", "#5bc9b3", "#d074b5", "#f2da92", "#61708f"),
}
"""Colours for lines and groups, found by search: at least 3:1 on the page and 0.08 apart in Oklab, also when simulated
without one of the three cones. More than six groups repeat them; a reader cannot keep more apart anyway."""

EITHER: dict[str, str] = {"positive": "#4a82d4", "negative": "#c96f2e"}
"""Marks of middle lightness, readable on a dark and on a light terminal, whose background nobody can ask for."""


def limits(values: np.ndarray, scale: Scale, given: tuple[float, float] | None = None) -> tuple[float, float]:
    """The values drawn with the two ends of the scale.

    A sequential scale starts at zero and a diverging one has zero in its middle: a cell's colour then says how much,
    not how much more than its neighbours. A scale without any width is opened, so that equal values can be drawn.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = given if given is not None else (finite.min(initial=0.0), finite.max(initial=0.0))
    if scale == "diverging":
        bound = max(abs(low), abs(high)) or 1.0
        return -float(bound), float(bound)
    return float(low), float(high if high > low else low + max(1.0, abs(low)))


def levels(values: np.ndarray, scale: Scale, given: tuple[float, float] | None = None) -> np.ndarray:
    """The shade of each value, 0 to LEVELS - 1; beyond the limits the end shade, EMPTY for NaN.

    >>> levels(np.array([0.0, 0.5, 1.0, np.nan]), "sequential").tolist()
    [0, 32, 64, -1]
    """
    values = np.asarray(values, dtype=float)
    low, high = limits(values, scale, given)
    # Halved before subtracting, so that limits of +-1e308 do not overflow.
    place = (np.clip(values, low, high) / 2 - low / 2) / (high / 2 - low / 2)
    return np.where(np.isnan(place), EMPTY, np.nan_to_num(place) * (LEVELS - 1) + 0.5).astype(int)


@cache
def shades(scale: Scale, theme: Theme, count: int = LEVELS) -> tuple[str, ...]:
    """The scale as `count` colours in hexadecimal.

    >>> shades("sequential", "light", 3)
    ('#f2f7f9', '#57a8d7', '#283773')
    """
    anchors = np.array(ANCHORS[scale, theme], dtype=float)
    hue = np.radians(anchors[:, 2])
    points = np.stack([anchors[:, 0], anchors[:, 1] * np.cos(hue), anchors[:, 1] * np.sin(hue)], axis=-1)
    at, where = np.linspace(0, 1, count), np.linspace(0, 1, len(points))
    lab = np.stack([np.interp(at, where, points[:, axis]) for axis in range(3)], axis=-1)
    return tuple("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in _srgb(lab))


def shade(scale: Scale, place: float, theme: Theme = "light") -> str:
    """The colour at `place`, 0 to 1 along the scale."""
    return shades(scale, theme)[round(float(np.clip(place, 0, 1)) * (LEVELS - 1))]


def ink(background: str) -> str:
    """Black or white, whichever reads better on `background`; it is never worse than 4.5:1.

    >>> ink("#f2f7f9"), ink("#283773")
    ('#050505', '#ffffff')
    """
    dark, light = "#050505", "#ffffff"
    return dark if contrast(dark, background) >= contrast(light, background) else light


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of a hexadecimal colour, 0 to 1."""
    return float(linear(colour) @ np.array([0.2126, 0.7152, 0.0722]))


def linear(colour: str) -> np.ndarray:
    """Red, green and blue in linear light, 0 to 1."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


_CONES_OF_LAB = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_RGB_OF_CONES = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _srgb(lab: np.ndarray) -> np.ndarray:
    """Oklab to bytes of sRGB (Ottosson 2020). Every anchor lies within the gamut; clipping only rounds."""
    light = np.clip((lab @ _CONES_OF_LAB.T) ** 3 @ _RGB_OF_CONES.T, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(int)
