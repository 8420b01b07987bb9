"""Tap: the one file that touches a running model. It puts hooks in for the length of a call, and takes them out again.

Hooks answer only on the thread, and for the call, that put them there, so two threads can run different edits on one model
at one time. A module's forward can also be replaced for the length of a call: a sweep hands on what it has stored.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Before = Callable[[tuple, dict], tuple[tuple, dict]]
"""A module's arguments, before it runs, to the arguments it is to run with."""
After = Callable[[tuple, dict, Any], Any]
"""A module's arguments and output to the output it is to have."""

_owner: ContextVar[object] = ContextVar("patchclamp_tap", default=None)


@dataclass(eq=False)
class Taps:
    """What is to happen around each module, by its path; several functions run in order."""

    before: dict[str, list[Before]] = field(default_factory=dict)
    after: dict[str, list[After]] = field(default_factory=dict)
    finally_before: dict[str, Before] = field(default_factory=dict)
    """What happens to a module's arguments after all of `before`."""
    instead: dict[str, Callable[..., Any]] = field(default_factory=dict)
    """Replacements of a module's forward."""

    def add_before(self, path: str, function: Before, first: bool = False) -> None:
        self.before.setdefault(path, []).insert(0 if first else len(self.before.get(path, [])), function)

    def add_after(self, path: str, function: After, first: bool = False) -> None:
        self.after.setdefault(path, []).insert(0 if first else len(self.after.get(path, [])), function)


@contextlib.contextmanager
def tapped(module: nn.Module, taps: Taps) -> Iterator[None]:
    """While open, on this thread, the taps are in place. Nothing of them is left afterwards, whatever happened."""
    token = _owner.set(taps)
    with contextlib.ExitStack() as stack:
        stack.callback(_owner.reset, token)
        found = {path: module.get_submodule(path) for path in {*taps.instead, *taps.before, *taps.finally_before, *taps.after}}
        for path in taps.instead:
            stack.enter_context(_substituted(found[path]))
        for path in {**taps.before, **taps.finally_before}:
            functions = [*taps.before.get(path, ()), *filter(None, [taps.finally_before.get(path)])]
            stack.callback(found[path].register_forward_pre_hook(_pre(taps, functions), with_kwargs=True).remove)
        for path, functions in taps.after.items():
            stack.callback(found[path].register_forward_hook(_post(taps, functions), with_kwargs=True).remove)
        for path in taps.instead:
            _replacing.setdefault(id(taps), {})[id(found[path])] = taps.instead[path]
            stack.callback(_replacing.pop, id(taps), None)
        yield


def _pre(owner: Taps, functions: list[Before]) -> Callable:
    def hook(module, args, *more):
        if _owner.get() is not owner:
            return None  # of another thread, which may see the hook half registered: `more` is not looked at before
        (kwargs,) = more
        for function in functions:
            args, kwargs = function(args, kwargs)
        return args, kwargs

    return hook


def _post(owner: Taps, functions: list[After]) -> Callable:
    def hook(module, args, *more):
        if _owner.get() is not owner:
            return None
        kwargs, output = more
        for function in functions:
            output = function(args, kwargs, output)
        return output

    return hook


_lock = threading.Lock()
_substitutes: dict[int, tuple[int, Any]] = {}
"""For each module with a replaced forward: how many calls want it so, and the forward it had of its own, if any."""
_replacing: dict[int, dict[int, Callable[..., Any]]] = {}
"""For each set of taps in place, what it puts in the place of which module."""


@contextlib.contextmanager
def _substituted(module: nn.Module) -> Iterator[None]:
    with _lock:
        count, own = _substitutes.get(id(module), (0, module.__dict__.get("forward")))
        _substitutes[id(module)] = (count + 1, own)
        if not count:
            module.__dict__["forward"] = _router(module, own)
    try:
        yield
    finally:
        with _lock:
            count, own = _substitutes.pop(id(module))
            if count > 1:
                _substitutes[id(module)] = (count - 1, own)
            elif own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own


def _router(module: nn.Module, own: Callable | None) -> Callable:
    """A forward that asks the taps now running on this thread, and otherwise is the module's own."""
    original = type(module).forward

    def forward(*args, **kwargs):
        replacement = _replacing.get(id(_owner.get()), {}).get(id(module))
        if replacement is not None:
            return replacement(*args, **kwargs)
        return original(module, *args, **kwargs) if own is None else own(*args, **kwargs)

    return forward
