"""Edge attribution patching: the weights of all edges at once, from gradients.

To first order, cutting a wire changes the metric by what the sender writes differently times the gradient of the metric at
the receiver's end (Syed et al. 2023). Where the metric or a softmax is saturated that gradient says little; taking it along
the way from the corrupt to the clean embedding helps (EAP-IG, Hanna et al. 2024), as does moving one sender's activation at
a time. Both are estimates: `check` measures them against exact edges on a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from patchclamp.circuit.edges import Question, Weights
from patchclamp.core.edit import Edit
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.model.model import Model


def eap(q: Question) -> Weights:
    """Edge attribution patching: two forward passes, one backward, and one product of tables."""
    return _products(q, q.model, q.ours - q.theirs)


def eap_ig(steps: int = 5, along: str = "inputs") -> Callable[[Question], Weights]:
    """Edge attribution patching with integrated gradients.

    `along="inputs"` takes gradients at `steps` points between the corrupt and the clean embedding (after Hanna et al. 2024);
    `along="activations"` moves the output of one layer at a time, everything before it being clean: dearer, and better where
    an answer rests on interacting layers.
    """
    if along not in ("inputs", "activations"):
        raise ValueError(f'along is "inputs" or "activations", not "{along}".')

    def estimate(q: Question) -> Weights:
        return _along_inputs(q, steps) if along == "inputs" else _along_activations(q, steps)

    estimate.__name__ = f"eap_ig(steps={steps}, along={along!r})"
    return estimate


@dataclass(frozen=True)
class Agreement:
    """How well estimated weights agree with exact ones on a sample of edges."""

    edges: int
    spearman: float
    """Rank correlation; 1 is perfect."""
    error: float
    """Mean absolute difference over the mean exact magnitude."""
    saturated: int
    """Edges whose exact effect is at least a tenth of the largest while the estimate says less than a tenth of that effect."""


def check(q: Question, weights: Weights, sample: int = 50, seed: int = 0) -> tuple[Agreement, Grid]:
    """Compare estimated weights with exact ones: on the strongest edges by estimate, and on as many others by lot."""
    rows, columns = q.wires.joined.nonzero(as_tuple=True)
    order = weights[rows, columns].abs().argsort(descending=True).tolist()
    strong, rest = order[: sample // 2], order[sample // 2 :]
    chosen = strong + Random(seed).sample(rest, min(sample - len(strong), len(rest)))
    base, exact = q.ends[0].mean(), []
    for n in progress(chosen, label="checking"):
        cut = torch.zeros(weights.shape)
        cut[rows[n], columns[n]] = 1
        exact.append(float(base - q.cut(cut).mean()))
    said, true = weights[rows[chosen], columns[chosen]], torch.tensor(exact)
    missed = (true.abs() >= 0.1 * true.abs().max()) & (said.abs() < 0.1 * true.abs())
    error = float((said - true).abs().mean() / true.abs().mean().clamp(min=1e-9))
    found = Agreement(len(chosen), _rank_correlation(said, true), error, int(missed.sum()))
    names = [f"{q.wires.senders[columns[n]]} -> {q.wires.receivers[rows[n]]}" for n in chosen]
    grid = Grid(
        torch.stack([true, said]), ("kind", "edge"), {"kind": ["exact", "estimated"], "edge": names}, title="Edges, checked"
    )
    return found, grid


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    from scipy.stats import spearmanr

    found: Any = spearmanr(a, b)
    return float(found.statistic)


def _products(q: Question, model: Model, difference: Tensor, senders: slice = slice(None)) -> Weights:
    """What senders write differently, times the gradient at the end of every wire, in one run on the clean prompt."""
    run = model.run(q.clean, q.wires.ends_sites, grad=True)
    slope = run.gradient(q.metric)
    found = torch.zeros(len(q.wires.receivers), len(q.wires.senders))
    for reader, arrived in q.wires.ends(q.clean, run, slope):
        heard = range(*senders.indices(reader.before))
        if heard:
            mine = difference[heard.start : heard.stop]
            made = torch.einsum("rbpd,sbpd->rs", arrived.float(), mine.float()) / q.clean.batch
            found[list(reader.rows), heard.start : heard.stop] = made.cpu()
    return found


def _along_inputs(q: Question, steps: int) -> Weights:
    first = f"{q.wires.blocks[0].path}.in"
    total = torch.zeros(len(q.wires.receivers), len(q.wires.senders))
    for k in progress(range(1, steps + 1), label="gradients"):
        embedding = q.theirs[0] + (k / steps) * (q.ours[0] - q.theirs[0])
        model = q.model.edit(Edit(first, _to(embedding)))
        total += _products(q, model, q.ours - q.theirs) / steps
    return total


def _along_activations(q: Question, steps: int) -> Weights:
    difference = q.ours - q.theirs
    total = torch.zeros(len(q.wires.receivers), len(q.wires.senders))
    for site, seats in progress(_layers(q), label="gradients"):
        for k in range(1, steps + 1):
            back = (1 - k / steps) * difference[seats].sum(0)
            model = q.model.edit(Edit(site, _less(back)))
            total += _products(q, model, difference, seats) / steps
    return total


def _layers(q: Question) -> list[tuple[str, slice]]:
    """Every place where senders join the stream together, and their seats."""
    found, seat = [(f"{q.wires.blocks[0].path}.in", slice(0, 1))], 1
    for block in q.wires.blocks:
        for name in ("attn", "mlp"):
            write = block.write(name)
            if write is not None:
                n = write.heads if name == "attn" else 1
                found.append((f"{block.path}.{name}.out", slice(seat, seat + n)))
                seat += n
    return found


def _to(value: Tensor):
    return lambda old: value.to(old.dtype)


def _less(value: Tensor):
    return lambda old: old - value.to(old.dtype)
