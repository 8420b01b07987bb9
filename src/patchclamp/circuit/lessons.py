"""Lessons: interchanges between two sequences, each with the answer that a program gives under it.

Some wires of a circuit carry what they carry on a second sequence. What the answer then is, the program says: it is run on the
first sequence, and whatever is read over those wires comes from its run on the second (Geiger et al. 2022, on single nodes).
`siit.py` teaches networks with them and examines them; a fifth of all sequences is kept for the examination.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.circuit.compile import BOS
from patchclamp.circuit.edges import kept
from patchclamp.circuit.plan import EMBEDDING, Plan
from patchclamp.circuit.rasp import Variable, evaluate
from patchclamp.core.errors import Unserved
from patchclamp.model.wires import Wires

Key = tuple[str, str, str]
"""A wire: sender, receiver, and which of its inputs."""
HELD_OUT = 0.2
"""The share of all sequences that training never sees."""


def interchanged(plan: Plan, base: Sequence[Any], source: Sequence[Any], swapped: Iterable[Key]) -> list[Any]:
    """The program's answers on one sequence, where some wires carry the variables that they carry on another.

    >>> import random
    >>> from patchclamp.circuit.lessons import interchanged
    >>> from patchclamp.circuit.plan import Plan
    >>> from patchclamp.circuit.programs import histogram
    >>> plan = Plan(histogram(), 0, random.Random(0))
    >>> interchanged(plan, "aabbc", "aaaaa", [("blocks.0.in", "blocks.0.attn.z[head=0]", "q")])
    [2, 2, 2, 2, 2]
    """
    wires, known = set(swapped), {}

    def theirs(variable: Variable) -> list[Any]:
        if variable not in known:
            known[variable] = evaluate(variable, source)
        return known[variable]

    def instead(reader: Variable, into: str, before: Variable) -> list[Any] | None:
        return theirs(before) if (plan.node(before), plan.node(reader), into) in wires else None

    output = plan.program.output
    if (plan.node(output), "logits", "") in wires:
        return theirs(output)
    return evaluate(output, base, instead)


@dataclass(frozen=True, eq=False)
class Lessons:
    """Interchanges, as tensors."""

    bases: Int[Tensor, "n pos"]
    sources: Int[Tensor, "n pos"]
    swapped: Float[Tensor, "n receiver sender"]
    """1 for each wire of the circuit that carries the source's value."""
    answers: Int[Tensor, "n token"]
    source_answers: Int[Tensor, "n token"]
    outside: Float[Tensor, "receiver sender"]
    """1 for each wire that is not in the circuit."""

    @classmethod
    def of(cls, plan: Plan, wires: Wires, n: int, seed: int, *, share: float = 1.0, kinds: Sequence[str] = ("node", "edge"),
           held_out: bool = False) -> Lessons:  # fmt: skip
        """Draw `n`: in a `share` of them all wires out of one `node` are swapped, or one `edge`; in the others none."""
        graph, vocab = plan.graph(varying=True), plan.program.vocab
        draw = random.Random(f"{seed} {held_out} {share} {kinds}")
        table = {(e.sender, e.receiver, e.into): wires.joined.float() - kept(wires, [e]) for e in graph.edges}
        rows: list[tuple[Any, ...]] = []
        while len(rows) < n:
            base, source = (_drawn(plan, draw, seed, held_out) for _ in range(2))
            chosen = _chosen(list(table), draw, draw.choice(kinds)) if draw.random() < share else []
            try:
                said = interchanged(plan, base, source, chosen)
            except Unserved:  # a mixture of two sequences may leave a token with several values to copy
                continue
            swapped = sum((table[key] for key in chosen), torch.zeros(wires.joined.shape))
            own = evaluate(plan.program.output, source)
            ids = [torch.tensor([BOS, *(vocab.index(t) + 1 for t in sequence)]) for sequence in (base, source)]
            rows.append((*ids, swapped, *(torch.tensor([plan.answers.index(v) for v in values]) for values in (said, own))))
        bases, sources, swaps, answers, others = (torch.stack(column) for column in zip(*rows))
        return cls(bases, sources, swaps, answers, others, kept(wires, graph.edges))


def _chosen(keys: list[Key], draw: random.Random, kind: str) -> list[Key]:
    if kind == "edge":
        return [draw.choice(keys)]
    node = draw.choice(sorted({sender for sender, _, _ in keys} - {EMBEDDING}))
    return [key for key in keys if key[0] == node]


def _drawn(plan: Plan, draw: random.Random, seed: int, held_out: bool) -> tuple[Any, ...]:
    """A sequence; whether it is held out is decided by lot, for each once and for all."""
    while True:
        sequence = plan.program.sample(draw, plan.program.vocab, plan.program.length)
        if (random.Random(f"{seed} {sequence}").random() < HELD_OUT) == held_out:
            return sequence
