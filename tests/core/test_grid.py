"""Grids: named axes, labels, pictures."""

import json

import numpy as np
import pytest
import torch

from patchclamp.core.errors import UnknownSite, Unserved, WrongAxis
from patchclamp.core.grid import Grid, by_stars
from patchclamp.core.site import Site
from patchclamp.picture import Bars, Heatmap, Page, Table

GRID = Grid(
    torch.tensor([[1.0, -5.0, 2.0], [0.5, 3.0, float("nan")]]),
    ("layer", "pos"),
    {"pos": ["a", "b", "c"]},
    text=[["x", "y", "z"], ["u", "v", "w"]],
    details={"KL": torch.arange(6.0).view(2, 3)},
    each=torch.ones(4, 2, 3),
    baseline={"clean": 6.0, "corrupt": 2.0},
)


def test_top_names_the_cells():
    assert GRID.top(1) == [({"layer": "1", "pos": "b"}, 3.0)]
    assert GRID.top(1, "magnitude") == [({"layer": "0", "pos": "b"}, -5.0)]
    assert GRID.top(1, "smallest") == [({"layer": "0", "pos": "b"}, -5.0)]
    assert len(GRID.top(99)) == 6
    with pytest.raises(ValueError, match="largest"):
        GRID.top(1, "biggest")


def test_at_fixes_an_axis_by_number_or_label():
    row = GRID.at(layer=1)
    assert row.axes == ("pos",) and row.values[1] == 3 and row.text == ["u", "v", "w"]
    assert row.each.shape == (4, 3)
    assert GRID.at(pos="b").values.tolist() == [-5.0, 3.0]
    assert GRID.at(pos=-1, layer=0).values == 2.0
    assert GRID.at(pos="b").text == ["y", "v"]


@pytest.mark.parametrize(
    ("index", "says"),
    [({"lyer": 0}, "no axis"), ({"layer": 2}, "2 entries, 0 to 1"), ({"pos": "bb"}, 'Did you mean "b"')],
)
def test_a_wrong_axis_is_said_so(index, says):
    with pytest.raises(WrongAxis, match=says):
        GRID.at(**index)


def test_axes_and_labels_must_fit():
    with pytest.raises(WrongAxis, match="2 dimensions"):
        Grid(torch.zeros(2, 2), ("layer",))
    with pytest.raises(WrongAxis, match="3 labels"):
        Grid(torch.zeros(2), ("layer",), {"layer": ["a", "b", "c"]})


def test_fraction_is_the_share_of_the_gap():
    share = GRID.fraction()
    assert share.values[0, 0] == 0.25 and share.unit == "fraction of the gap"
    with pytest.raises(Unserved, match="baselines"):
        Grid(torch.zeros(1), ("layer",)).fraction()


def test_a_grid_draws_itself_by_its_number_of_axes():
    assert isinstance(GRID.picture(), Heatmap)
    assert isinstance(GRID.at(layer=0).picture(), Bars)
    assert isinstance(GRID.at(layer=0, pos=0).picture(), Table)
    assert isinstance(Grid(torch.zeros(2, 2, 2), ("prompt", "layer", "pos")).picture(), Page)
    with pytest.raises(WrongAxis, match="at most three"):
        Grid(torch.zeros(1, 1, 1, 1), tuple("abcd")).picture()


def test_a_picture_holds_the_numbers():
    picture = GRID.picture()
    assert np.array_equal(picture.values, GRID.values.numpy(), equal_nan=True)
    assert picture.columns == ("a", "b", "c") and picture.rows == ("0", "1") and picture.text[0] == ("x", "y", "z")


def test_a_long_axis_is_cut_to_its_strongest():
    bars = Grid(torch.arange(100.0), ("vocab",)).picture()
    assert len(bars.labels) == 20 and bars.labels[0] == "99"


def test_shows_itself(capsys):
    GRID.show()
    assert "layer" in capsys.readouterr().out
    assert "<table" in GRID._repr_html_() and GRID.html().startswith("<!")


def test_json_is_plain():
    said = GRID.json()
    assert said["axes"] == ["layer", "pos"] and said["values"][0][1] == -5.0 and said["labels"]["pos"] == ["a", "b", "c"]


def test_json_has_no_word_for_what_is_no_number():
    grid = Grid(
        torch.tensor([[1.0, float("nan")]]), ("layer", "pos"), text=[["a", "b"]], details={"KL": torch.tensor([[0.5, 1.0]])}
    )
    said = json.loads(json.dumps(grid.json(), allow_nan=False))
    assert said["values"] == [[1.0, None]] and said["text"] == [["a", "b"]] and said["details"] == {"KL": [[0.5, 1.0]]}


def test_paths_are_laid_out_along_the_stars_of_their_pattern():
    paths = ["blocks.0.attn.out", "blocks.0.mlp.out", "blocks.1.mlp.out"]  # the second block has no attention
    made, axes, labels = by_stars(Site.parse("blocks.*.*.out[pos=*]"), paths, torch.arange(6.0).view(1, 3, 2))
    assert axes == ("layer", "component", "pos") and labels == {"layer": ["0", "1"], "component": ["attn", "mlp"]}
    assert made[0, 0].tolist() == [[0, 1], [2, 3]] and made[0, 1, 1].tolist() == [4, 5] and bool(made[0, 1, 0].isnan().all())
    alone, axes, labels = by_stars(Site.parse("blocks.1.out"), ["blocks.1.out"], torch.ones(2, 1))
    assert alone.shape == (2,) and axes == () and labels == {}
    with pytest.raises(UnknownSite, match="two stars over the same axis"):
        by_stars(Site.parse("*.*.out"), ["a.b.out"], torch.ones(1, 1))


def test_map_drops_what_no_longer_holds():
    made = GRID.map(torch.abs)
    assert made.values[0, 1] == 5 and made.details == {} and made.each is None
