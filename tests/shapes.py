"""What checks shapes while the tests run: beartype, on the functions whose annotations have a shape, and on nothing else.

Other mistakes of type are the static checker's business, or are met with an error of the package's own, which has tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

MODULES = [f"patchclamp.{name}" for name in (
    "core.edit", "core.grid", "core.metric", "core.run", "core.window", "model.attention", "model.norms", "model.unembed",
    "model.weights", "model.wires", "cause.ablate", "cause.atp_star", "cause.comparison", "cause.effects", "cause.estimate",
    "cause.integrated", "cause.path", "cause.shapley", "cause.spread", "circuit.eap", "circuit.edges", "circuit.lessons",
    "circuit.mask", "circuit.score", "circuit.siit", "core.uncertain", "lenses.direct", "lenses.logit", "matrix.circuit",
    "matrix.frozen", "matrix.head", "matrix.paths", "matrix.scores", "matrix.sources", "matrix.spectrum", "matrix.tables",
    "matrix.trigrams", "matrix.turn", "matrix.worlds", "probe.contrast", "probe.direction", "probe.dose",
    "probe.function_vector", "probe.lesson", "lenses.parts", "lenses.readings", "lenses.affine", "lenses.future",
    "lenses.patchscope", "lenses.soft", "lenses.vocabulary", "lenses.anomaly", "lenses.causal_basis", "lenses.evaluate",
    "lenses.tuned", "lenses.tuning", "model.ending", "probe.codelength", "probe.erase", "probe.moments", "probe.smallest",
    "probe.split", "probe.stream", "probe.structural",
)]  # fmt: skip
"""Where shapes matter. Each call in these modules costs some microseconds more, so hot loops elsewhere are left alone."""

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def shapes(function: Callable) -> Callable:
    """The function, checked if it has a shape to check."""
    return _check(function) if any(map(_has_shape, function.__annotations__.values())) else function


def _has_shape(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(map(_has_shape, get_args(annotation)))
