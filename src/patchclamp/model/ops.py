"""Operations: values that pass no module boundary, tapped at the function call that makes or reads them.

`mid` of a pre-norm block is the result of an addition in the block's own code; a granite block multiplies what it adds. A
function mode, alive on this thread only while a model runs, counts the calls each scope makes and hands the wanted
operands and results to the tap. Inside the modules a scope calls it stands aside, and is not even in force: a function
mode slows down every call it sees.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from patchclamp.model.place import Place
from patchclamp.model.watch import name_of, tensors_in

Passing = Callable[[Place, Tensor], Tensor]


class Scope:
    """One module call whose own function calls are counted."""

    def __init__(self, places: list[Place]) -> None:
        self.wanted: dict[tuple[str, int], list[Place]] = {}
        for place in places:
            self.wanted.setdefault(place.op, []).append(place)
        self.names = {name for name, _ in self.wanted}
        self.counts: Counter[str] = Counter()


class Operations(TorchFunctionMode):
    """Function calls of the scope on top of the stack go through `passing`; None on top means stand aside."""

    def __init__(self, passing: Passing) -> None:
        super().__init__()
        self.passing = passing
        self.stack: list[Scope | None] = []
        self.flips: list[bool] = []
        """For each entry of the stack whether it put the mode in force, or out of it."""
        self.active = False

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """While open, scopes may be entered; afterwards the mode is out of force, whatever happened."""
        try:
            yield
        finally:
            while _get_current_function_mode() is self:
                self.__exit__(None, None, None)

    def enter(self, scope: Scope | None) -> None:
        """A module is being called: its own function calls are counted in this scope, or, for None, left alone."""
        wanted = scope is not None
        self.stack.append(scope)
        # A mode of the model's own may lie on top; then this one stays in force beneath it, and stands aside.
        self.flips.append(wanted != self.active and (wanted or _get_current_function_mode() is self))
        if self.flips[-1]:
            self._flip()

    def leave(self) -> None:
        """That module is done."""
        self.stack.pop()
        if self.flips.pop():
            self._flip()

    def _flip(self) -> None:
        self.active = not self.active
        if self.active:
            self.__enter__()
        else:
            self.__exit__(None, None, None)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        scope = self.stack[-1] if self.stack else None
        if scope is None:
            return func(*args, **kwargs)
        name = name_of(func)
        if name not in scope.names:
            return func(*args, **kwargs)
        places = scope.wanted.get((name, scope.counts[name]), ())
        for place in places:
            if place.kind == "operand":
                args, kwargs = self._operand(place, args, kwargs)
        self.stack.append(None)  # what the tap computes is not the model's
        try:
            result = func(*args, **kwargs)
        finally:
            self.stack.pop()
        if result is NotImplemented or not any(True for _ in tensors_in(result)):
            return result
        scope.counts[name] += 1
        for place in places:
            if place.kind == "result":
                result = self._result(place, result)
        return result

    def _operand(self, place: Place, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        found = list(tensors_in((args, kwargs)))
        assert isinstance(place.slot, int)
        old = found[place.slot]
        new = self._pass(place, old)
        return (args, kwargs) if new is old else _swap((args, kwargs), old, new)

    def _result(self, place: Place, result: Any) -> Any:
        if isinstance(result, Tensor):
            return self._pass(place, result)
        assert isinstance(place.slot, int)
        made = list(result)
        made[place.slot] = self._pass(place, made[place.slot])
        return type(result)(made) if type(result) in (tuple, list) else tuple(made)

    def _pass(self, place: Place, raw: Tensor) -> Tensor:
        self.stack.append(None)
        try:
            return self.passing(place, raw)
        finally:
            self.stack.pop()


class Overlay(TorchFunctionMode):
    """While active, edited weights stand in wherever a function reads the parameter they were made from."""

    def __init__(self, weights: Mapping[tuple[int, bool], Tensor]) -> None:
        super().__init__()
        self.weights = weights

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # A tied matrix is read as an embedding and as an unembedding; an edit of one leaves the other.
        embeds = name_of(func) == "embedding"
        args, kwargs = self._stand_in((args, kwargs or {}), embeds)
        return func(*args, **kwargs)

    def _stand_in(self, node: Any, embeds: bool) -> Any:
        if isinstance(node, Tensor):
            return self.weights.get((id(node), embeds), node)
        if type(node) is dict:
            return {k: self._stand_in(v, embeds) for k, v in node.items()}
        if type(node) in (tuple, list):
            return type(node)(self._stand_in(v, embeds) for v in node)
        return node


def _swap(tree: Any, old: Tensor, new: Tensor) -> Any:
    """The same arguments with one tensor replaced, at its first occurrence."""
    done = [False]

    def walk(node: Any) -> Any:
        if node is old and not done[0]:
            done[0] = True
            return new
        if isinstance(node, dict):
            return {k: walk(v) for k, v in node.items()}
        if type(node) in (tuple, list):
            return type(node)(walk(v) for v in node)
        return node

    return walk(tree)
