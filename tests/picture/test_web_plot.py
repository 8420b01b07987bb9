"""Lines and points: what is drawn, what travels to the script, what is left out."""

from __future__ import annotations

import json
import re

import numpy as np
import picture_samples as samples

from patchclamp.picture import Lines, Scatter, Series
from patchclamp.picture.web import plot


def numbers(drawn: str) -> dict:
    text = re.search(r'<script type="application/json">(.*?)</script>', drawn)
    assert text
    return json.loads(text[1])


def test_each_series_has_its_line_and_its_key():
    drawn = plot.lines(samples.lines())
    assert drawn.count('class="key"') == 2
    assert 'class="line g0"' in drawn
    assert 'class="band g1"' in drawn


def test_a_single_series_needs_no_key():
    assert 'class="key"' not in plot.lines(Lines(np.arange(3), (Series("one", np.arange(3.0)),)))


def test_a_point_without_neighbours_is_a_dot():
    drawn = plot.lines(Lines(np.arange(3), (Series("one", np.array([1, np.nan, 3.0])),)))
    assert drawn.count("h0") == 2


def test_many_series_differ_in_dash_once_colours_repeat():
    series = tuple(Series(str(at), np.arange(3.0)) for at in range(12))
    lines = re.findall(
        r'<path d="[^"]*" class="line (g\d)"(?: stroke-dasharray="([^"]*)")?', plot.lines(Lines(np.arange(3), series))
    )
    assert len(set(lines)) == 12


def test_the_script_gets_the_values():
    got = numbers(plot.lines(samples.lines()))
    np.testing.assert_allclose(got["series"][0]["y"], np.arange(12) / 11, rtol=1e-3)
    assert got["domain"][:2] == [0.0, 11.0]


def test_long_lines_are_thinned_but_keep_their_ends():
    got = numbers(plot.lines(samples.EXTREME["long lines"]))  # type: ignore[arg-type]
    assert len(got["x"]) == plot.MOST_POINTS
    assert (got["x"][0], got["x"][-1]) == (0, 4999)


def test_the_unit_is_said_once():
    drawn = plot.lines(Lines(np.arange(2), (Series("a", np.arange(2.0)),), y_axis="loss", unit="nats"))
    assert "loss (nats)" in drawn


def test_points_have_groups_and_labels():
    drawn = plot.scatter(samples.scatter())
    assert drawn.count('class="key"') == 2
    assert len(numbers(drawn)["points"]) == 20


def test_labels_that_would_collide_wait_for_the_pointer():
    picture = Scatter(np.zeros(30), np.zeros(30), tuple(f"label {at}" for at in range(30)))
    drawn = plot.scatter(picture)
    assert drawn.count('class="point') == 2  # one to the right, one to the left
    assert len(numbers(drawn)["points"]) == 30


def test_a_lonely_point_is_labelled():
    assert 'class="point"' in plot.scatter(Scatter(np.array([1.0]), np.array([1.0]), ("one",)))


def test_missing_points_are_left_out():
    picture = Scatter(np.array([1.0, np.nan]), np.array([1.0, 2.0]), ("a", "b"), ("g", "h"))
    assert [point["label"] for point in numbers(plot.scatter(picture))["points"]] == ["a"]
