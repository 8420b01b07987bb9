"""Edge attribution patching: the weights of all edges at once, from gradients.

To first order, cutting a wire changes the metric by what the sender writes differently times the gradient of the metric at
the receiver's end (Syed et al. 2023). Where the metric or a softmax is saturated that gradient says little; taking it along
the way from the corrupt to the clean embedding helps (EAP-IG, Hanna et al. 2024), as does moving one sender's activation at
a time. Both are estimates: `check` measures them against exact edges on a sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.circuit.edges import Question, Weights
from patchclamp.core.agreement import Agreement, chosen
from patchclamp.core.edit import Edit
from patchclamp.core.progress import progress
from patchclamp.model.model import Model
from patchclamp.model.wires import Written


def eap(q: Question) -> Weights:
    """Edge attribution patching: two forward passes, one backward, and one product of tables."""
    return _products(q, q.model, q.ours - q.theirs)


def eap_ig(steps: int = 5, along: str = "inputs", start: float = 1.0) -> Callable[[Question], Weights]:
    """Edge attribution patching with integrated gradients.

    `along="inputs"` takes gradients at `steps` points between the corrupt and the clean embedding (after Hanna et al. 2024);
    `along="activations"` moves the output of one layer at a time, everything before it being clean: dearer, and better where
    an answer rests on interacting layers. The points are `(k + start) / steps` for k from 0: with `start=1` the last one is
    the clean run, as in the paper; with 0 the first one is the corrupt run; 0.5 takes the middle of every step.
    """
    if along not in ("inputs", "activations"):
        raise ValueError(f'along is "inputs" or "activations", not "{along}".')
    if steps < 1 or not 0 <= start <= 1:
        raise ValueError(f"steps is one or more and start is between 0 and 1; got {steps} and {start:g}.")
    points = [(k + start) / steps for k in range(steps)]

    def estimate(q: Question) -> Weights:
        return _along_inputs(q, points) if along == "inputs" else _along_activations(q, points)

    estimate.__name__ = f"eap_ig(steps={steps}, along={along!r})"
    return estimate


def check(q: Question, weights: Weights, sample: int = 50, seed: int = 0) -> Agreement:
    """Compare estimated weights with exact ones: on the strongest edges by estimate, and on as many others by lot.

    >>> from patchclamp.circuit.edges import Question
    >>> q = Question.of(model, clean, corrupt, pc.logit_diff(" Mary", " John"))
    >>> check(q, eap(q), sample=10).grid.axes
    ('kind', 'edge')
    """
    places, said = q.all().nonzero(), weights[q.all()]
    some = chosen(said, sample, seed)
    base, exact = q.ends[0].mean(), []
    for n in progress(some, label="checking"):
        cut = torch.zeros(weights.shape)
        cut[tuple(places[n])] = 1
        exact.append(float(base - q.cut(cut).mean()))
    names = [f"{q.wires.senders[s]} -> {q.wires.receivers[r]}{''.join(f' @{p}' for p in pos)}"
             for r, s, *pos in places[some].tolist()]  # fmt: skip
    return Agreement.of(torch.tensor(exact), said[some], names, "edge")


def _products(q: Question, model: Model, difference: Tensor, senders: slice = slice(None)) -> Weights:
    """What senders write differently, times the gradient at the end of every wire, in one run on the clean prompt."""
    run = model.run(q.clean, q.wires.ends_sites, grad=True)
    slope = run.gradient(q.metric)
    found = q.table()
    for reader, arrived in q.wires.ends(q.clean, run, slope):
        heard = range(*senders.indices(reader.before))
        if heard:
            mine = difference[heard.start : heard.stop]
            found[list(reader.rows), heard.start : heard.stop] = table(arrived, mine, q.positions).cpu() / q.clean.batch
    return found


def table(arrived: Float[Tensor, "row batch pos d_model"], written: Written, positions: bool = False) -> Weights:
    """What arrives at some receivers times what some senders write: summed over prompts and features, and over tokens or not.

    As one product of matrices; einsum takes seven times as long, for it brings the features in another order first.
    """
    a, b = arrived.float(), written.float()
    if not positions:
        return a.flatten(1) @ b.flatten(1).T
    a, b = (x.permute(2, 0, 1, 3).flatten(2) for x in (a, b))
    return torch.bmm(a, b.transpose(1, 2)).permute(1, 2, 0)


def _along_inputs(q: Question, points: list[float]) -> Weights:
    first = f"{q.wires.blocks[0].path}.in"
    total = q.table()
    difference = q.ours - q.theirs
    for point in progress(points, label="gradients"):
        model = q.model.edit(Edit(first, _to(q.theirs[0] + point * difference[0])))
        total += _products(q, model, difference) / len(points)
    return total


def _along_activations(q: Question, points: list[float]) -> Weights:
    difference = q.ours - q.theirs
    total = q.table()
    for site, seats in progress(_layers(q), label="gradients"):
        for point in points:
            model = q.model.edit(Edit(site, _less((1 - point) * difference[seats].sum(0))))
            total += _products(q, model, difference, seats) / len(points)
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
