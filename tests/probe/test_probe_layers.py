"""Scores by layer and position, with the controls that give them a meaning."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.journal import keeping
from patchclamp.model.gather import gather
from patchclamp.probe.layers import beside, control_task, lines, probe, selectivity
from patchclamp.probe.linear import means
from patchclamp.probe.split import held_out
from patchclamp.specimens.town import tasks
from patchclamp.specimens.town.homographs import homographs
from patchclamp.specimens.town.world import town as world


@pytest.fixture(scope="module")
def uses():
    return homographs(world(0), 12)


@pytest.fixture(scope="module")
def found(town, uses):
    """Noun or verb, with the controls; kinds are the word with the two before it."""
    return beside(town, "blocks.*.in", [u.text for u in uses], [u.kind for u in uses], groups=[u.pair for u in uses],
                  kinds=[f"{u.before} {u.word}" for u in uses])  # fmt: skip


def test_a_homograph_is_chance_at_the_embedding_and_known_after_the_first_block(found):
    real = found.at(source="labels")
    assert abs(float(real.values[0]) - 0.5) < 0.02
    assert (real.values[1:] >= 0.95).all()


def test_selectivity_separates_a_real_from_a_control_task(found):
    low = selectivity(found).interval().at(bound="low").values
    assert (low[1:] > 0).all() and low[0] < 0


def test_shuffled_labels_are_chance_everywhere(found):
    assert (found.at(source="shuffled").values - 0.5).abs().max() < 0.15


def test_a_grid_says_what_was_held_out(found, uses):
    assert found.axes == ("source", "layer") and found.baseline == {"chance": 0.5}
    assert "5 folds" in found.note and f"{len(uses) // 2} groups" in found.note


def test_one_place_is_what_the_rows_give_by_hand(town, uses):
    texts, labels = [u.text for u in uses], [u.kind for u in uses]
    grid = probe(town, "blocks.*.out", texts, labels, fit=means, seed=3)
    by_hand = held_out(gather(town, "blocks.2.out", texts), labels, texts, means, seed=3).mean()
    assert float(grid.values[2]) == pytest.approx(float(by_hand))


def test_roles_and_starred_positions_are_an_axis(town):
    items = tasks.draw("pronouns", world(0), 40)
    labels = [i.answer in (" she", " her", " herself") for i in items]
    at = {role: [i.positions[role] for i in items] for role in ("name", "end")}
    grid = probe(town, "blocks.*.out", [i.clean for i in items], labels, at=at, fit=means, folds=3)
    assert grid.axes == ("layer", "pos") and grid.words("pos") == ["name", "end"]
    names = [f"{n} stayed" for n in ("Mary", "Anna", "Emma", "John", "Adam", "Leo")]
    grid = probe(town, "blocks.*.out[pos=*]", names, [0, 0, 0, 1, 1, 1], fit=means, folds=3)
    assert grid.shape == {"layer": 4, "pos": 3}


def test_a_control_task_gives_each_kind_one_label():
    kinds = ["a", "b", "c"] * 5
    dealt = control_task([0, 1, 1] * 5, kinds, seed=1)
    assert all(len({d for d, k in zip(dealt, kinds) if k == kind}) == 1 for kind in "abc") and len(set(dealt)) == 2


def test_what_is_done_is_not_done_again(town, uses, tmp_path):
    texts, labels = [u.text for u in uses], [u.kind for u in uses]
    with keeping(tmp_path / "work"):
        once = probe(town, "blocks.*.out", texts, labels, fit=means)
    with keeping(tmp_path / "work") as journal:
        again = probe(town, "blocks.*.out", texts, labels, fit=means)
        assert journal.count == 4
    assert torch.equal(once.values, again.values)


def test_lines_have_bands():
    each = torch.rand(30, 2, 4)
    grid = Grid(each.mean(0), ("source", "layer"), {"source": ["labels", "shuffled"]}, each=each)
    picture = lines({w: grid.at(source=w) for w in grid.words("source")})
    assert [s.name for s in picture.series] == ["labels", "shuffled"] and (picture.series[0].low < picture.series[0].high).all()
    assert "<svg" in picture.html()
    with pytest.raises(WrongAxis, match="a line has one axis, and all has source layer"):
        lines({"all": grid})


def test_what_makes_no_sense_is_refused(town):
    texts = ["Mary stayed", "John stayed", "Anna stayed at home", "Leo stayed"]
    with pytest.raises(ShapeMismatch, match="3 labels for 4 prompts"):
        probe(town, "blocks.*.out", texts, [0, 1, 0])
    with pytest.raises(WrongPrompt, match="say the positions with at="):
        probe(town, "blocks.*.out[pos=*]", texts, [0, 1, 0, 1])
    with pytest.raises(WrongPrompt, match="each kind is in one group only"):
        beside(town, "blocks.*.out", texts, [0, 1, 0, 1], kinds=texts)
    with pytest.raises(WrongPrompt, match="there is one kind only, x"):
        control_task([0, 1], ["x", "x"])


def test_lots_give_every_class_to_some_kind():
    """Or chance would not be the same for the control as for the labels."""
    for seed in range(20):
        assert len(set(control_task(list("abcde") * 4, list("uvwxyz") * 3 + ["u", "v"], seed))) == 5
    with pytest.raises(WrongPrompt, match="2 kinds cannot be given 3 classes"):
        control_task(list("abc") * 2, list("xy") * 3)
