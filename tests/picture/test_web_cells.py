"""Heatmaps are tables whose cells say everything about themselves; texts keep their order."""

from __future__ import annotations

import re

import numpy as np
import picture_samples as samples

from patchclamp.picture import Heatmap, Tokens
from patchclamp.picture.web import cells


def test_a_cell_says_place_value_and_details():
    drawn = cells.heatmap(samples.lens(3, 4))
    picture = samples.lens(3, 4)
    value = f"{picture.values[1, 2]:.4g}"
    pattern = rf'title="layer 1 · position ·and\n·and\n{value} probability\nKL \(nats\)\t0\.\d+\nrank\t\d+\nentropy'
    assert re.search(pattern, drawn)


def test_a_heatmap_is_a_table_with_headers():
    drawn = cells.heatmap(samples.effects(3, 4))
    assert drawn.count('scope="row"') == 3
    assert drawn.count('scope="col"') == 4
    assert drawn.count("<td ") == 3 * 4 + 1  # the corner names the axes


def test_shades_follow_values():
    shades = cells.classes(np.array([[0.0, 1.0, np.nan]]), "sequential", None)
    assert shades.tolist() == [["q0", "q64", "none"]]
    assert cells.classes(np.array([-1.0, 0.0, 1.0]), "diverging", None).tolist() == ["d0", "d32", "d64"]


def test_words_numbers_or_colour_alone():
    assert 'class="cells words"' in cells.heatmap(samples.lens(2, 3))
    assert 'class="cells numbers"' in cells.heatmap(samples.effects(2, 3))
    assert 'class="cells bare"' in cells.heatmap(samples.effects(2, 30))


def test_long_column_labels_stand_upright():
    def drawn(*columns: str) -> str:
        return cells.heatmap(Heatmap(np.ones((1, 2)), ("a",), columns))

    assert 'class="upright"' in drawn("a long label", "b")
    assert 'class="upright"' not in drawn("0", "1")


def test_a_large_matrix_is_an_image():
    drawn = cells.heatmap(samples.effects(100, 100))
    assert "<img" in drawn
    assert "<th " not in drawn.split("<details")[0]


def test_the_axis_is_not_said_twice():
    picture = Heatmap(np.ones((1, 1)), ("layer 3",), ("0",), "layer", "head")
    assert 'title="layer 3 · head 0' in cells.heatmap(picture)


def test_tokens_keep_their_order_and_lines():
    drawn = cells.tokens(Tokens(("a", "\n", " b"), np.array([0.0, 0.5, 1.0])))
    text = re.sub(r"<br>", "|", drawn.split("</p>")[0])
    assert re.sub(r"<[^>]*>", "", text) == "a↵|·b"


def test_a_token_carries_its_number():
    assert 'title="position 1 · ·b\n0.5 nats\nid\t7"' in cells.tokens(
        Tokens(("a", " b"), np.array([0.0, 0.5]), "nats", details={"id": (6, 7)})
    )
