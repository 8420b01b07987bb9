"""Hooks and replaced forwards: on this thread, for this call, and gone afterwards."""

import threading

import pytest
import torch
from torch import nn

from patchclamp.model.tap import Taps, tapped


def stack():
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))


def taps_adding(value):
    taps = Taps()
    taps.add_after("0", lambda args, kwargs, output: output + value)
    return taps


def clean(module):
    return not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in module.modules())


def test_hooks_are_gone_after_success_and_after_failure():
    module, x = stack(), torch.randn(2, 3)
    before = module(x)
    with tapped(module, taps_adding(1.0)):
        assert not torch.equal(module(x), before)
    assert clean(module) and torch.equal(module(x), before)
    with pytest.raises(ZeroDivisionError), tapped(module, taps_adding(1.0)):
        raise ZeroDivisionError
    assert clean(module)


def test_another_thread_is_not_touched():
    module, x = stack(), torch.randn(2, 3)
    before, seen = module(x), []
    with tapped(module, taps_adding(1.0)):
        thread = threading.Thread(target=lambda: seen.append(module(x)))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], before)


def test_another_thread_may_see_a_hook_half_registered():
    module, seen = stack(), []
    taps = taps_adding(1.0)
    taps.add_before("0", lambda args, kwargs: (args, kwargs))
    with tapped(module, taps):
        hooks = [*module[0]._forward_hooks.values(), *module[0]._forward_pre_hooks.values()]
        thread = threading.Thread(target=lambda: seen.extend(hook(module[0], ()) for hook in hooks))
        thread.start()
        thread.join()
    assert seen == [None, None]


def test_functions_run_in_order_and_first_goes_first():
    module, order = stack(), []
    taps = Taps()
    for name in ("a", "b"):
        taps.add_before("1", lambda args, kwargs, name=name: (order.append(name), (args, kwargs))[1])
    taps.add_before("1", lambda args, kwargs: (order.append("c"), (args, kwargs))[1], first=True)
    with tapped(module, taps):
        module(torch.randn(1, 3))
    assert order == ["c", "a", "b"]


def test_a_forward_can_be_replaced_for_a_while():
    module, x = stack(), torch.randn(2, 3)
    taps = Taps(instead={"0": lambda x: x})
    with tapped(module, taps):
        assert torch.equal(module(x), module[1].forward(x))
        seen = []
        thread = threading.Thread(target=lambda: seen.append(module[0](x)))
        thread.start()
        thread.join()
        assert not torch.equal(seen[0], x)  # the other thread has the module's own forward
    assert clean(module)


def test_replacements_nest_and_keep_a_forward_of_the_modules_own():
    module, x = stack(), torch.randn(2, 3)
    own = lambda x: x * 2  # noqa: E731
    module[0].forward = own
    with tapped(module, Taps(instead={"0": lambda x: x})):
        with tapped(module, Taps(instead={"0": lambda x: x * 3})):
            assert torch.equal(module[0](x), x * 3)
        assert torch.equal(module[0](x), x)
    assert module[0].forward is own


def test_replacements_of_two_threads_do_not_end_each_other():
    module, x = stack(), torch.randn(2, 3)
    inside, go = threading.Event(), threading.Event()
    seen = []

    def other():
        with tapped(module, Taps(instead={"0": lambda x: x * 5})):
            inside.set()
            go.wait(5)
            seen.append(module[0](x))

    thread = threading.Thread(target=other)
    with tapped(module, Taps(instead={"0": lambda x: x})):
        thread.start()
        inside.wait(5)
    go.set()
    thread.join()
    assert torch.equal(seen[0], x * 5) and clean(module)
