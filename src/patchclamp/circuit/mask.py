"""Learned masks: all edges are judged together, by learning how far each can be cut (edge pruning).

Every edge gets a gate between whole and cut; gates are drawn from the hard-concrete distribution (Louizos et al. 2018), whose
samples are often exactly 0 or 1 and still have a gradient. What is learned weighs keeping the model's answer (the KL
divergence from the uncut model, or a metric) against the number of edges that stay (Bhaskar et al. 2024, "edge pruning").
A straight-through gate is always whole or cut, and takes the gradient of the sigmoid it was drawn from (Bengio et al. 2013).
Unlike weights of single edges, it sees edges that stand in for each other; unlike ACDC it has no order, and it has a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.circuit.edges import Question, graph_of
from patchclamp.core.axes import Logits, PerPrompt
from patchclamp.core.graph import Graph
from patchclamp.core.journal import leaf
from patchclamp.core.metric import Metric, kl
from patchclamp.core.progress import progress
from patchclamp.model.inputs import Prompt
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model

KINDS = ("hard-concrete", "straight-through")
LOW, HIGH, HEAT = -0.1, 1.1, 2 / 3
"""The hard-concrete distribution's stretch and temperature, as in its paper."""


@dataclass(frozen=True)
class Gates:
    """How gates are learned."""

    steps: int = 300
    rate: float = 0.1
    price: float = 1.0
    """What an edge costs, times the number of edges a whole circuit may have: the price of keeping all of them."""
    start: float = 2.0
    """The logit that all gates begin with: nearly whole."""
    seed: int = 0
    kind: Literal["hard-concrete", "straight-through"] = "hard-concrete"


def learned(model: Model, clean: Prompt, corrupt: Prompt, metric: Metric | Callable[[Logits], PerPrompt] | None = None,
            *, gates: Gates = Gates()) -> Graph:  # fmt: skip
    """Learn which edges are needed. Every edge comes back with the probability that its gate is open as weight.

    `graph.only(e for e in graph.edges if e.weight > 0.5)` is the circuit. Without a metric what is kept is the whole
    prediction (KL divergence); with one, its value: the squared distance from the clean run's, in units of the gap.
    """
    if gates.kind not in KINDS:
        raise ValueError(f'gates are {" or ".join(KINDS)}, not "{gates.kind}".')
    run = model.run(clean)
    q = Question.of(model, clean, corrupt, kl(run) if metric is None else metric)
    loss = _prediction(q) if metric is None else _value(q)
    generator = torch.Generator().manual_seed(gates.seed)
    joined = q.wires.joined
    alpha = torch.full((int(joined.sum()),), gates.start, requires_grad=True)
    optimizer = torch.optim.Adam([alpha], lr=gates.rate)
    page = leaf("gates", lambda: (fingerprint(model), q.clean.tokens, q.corrupt.tokens, *q.ends, gates))
    begun = _resumed(page.known[0], alpha, optimizer, generator) if page.known else 0
    for step in progress(range(begun, gates.steps), label="learning gates"):
        cut = torch.zeros(joined.shape)
        cut = cut.masked_scatter(joined, 1 - _drawn(alpha, generator, gates.kind))
        total = loss(q.wires.run(q.clean, q.theirs, cut, grad=True)) + gates.price * _open(alpha, gates.kind).mean()
        (alpha.grad,) = torch.autograd.grad(total, [alpha])
        optimizer.step()
        if page.journal is not None:
            page.write(0, _state(step + 1, alpha, optimizer, generator))
    weights = torch.zeros(joined.shape).masked_scatter(joined, _open(alpha.detach(), gates.kind))
    facts = {"model": model.name, "method": f"learned mask, {gates.kind} gates",
             "metric": getattr(metric, "name", "KL divergence"), "steps": str(gates.steps), "price": f"{gates.price:g}",
             "seed": str(gates.seed)}  # fmt: skip
    return graph_of(q.wires, weights, "probability", "Learned gates", facts)


def _state(step: int, alpha: Tensor, optimizer: torch.optim.Adam, generator: torch.Generator) -> Tensor:
    """Everything that the next step depends on, as one row of numbers: for keeping."""
    own = optimizer.state[alpha]
    parts = torch.tensor([float(step)]), alpha.detach(), own["exp_avg"], own["exp_avg_sq"], generator.get_state()
    return torch.cat([p.double().flatten() for p in parts])


def _resumed(state: Tensor, alpha: Tensor, optimizer: torch.optim.Adam, generator: torch.Generator) -> int:
    """Take over what was kept; the step to go on with."""
    n = alpha.numel()
    with torch.no_grad():
        alpha.copy_(state[1 : n + 1])
    own = {"step": torch.tensor(float(state[0])), "exp_avg": state[n + 1 : 2 * n + 1].float()}
    optimizer.state[alpha] = {**own, "exp_avg_sq": state[2 * n + 1 : 3 * n + 1].float()}
    generator.set_state(state[3 * n + 1 :].to(torch.uint8))
    return int(state[0])


def _prediction(q: Question) -> Callable[[Logits], Tensor]:
    return lambda logits: q.metric(logits).mean()


def _value(q: Question) -> Callable[[Logits], Tensor]:
    clean, corrupt = (end.mean() for end in q.ends)
    return lambda logits: ((q.metric(logits).mean() - clean) / (clean - corrupt)) ** 2


def _drawn(alpha: Float[Tensor, " edge"], generator: torch.Generator, kind: str) -> Float[Tensor, " edge"]:
    """A sample of each gate: between 0 and 1 with a gradient wherever it is neither, or 0 or 1 with the sigmoid's gradient."""
    noise = torch.rand(alpha.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    logit = noise.log() - (1 - noise).log() + alpha
    if kind == "straight-through":
        soft = torch.sigmoid(logit)
        return (logit > 0).float() + soft - soft.detach()
    return (torch.sigmoid(logit / HEAT) * (HIGH - LOW) + LOW).clamp(0, 1)


def _open(alpha: Float[Tensor, " edge"], kind: str) -> Float[Tensor, " edge"]:
    """The probability that a gate is not shut; for hard-concrete ones eq. 12 of the paper."""
    return torch.sigmoid(alpha if kind == "straight-through" else alpha - HEAT * math.log(-LOW / HIGH))
