"""Operations: a function mode in force only while a scope is on top, and never afterwards."""

import pytest
import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode

import patchclamp as pc
import zoo
from patchclamp.model.ops import Operations, Scope
from patchclamp.model.place import Place

IDS = torch.tensor([[5, 6, 7, 8]])
SUM = Place("sum", "result", (), op=("add", 1))


class Foreign(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def noting(seen):
    return Operations(lambda place, raw: (seen.append(raw), raw)[1])


def test_calls_are_counted_in_their_scope_only():
    seen, one = [], torch.ones(2)
    operations = noting(seen)
    with operations.ready():
        operations.enter(Scope([SUM]))
        one + one
        operations.enter(None)
        assert _get_current_function_mode() is None
        one + one
        operations.leave()
        wanted = one + 2 * one
        operations.leave()
        assert _get_current_function_mode() is None
    assert [v.tolist() for v in seen] == [wanted.tolist()]


def test_it_stands_aside_beneath_a_mode_of_the_models_own():
    seen, one = [], torch.ones(2)
    operations = noting(seen)
    with operations.ready():
        operations.enter(Scope([SUM]))
        one + one
        with Foreign():
            operations.enter(None)
            one + one
            operations.leave()
        one + 3 * one
        operations.leave()
    assert [v.tolist() for v in seen] == [[4, 4]]
    assert _get_current_function_mode() is None


def test_nothing_is_left_in_force_after_an_exception():
    operations = noting([])
    with pytest.raises(ZeroDivisionError), operations.ready():
        operations.enter(Scope([SUM]))
        raise ZeroDivisionError
    assert _get_current_function_mode() is None


def test_an_edit_that_fails_at_an_addition_leaves_nothing_in_force():
    def fail(value):
        raise ZeroDivisionError

    with zoo.quiet():
        model = pc.load(zoo.build("gpt2"))
    with pytest.raises(ZeroDivisionError):
        model.edit(pc.Edit("blocks.1.mid", fail)).run(IDS)
    assert _get_current_function_mode() is None
    assert torch.equal(model.run(IDS, keep="blocks.*.mid").logits, model.run(IDS).logits)
