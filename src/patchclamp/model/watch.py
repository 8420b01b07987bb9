"""Watch one forward pass and write down what happened: which modules ran, which functions they called, on which values.

A model's file is its own documentation: instead of a table of module names for every family, the anatomy is read from a
recording of one small forward pass. The recording knows nothing of attention or residual streams; it is a list of module
visits and function calls whose tensors carry value numbers, equal where the same value is handed on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from patchclamp.model.attention import doorway, trial
from patchclamp.model.tap import Before, Taps, tapped

DOOR = "<attention>"
"""The path under which a passage through the attention interface is written down."""
SAME = {
    "to",
    "float",
    "type",
    "type_as",
    "contiguous",
    "clone",
    "dropout",
    "feature_dropout",
    "detach",
    "double",
    "half",
}
"""Functions that hand on the same numbers, perhaps in another dtype."""
LAYOUT = {
    "view", "reshape", "transpose", "permute", "flatten", "unflatten", "squeeze", "unsqueeze", "chunk", "split", "unbind",
    "__getitem__", "T", "mT", "movedim", "swapaxes", "narrow", "select", "tensor_split", "view_as", "reshape_as", "t",
    "split_with_sizes", "swapdims", "moveaxis",
}  # fmt: skip
"""Functions that only rearrange numbers or take some of them."""

Slot = int | str | None


@dataclass(eq=False)
class Call:
    """One function call: what went in, what came out, and the module it happened in."""

    time: int
    name: str
    function: Callable
    args: tuple
    kwargs: dict
    ins: tuple[int, ...]
    """Value numbers of the tensors among the arguments."""
    outs: tuple[int, ...]
    visit: int
    """The innermost module visit it happened in."""


@dataclass(eq=False)
class Visit:
    """One call of a module: its inputs and outputs by slot (argument index or name; output index, name, or None)."""

    number: int
    path: str
    ordinal: int
    """0 for the first call of this module in the pass; a shared layer is called again and again."""
    parent: int
    begin: int
    module: nn.Module
    ins: dict[Slot, int] = field(default_factory=dict)
    outs: dict[Slot, int] = field(default_factory=dict)
    end: int = -1
    facts: dict[str, Any] = field(default_factory=dict)
    """Further things noticed, e.g. whether an eager function can stand in for a kernel."""


@dataclass(eq=False)
class Recording:
    """Everything one forward pass did, in order."""

    calls: list[Call] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    """The tensor behind each value number."""
    result: Any = None
    versions: list[int] = field(default_factory=list)
    """How often each tensor had been changed in place when it got its value number."""

    @cached_property
    def changed(self) -> set[int]:
        """Value numbers of tensors that were later changed in place."""
        return {vn for vn, (t, n) in enumerate(zip(self.values, self.versions)) if t._version != n}

    @cached_property
    def producer(self) -> dict[int, Call]:
        """The call that made each value."""
        return {vn: call for call in self.calls for vn in call.outs if vn not in call.ins}

    @cached_property
    def consumers(self) -> dict[int, list[Call]]:
        """The calls that read each value."""
        found: dict[int, list[Call]] = {}
        for call in self.calls:
            for vn in dict.fromkeys(call.ins):
                found.setdefault(vn, []).append(call)
        return found

    def source(self, vn: int) -> int:
        """The value this one is merely handed on from (a cast, a dropout that is off)."""
        while True:
            call = self.producer.get(vn)
            if call is None or call.name not in SAME or self.values[call.ins[0]].shape != self.values[vn].shape:
                return vn
            vn = call.ins[0]

    def visits_of(self, call: Call) -> list[Visit]:
        """The module visits around a call, innermost first."""
        return self.chain(call.visit)

    def chain(self, number: int) -> list[Visit]:
        """A visit and those around it, innermost first."""
        found = []
        while number >= 0:
            found.append(self.visits[number])
            number = self.visits[number].parent
        return found

    def ancestors(self, vn: int, stop: set[int], since: int = 0) -> tuple[list[Call], set[int]]:
        """The calls that led to a value, back to the values in `stop`, and every value met on the way."""
        seen: set[int] = set()
        calls: dict[int, Call] = {}
        todo = [vn]
        while todo:
            v = todo.pop()
            if v in seen:
                continue
            seen.add(v)
            call = self.producer.get(v)
            if v in stop or call is None or call.time < since:
                continue
            calls[call.time] = call
            todo.extend(call.ins)
        return [calls[t] for t in sorted(calls)], seen


class _Recorder(TorchFunctionMode):
    """Sees every torch function called on this thread while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.tape = Recording()
        self.numbers: dict[int, int] = {}
        self.stack: list[int] = [-1]
        self.counts: dict[str, int] = {}
        self.time = 0
        self.paused = False

    def number(self, tensor: Tensor, fresh: bool = False) -> int:
        if fresh or id(tensor) not in self.numbers:
            self.numbers[id(tensor)] = len(self.tape.values)
            self.tape.values.append(tensor)  # also keeps it alive, so that its id is not used again
            self.tape.versions.append(tensor._version)
        return self.numbers[id(tensor)]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        name = name_of(func)
        ins = tuple(self.number(t) for t in tensors_in((args, kwargs)))
        result = func(*args, **kwargs)
        outs = list(tensors_in(result))
        if name == "__setitem__":
            outs = [args[0]]
        if not outs:
            return result
        inputs = {id(t) for t in tensors_in((args, kwargs))}
        in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE
        if torch.is_grad_enabled() and isinstance(result, Tensor):
            result = _rooted(result, name)
            outs = [result]
        numbers = tuple(self.number(t, fresh=in_place and id(t) in inputs) for t in outs)
        self.tape.calls.append(Call(self.time, name, func, args, kwargs, ins, numbers, self.stack[-1]))
        self.time += 1
        return result

    def through(self, kernel, eager, module, query, key, value, attention_mask, **kwargs):
        """The doorway into attention: written down as a visit of its own."""
        self.enter(DOOR, module, (), {"q": query, "k": key, "v": value})
        visit = self.tape.visits[self.stack[-1]]
        result = kernel(module, query, key, value, attention_mask, **kwargs)
        self.leave(result)
        self.paused = True
        try:
            visit.facts = trial(kernel, eager, module, query, key, value, attention_mask, result[0], kwargs)
        finally:
            self.paused = False
        return result

    def enter(self, path: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        ordinal = self.counts.get(path, 0)
        self.counts[path] = ordinal + 1
        visit = Visit(len(self.tape.visits), path, ordinal, self.stack[-1], self.time, module)
        visit.ins = {slot: self.number(t) for slot, t in slots(args, kwargs)}
        self.tape.visits.append(visit)
        self.stack.append(visit.number)

    def entering(self, path: str, module: nn.Module) -> Before:
        def before(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            self.enter(path, module, args, kwargs)
            return args, kwargs

        return before

    def leaving(self, args: tuple, kwargs: dict, output: Any) -> Any:
        self.leave(output)
        return output

    def leave(self, output: Any) -> None:
        visit = self.tape.visits[self.stack.pop()]
        visit.end = self.time
        visit.outs = {slot: self.number(t) for slot, t in outputs(output)}


_IN_PLACE = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "index_add_", "copy_"}


def watch(module: nn.Module, inputs: dict[str, Any]) -> Recording:
    """Run `module(**inputs)` once and return what it did. Nothing of the module is left changed."""
    recorder = _Recorder()
    taps = Taps()
    for path, part in module.named_modules():
        taps.add_before(path, recorder.entering(path, part))
        taps.add_after(path, recorder.leaving)
    with contextlib.ExitStack() as stack:
        stack.enter_context(tapped(module, taps))
        if isinstance(module, _pretrained()):
            stack.enter_context(doorway(recorder.through))
        with torch.enable_grad(), recorder:
            recorder.tape.result = module(**inputs)
    return recorder.tape


def _pretrained() -> tuple[type, ...]:
    """Hugging Face's model class where transformers is in use; a foreign module does not need it."""
    modeling = sys.modules.get("transformers.modeling_utils")
    return (modeling.PreTrainedModel,) if modeling else ()


def _rooted(result: Tensor, name: str) -> Tensor:
    """Frozen weights leave no graph; the first floating-point values of the pass become its leaves.

    What goes on is a copy, since a model may write into it, and nothing may write into a leaf.
    """
    first = name in ("embedding", "conv1d", "conv2d", "conv3d", "linear") and result.is_floating_point()
    return result.requires_grad_().clone() if first and not result.requires_grad else result


def name_of(function: Callable) -> str:
    """A function's name; of a property, the property's."""
    name = getattr(function, "__name__", "")
    if name == "__get__":  # a property such as Tensor.T
        return getattr(getattr(function, "__self__", None), "__name__", name)
    return name


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Every tensor in nested dictionaries, tuples and lists."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from tensors_in(part)
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from tensors_in(part)


def slots(args: tuple, kwargs: dict) -> Iterator[tuple[Slot, Tensor]]:
    """The tensors a module was handed, by slot: an index or a name."""
    for i, value in enumerate(args):
        if isinstance(value, Tensor):
            yield i, value
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            yield name, value


def outputs(output: Any) -> Iterator[tuple[Slot, Tensor]]:
    """The tensors a module returned, by slot: None for a lone tensor, else an index or a name."""
    if isinstance(output, Tensor):
        yield None, output
    elif isinstance(output, dict):
        for name, value in output.items():
            if isinstance(value, Tensor):
                yield name, value
    elif isinstance(output, (tuple, list)):
        for i, value in enumerate(output):
            if isinstance(value, Tensor):
                yield i, value
