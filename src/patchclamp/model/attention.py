"""The one doorway into attention: a function that sees q, k, v of every layer that goes through transformers' interface.

`AttentionInterface.get_interface` is where every attention module asks for its kernel. While a doorway is open on this
thread, what it answers is our function, which gets the kernel the module would have used, the model file's own eager
function, and the call's arguments. A layer nobody asks about goes straight to its own kernel, bit for bit. Where scores or
the pattern are wanted, the model's own eager function runs and the softmax it calls is tapped: soft-caps, sinks and
sliding windows are right because they are not ours.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from patchclamp.core.errors import Unserved

Handler = Callable[..., Any]
"""(kernel, eager, module, query, key, value, mask, **kwargs) -> what the kernel returns"""

_handler: ContextVar[Handler | None] = ContextVar("patchclamp_doorway", default=None)
_lock = threading.Lock()
_open = 0


@contextlib.contextmanager
def doorway(handler: Handler) -> Iterator[None]:
    """While open, attention on this thread goes through `handler`. Other threads keep their own kernels."""
    token = _handler.set(handler)
    _install()
    try:
        yield
    finally:
        _remove()
        _handler.reset(token)


def _install() -> None:
    global _open
    from transformers.modeling_utils import AttentionInterface

    with _lock:
        if _open == 0:
            original = AttentionInterface.get_interface

            def get_interface(self, attn_implementation, default):
                kernel = original(self, attn_implementation, default)
                handler = _handler.get()
                return kernel if handler is None else partial(handler, kernel, default)

            get_interface.original = original  # type: ignore[attr-defined]
            AttentionInterface.get_interface = get_interface  # type: ignore[method-assign]
        _open += 1


def _remove() -> None:
    global _open
    from transformers.modeling_utils import AttentionInterface

    with _lock:
        _open -= 1
        if _open == 0:
            AttentionInterface.get_interface = AttentionInterface.get_interface.original  # type: ignore[attr-defined]


def additive(mask: Tensor | None, module: nn.Module, query: Float[Tensor, "batch head query d_head"],
             key: Float[Tensor, "batch kv_head key d_head"], is_causal: bool | None) -> Tensor | None:  # fmt: skip
    """The mask that an eager function adds to the scores, from the one its fast kernel was given.

    Fast kernels get None (causal, or no mask at all) or booleans; eager functions add zeros and the smallest number.
    """
    if mask is None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        rows, columns = query.shape[2], key.shape[2]
        if not causal or rows == 1:
            return None
        mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril(columns - rows)[None, None]
    if mask.ndim == 2:
        raise Unserved(
            "attention scores and patterns need a mask per query; flash kernels hold none. "
            'Load the model with attn_implementation="sdpa" or "eager".'
        )
    if mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), dtype=query.dtype, device=query.device)
    return torch.where(mask, zero, torch.finfo(query.dtype).min)


class Softmax(TorchFunctionMode):
    """While active on this thread: what goes into each softmax and what comes out passes through two functions."""

    def __init__(self, scores: Callable[[Tensor], Tensor], pattern: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scores, self.pattern, self.count = scores, pattern, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") != "softmax":
            return func(*args, **kwargs)
        self.count += 1
        if args:
            args = (self.scores(args[0]), *args[1:])
        else:
            kwargs = {**kwargs, "input": self.scores(kwargs["input"])}
        return self.pattern(func(*args, **kwargs))


def trial(
    kernel: Callable,
    eager: Callable,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    z: Tensor,
    kwargs: dict,
) -> dict:
    """Whether a model's eager function can stand in for its kernel: one softmax, the same result."""  # fmt: skip
    seen: list[Tensor] = []
    tap = Softmax(lambda scores: scores, lambda pattern: seen.append(pattern) or pattern)
    try:
        with torch.no_grad(), tap:
            if kernel is not eager:  # else its masks are eager's already, and none means that everything is seen
                mask = additive(mask, module, query, key, kwargs.get("is_causal"))
            made = eager(module, query, key, value, mask, **kwargs)[0]
    except Exception as error:
        return {"pattern": (), "reason": f"its eager attention function fails ({type(error).__name__}: {error})"}
    if tap.count != 1 or seen[0].ndim != 4:
        return {"pattern": (), "reason": f"its eager attention takes {tap.count} softmaxes over keys"}
    gap = (made - z).abs().max().item() / max(z.abs().max().item(), 1e-9)
    if not gap < (1e-3 if z.dtype == torch.float32 else 5e-2):
        return {"pattern": (), "reason": f"its eager attention differs from its kernel by {gap:.1e} (relative)"}
    return {"pattern": tuple(seen[0].shape), "reason": ""}
