"""Patchclamp reads any place in a transformer's forward pass, changes it, and asks how much it mattered.

    import patchclamp as pc

    model = pc.load("specimen:town")
    run = model.run("When Mary and John went to the store, John gave a drink to", keep="blocks.*.attn.pattern")

This is the front door: a list of names, each found when it is first used, so that importing costs nothing. The examples in
the docstrings behind it go on from these lines:

    clean = "When Mary and John went to the store, John gave a drink to"
    corrupt = "When Mary and John went to the store, Mary gave a drink to"
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchclamp.cause.effects import effects as effects
    from patchclamp.cause.estimate import gradient as gradient
    from patchclamp.core.dictionary import Dictionary as Dictionary
    from patchclamp.core.edit import Edit as Edit
    from patchclamp.core.edit import clamp as clamp
    from patchclamp.core.edit import freeze as freeze
    from patchclamp.core.edit import mean as mean
    from patchclamp.core.edit import patch as patch
    from patchclamp.core.edit import project as project
    from patchclamp.core.edit import splice as splice
    from patchclamp.core.edit import steer as steer
    from patchclamp.core.edit import zero as zero
    from patchclamp.core.errors import PatchclampError as PatchclampError
    from patchclamp.core.graph import Edge as Edge
    from patchclamp.core.graph import Graph as Graph
    from patchclamp.core.graph import Node as Node
    from patchclamp.core.grid import Grid as Grid
    from patchclamp.core.metric import kl as kl
    from patchclamp.core.metric import logit as logit
    from patchclamp.core.metric import logit_diff as logit_diff
    from patchclamp.core.metric import nll as nll
    from patchclamp.core.metric import prob as prob
    from patchclamp.core.metric import rank as rank
    from patchclamp.core.run import Run as Run
    from patchclamp.core.site import Site as Site
    from patchclamp.lenses.direct import decompose as decompose
    from patchclamp.lenses.direct import direct as direct
    from patchclamp.lenses.logit import lens as lens
    from patchclamp.lenses.tuned import TunedLens as TunedLens
    from patchclamp.model.load import load as load
    from patchclamp.model.model import Model as Model
    from patchclamp.probe.contrast import contrast as contrast

_ROOMS = {
    "cause.effects": ("effects",),
    "cause.estimate": ("gradient",),
    "core.dictionary": ("Dictionary",),
    "core.edit": ("Edit", "clamp", "freeze", "mean", "patch", "project", "splice", "steer", "zero"),
    "core.errors": ("PatchclampError",),
    "core.graph": ("Edge", "Graph", "Node"),
    "core.grid": ("Grid",),
    "core.metric": ("kl", "logit", "logit_diff", "nll", "prob", "rank"),
    "core.run": ("Run",),
    "core.site": ("Site",),
    "lenses.direct": ("decompose", "direct"),
    "lenses.logit": ("lens",),
    "lenses.tuned": ("TunedLens",),
    "model.load": ("load",),
    "model.model": ("Model",),
    "probe.contrast": ("contrast",),
}
_WHERE = {name: f"patchclamp.{room}" for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"patchclamp has no {name!r}; it has {', '.join(__all__)}.")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
