"""The colour scales keep their promises, also for eyes that lack one kind of cone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from patchclamp.picture import colour

# How linear RGB looks without long-, middle- or short-wave cones (Machado, Oliveira and Fernandes 2009, severity 1).
BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3).tolist(),
}
SCALES = ["sequential", "diverging"]
THEMES = ["light", "dark"]
PAGE = {"light": "#fdfdfc", "dark": "#15171a"}


def seen(hexadecimal: str, blindness: str = "none") -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as someone sees it."""
    rgb = np.clip(np.array(BLIND[blindness]) @ colour.linear(hexadecimal), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    ratio = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one: str, other: str, blindness: str = "none") -> float:
    return float(np.linalg.norm(seen(one, blindness) - seen(other, blindness)))


@pytest.mark.parametrize("blindness", BLIND)
@pytest.mark.parametrize("theme", THEMES)
def test_a_sequential_scale_only_gets_darker_or_lighter(theme, blindness):
    steps = np.diff([seen(shade, blindness)[0] for shade in colour.shades("sequential", theme)])
    assert (steps < 0).all() if theme == "light" else (steps > 0).all()


@pytest.mark.parametrize("theme", THEMES)
def test_a_diverging_scale_is_as_light_below_zero_as_above(theme):
    lightness = np.array([seen(shade)[0] for shade in colour.shades("diverging", theme)])
    np.testing.assert_allclose(lightness, lightness[::-1], atol=2.0)
    steps = np.diff(lightness[: colour.LEVELS // 2 + 1])
    assert (steps > 0).all() if theme == "light" else (steps < 0).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("theme", THEMES)
def test_equal_steps_look_equal(scale, theme):
    """In Oklab, in which the scales are made; CIELAB is known to bend blues."""
    steps = [np.linalg.norm(oklab(a) - oklab(b)) for a, b in itertools.pairwise(colour.shades(scale, theme, 17))]
    assert max(steps) / min(steps) < 1.6


def oklab(hexadecimal: str) -> np.ndarray:
    cones = np.linalg.inv(colour._RGB_OF_CONES) @ colour.linear(hexadecimal)
    return np.linalg.inv(colour._CONES_OF_LAB) @ np.cbrt(cones)


@pytest.mark.parametrize("blindness", BLIND)
@pytest.mark.parametrize("theme", THEMES)
def test_the_two_ends_cannot_be_confused(theme, blindness):
    shades = colour.shades("diverging", theme)
    assert difference(shades[0], shades[-1], blindness) > 40
    # Nor at half strength.
    assert difference(shades[16], shades[48], blindness) > 20


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("theme", THEMES)
def test_text_is_readable_on_every_cell(scale, theme):
    for shade in colour.shades(scale, theme):
        assert colour.contrast(colour.ink(shade), shade) >= 4.5


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("theme", THEMES)
def test_zero_looks_like_the_page(scale, theme):
    middle = colour.LEVELS // 2 if scale == "diverging" else 0
    assert difference(colour.shades(scale, theme)[middle], PAGE[theme]) < 10


@pytest.mark.parametrize("blindness", BLIND)
@pytest.mark.parametrize("theme", THEMES)
def test_groups_are_told_apart(theme, blindness):
    for one, other in itertools.combinations(colour.GROUPS[theme], 2):
        assert difference(one, other, blindness) > 7


@pytest.mark.parametrize("theme", THEMES)
def test_groups_stand_out_from_the_page(theme):
    assert all(colour.contrast(group, PAGE[theme]) >= 3 for group in colour.GROUPS[theme])


@pytest.mark.parametrize("terminal", ["#000000", "#ffffff"])
def test_marks_stand_out_from_any_terminal(terminal):
    assert all(colour.contrast(mark, terminal) >= 3 for mark in colour.EITHER.values())


def test_limits_hold_zero():
    assert colour.limits(np.array([0.2, 0.8]), "sequential") == (0.0, 0.8)
    assert colour.limits(np.array([0.2, -0.8]), "diverging") == (-0.8, 0.8)
    assert colour.limits(np.array([-0.2, 0.8]), "sequential") == (-0.2, 0.8)


def test_limits_given_are_kept_but_stay_symmetric():
    assert colour.limits(np.array([5.0]), "sequential", (0.0, 1.0)) == (0.0, 1.0)
    assert colour.limits(np.array([5.0]), "diverging", (-1.0, 2.0)) == (-2.0, 2.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("values", [[], [np.nan], [0.0, 0.0], [np.inf, -np.inf], [3.0, 3.0]])
def test_limits_always_have_a_width(values, scale):
    low, high = colour.limits(np.array(values), scale)
    assert low < high


def test_levels_of_extreme_values():
    values = np.array([np.nan, -np.inf, np.inf, 0.0, 1.7e308, -1.7e308])
    levels = colour.levels(values, "diverging")
    assert levels.tolist() == [colour.EMPTY, 0, colour.LEVELS - 1, colour.LEVELS // 2, colour.LEVELS - 1, 0]


def test_equal_limits_are_opened():
    assert colour.levels(np.array([1e300]), "sequential", (1e300, 1e300)).tolist() == [0]


def test_a_shade_by_its_place():
    assert colour.shade("sequential", 0.0) == colour.shades("sequential", "light")[0]
    assert colour.shade("sequential", 7.0, "dark") == colour.shades("sequential", "dark")[-1]
