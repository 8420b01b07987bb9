"""Measure: one number a prompt for every cell of a sweep, each kept as soon as it is found (`core/journal.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import Logits, PerPrompt
from patchclamp.core.journal import digest, leaf
from patchclamp.core.metric import Metric, read
from patchclamp.core.progress import progress
from patchclamp.model.inputs import Inputs
from patchclamp.model.replay import Answer, sweep
from patchclamp.model.ride import Cell

if TYPE_CHECKING:
    from patchclamp.model.model import Model


def measure(model: Model, inputs: Inputs, cells: Sequence[Cell], metric: Callable[[Logits], PerPrompt],
            label: str) -> Float[Tensor, "cell batch"]:  # fmt: skip
    """The metric with every cell's edit in place, by itself. Where a journal is open, what it knows is not run again."""
    return _measured(model, inputs, cells, metric, label)[0]


def changes(model: Model, inputs: Inputs, cells: Sequence[Cell], metric: Callable[[Logits], PerPrompt],
            label: str) -> tuple[Float[Tensor, "cell batch"], PerPrompt]:  # fmt: skip
    """How every cell's edit, by itself, changes the metric, and the metric without any."""
    found, base = _measured(model, inputs, cells, metric, label)
    if base is None:
        base = read(metric, model.run(inputs).logits, inputs.batch)
    return found - base, base


def _measured(model: Model, inputs: Inputs, cells: Sequence[Cell], metric: Callable[[Logits], PerPrompt],
              label: str) -> tuple[Tensor, PerPrompt | None]:  # fmt: skip
    """The metric for every cell; and without any, if a run of that was made on the way, which what is resumed may not make."""
    page = leaf(label, lambda: _about(model, inputs, cells, metric))
    known = frozenset(page.known)
    found, base = torch.zeros(len(cells), inputs.batch), list[PerPrompt]()

    def one_by_one(answers: Iterator[Answer]) -> Iterator[tuple[int, PerPrompt]]:
        for answer in answers:
            ask = metric.among(answer.tokens) if isinstance(metric, Metric) and answer.tokens is not None else metric
            if not answer.cells and page.journal is None:
                base[:] = [read(ask, answer.logits[0], inputs.batch)]
            for n, logits in zip(answer.cells, answer.logits):
                yield n, read(ask, logits, inputs.batch)

    for n in known:
        found[n] = page.known[n]
    if len(known) < len(cells):
        last = isinstance(metric, Metric) and metric.columns is None
        some = metric.ids if isinstance(metric, Metric) and metric.alone else None
        answers = one_by_one(sweep(model, inputs, cells, last, known, some))
        for n, value in progress(answers, total=len(cells) - len(known), label=label):
            found[n] = value
            page.write(n, found[n])
    return found, base[0] if base else None


def _about(model: Model, inputs: Inputs, cells: Sequence[Cell], metric: Callable) -> Iterator[object]:
    """What tells one sweep from another: the model, the prompts, the places and what is asked."""
    yield from (fingerprint(model), inputs.tokens)
    yield [(cell.start, [(path, str(edit.site), edit.kind) for path, edit in cell.edits]) for cell in cells]
    yield (getattr(metric, "name", getattr(metric, "__name__", "")), getattr(metric, "tokens", ()))


def fingerprint(model: Model) -> str:
    """A short name for a model's weights and edits: the same in every process, another as soon as a weight is trained.

    Every weight counts by its sum, and the first numbers of each by themselves.
    """
    weights = [p.detach() for _, p in sorted(model.hf.named_parameters())]
    return digest(repr(model.edits), *(n for p in weights for n in (p.sum(dtype=torch.float64), p.flatten()[:64])))
