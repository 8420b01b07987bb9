"""Selecting by an index, with positions that count tokens and not padding."""

import pytest
import torch

from patchclamp.core.errors import WrongAxis
from patchclamp.core.site import Site
from patchclamp.core.window import Window, select

AXES = ("batch", "pos", "head", "d_head")
VALUE = torch.arange(2 * 5 * 3 * 2.0).view(2, 5, 3, 2)
EVEN = {"pos": Window(5)}
PADDED = {"pos": Window(5, 0, first=(2, 0))}
RIGHT = {"pos": Window(5, 0, end=(3, 5))}


def pick(index, windows=EVEN, late=False, value=VALUE, axes=AXES):
    return select(Site.parse(f"x[{index}]"), axes, value, windows, late)


def test_an_integer_drops_its_axis_and_a_range_keeps_it():
    assert torch.equal(pick("head=1").take(VALUE), VALUE[:, :, 1])
    assert torch.equal(pick("head=-1, pos=2").take(VALUE), VALUE[:, 2, -1])
    assert torch.equal(pick("pos=1:3").take(VALUE), VALUE[:, 1:3])
    assert torch.equal(pick("pos=*, head=0").take(VALUE), VALUE[:, :, 0])
    assert pick("pos=*").whole


def test_putting_back_leaves_the_rest_and_the_original():
    chosen = pick("head=1, pos=-1")
    made = chosen.put(VALUE, torch.zeros(2, 2))
    assert (made[:, -1, 1] == 0).all() and torch.equal(made[:, :-1], VALUE[:, :-1])
    assert VALUE[0, -1, 1, 1] != 0


def test_positions_count_tokens_and_not_padding():
    first = pick("pos=0", PADDED).take(VALUE)
    assert torch.equal(first, torch.stack([VALUE[0, 2], VALUE[1, 0]]))
    assert torch.equal(pick("pos=-1", PADDED).take(VALUE), VALUE[:, -1])
    last = pick("pos=-1", RIGHT).take(VALUE)
    assert torch.equal(last, torch.stack([VALUE[0, 2], VALUE[1, 4]]))


def test_ragged_positions_are_put_back_where_they_were():
    chosen = pick("pos=1, head=2", PADDED)
    made = chosen.put(VALUE, torch.zeros(2, 2))
    assert (made[0, 3, 2] == 0).all() and (made[1, 1, 2] == 0).all()
    assert (made == 0).sum() == 5  # four zeros written, and the one VALUE begins with


def test_a_window_over_later_tokens():
    late = {"pos": Window(2, start=5)}
    tail = torch.arange(2 * 2 * 3 * 2.0).view(2, 2, 3, 2)
    assert torch.equal(pick("pos=6", late, value=tail).take(tail), tail[:, 1])
    assert torch.equal(pick("pos=-1", late, value=tail).take(tail), tail[:, 1])
    assert pick("pos=3", late, late=True, value=tail) is None
    assert pick("pos=9", late, late=True, value=tail) is None


@pytest.mark.parametrize(
    ("index", "windows", "says"),
    [
        ("pos=5", EVEN, "prompt 0 has 5 tokens, pos 0 to 4"),
        ("pos=3", PADDED, "prompt 0 has 3 tokens"),
        ("pos=-6", EVEN, "outside"),
        ("head=3", EVEN, "the axis head has 3 entries, 0 to 2"),
        ("neuron=1", EVEN, 'no axis "neuron"; its axes are batch pos head d_head'),
        ("pos=1:3", PADDED, "unequal length"),
        ("pos=7:9", EVEN, "holds no token"),
    ],
)
def test_what_lies_outside_is_an_error(index, windows, says):
    with pytest.raises(WrongAxis, match=says):
        pick(index, windows)


def test_patterns_have_two_position_axes():
    pattern = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)
    windows = {"query": Window(4), "key": Window(4)}
    chosen = select(Site.parse("x[query=-1, key=0]"), ("batch", "head", "query", "key"), pattern, windows)
    assert torch.equal(chosen.take(pattern), pattern[:, :, -1, 0])


def test_each_row_may_have_a_position_of_its_own():
    value = torch.arange(12).view(3, 4)
    padded = {"pos": Window(4, 0, (0, 2, 1))}
    chosen = select(Site.parse("blocks.0.out[pos=3|0|-1]"), ("batch", "pos"), value, padded)
    assert chosen.take(value).tolist() == [3, 6, 11]
    assert chosen.put(value, torch.tensor([-1, -2, -3]))[[0, 1, 2], [3, 2, 3]].tolist() == [-1, -2, -3]
    twice = select(Site.parse("blocks.0.out[pos=3|0|-1]"), ("batch", "pos"), value.repeat(2, 1), padded)
    assert twice.take(value.repeat(2, 1)).tolist() == [3, 6, 11, 3, 6, 11]  # the same prompts again
    with pytest.raises(WrongAxis, match="prompt 1 has 2 tokens"):
        select(Site.parse("blocks.0.out[pos=0|2|0]"), ("batch", "pos"), value, padded)
