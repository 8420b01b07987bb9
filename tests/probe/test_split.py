"""No group is on both sides, every row is held out once, and the mean of the marks is the score."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.linear import logistic, means, ridge
from patchclamp.probe.split import by_group, chance, folds, held_out


def test_no_group_is_on_both_sides_and_every_row_is_held_out_once():
    groups = [n // 3 for n in range(60)]
    held = []
    for train, test in folds([n % 2 for n in range(60)], groups, 5):
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        held += test.tolist()
    assert sorted(held) == list(range(60))


def test_a_template_that_gives_the_answer_away_helps_nobody():
    """Each group has a direction of its own and one label: without groups the probe knows it, with them it guesses."""
    chosen = torch.Generator().manual_seed(0)
    groups = [n // 10 for n in range(400)]
    own = 5 * torch.randn(40, 64, generator=chosen)
    x = own[groups] + torch.randn(400, 64, generator=chosen)
    labels = torch.randint(2, (40,), generator=chosen)[groups].tolist()
    assert held_out(x, labels, list(range(400)), logistic).mean() > 0.95
    assert abs(held_out(x, labels, groups, logistic).mean() - 0.5) < 0.2


def test_marks_average_to_balanced_accuracy():
    from sklearn.metrics import balanced_accuracy_score

    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    y = [int(v > 1) for v in x[:, 0] + 0.5 * x[:, 1] ** 2]
    said = torch.zeros(300)
    for train, test in folds(y, range(300), 4):
        probe = means(x[train], [y[i] for i in train])
        said[test] = torch.tensor([float(c) for c in probe.predict(x[test])])
    found = float(held_out(x, y, range(300), means, 4).mean())
    assert found == pytest.approx(balanced_accuracy_score(y, said.numpy()), abs=1e-6)


def test_always_saying_the_common_class_is_chance():
    from patchclamp.probe.fitted import Rows

    def constant(x, y):
        return Rows.of(x, y).probe((torch.zeros(2, 1), torch.tensor([1.0, 0.0])))

    marks = held_out(torch.randn(100, 1), [0] * 90 + [1] * 10, range(100), constant)
    assert float(marks.mean()) == pytest.approx(chance([0, 1])) == 0.5


def test_marks_of_numbers_average_to_r_squared():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    assert float(held_out(x, (x[:, 0] * 2).tolist(), range(200), ridge).mean()) > 0.99
    assert (
        float(held_out(x, torch.randn(200, generator=torch.Generator().manual_seed(1)).tolist(), range(200), ridge).mean())
        < 0.05
    )


def test_groups_keep_the_mean():
    marks, groups = torch.rand(10), [0, 0, 0, 1, 1, 2, 2, 2, 2, 3]
    found = by_group(marks, groups)
    assert len(found) == 4 and float(found.mean()) == pytest.approx(float(marks.mean()))


def test_what_cannot_be_split_says_so():
    with pytest.raises(WrongPrompt, match="2 groups cannot be held out in 5 folds"):
        folds([0, 1] * 5, [0, 1] * 5)
    with pytest.raises(ShapeMismatch, match="3 groups for 10 labels"):
        folds([0, 1] * 5, [0, 1, 2])
    with pytest.raises(WrongPrompt, match="a fold has no training row of 1: all its rows share a group"):
        folds([0] * 9 + [1], list(range(10)), 2)
