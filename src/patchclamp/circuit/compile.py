"""Compile: a program of `rasp.py` becomes the weights of a transformer whose circuit is then known, edge by edge.

Where everything goes, `plan.py` says. A head for each look: queries and keys hold the table of its comparison, so that a
selected token scores +1 and any other -1, times a scale that leaves the softmax nothing to decide. A neuron for each
combination of values that a map can meet; of a number, two for each step between its values. Before the first token stands
one that is zero in all coordinates (BOS): it scores 0, so heads that select nothing look at it, and bring nothing.
Lindner et al. 2023, "Tracr"; written anew, for a bidirectional `Specimen`.

Not known here: how a trained model would do it. Compiled circuits are sparse and exact, their scores far apart, their
parts in no superposition; a method that finds them may yet fail on a trained one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchclamp.circuit.plan import Direction, Plan
from patchclamp.circuit.rasp import Look, Map, Program, indices, is_number, tokens
from patchclamp.core.axes import Tokens
from patchclamp.core.errors import Unserved
from patchclamp.core.graph import Graph
from patchclamp.core.metric import Metric, logit, logit_diff
from patchclamp.model.specimen import Specimen, SpecimenConfig, Writing

BOS = 0
SHARPNESS = 15.0
"""What scores are multiplied by: what is not selected gets exp(-15) = 3e-7 of the attention."""
MARGIN = 0.25
"""How much of the way from one value of a number to the next is flat, at either end, where a map tells them apart."""
GAIN = 10.0
"""The logit of the right answer; wrong ones have 0."""
POSITIONS = 5
"""The least number of positions: `pc.load` reads a model's anatomy on prompts of five tokens."""

Neuron = tuple[Direction, float, Direction]
"""What it reads, its bias, what it writes."""
Neurons = tuple[tuple[Neuron, ...], ...]
"""Those of every block."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Prompts in pairs of one length whose answers differ, and where."""

    clean: Tokens
    corrupt: Tokens
    at: Int[Tensor, " batch"]
    """For each pair a column of the prompt (0 is BOS) at which the two answers differ."""
    right: tuple[int, ...]
    """The clean answer there, as an entry of the logits; 0 where the one logit is a number."""
    wrong: tuple[int, ...]

    @property
    def metric(self) -> Metric:
        """The clean answer's logit minus the corrupt one's, where they differ; of a number, the number."""
        numbers = self.right == self.wrong
        made = logit(self.right) if numbers else logit_diff(self.right, self.wrong)
        return replace(made, columns=tuple(self.at.tolist()))


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program as a model, with the circuit that computes it.

    >>> from patchclamp.circuit.compile import compile
    >>> from patchclamp.circuit.programs import histogram
    >>> made = compile(histogram())
    >>> made("abcab")
    [2, 2, 1, 2, 2]
    >>> [(edge.sender, edge.receiver, edge.into) for edge in made.graph.edges][:2]
    [('blocks.0.in', 'blocks.0.attn.z[head=0]', 'q'), ('blocks.0.in', 'blocks.0.attn.z[head=0]', 'k')]
    """

    program: Program
    hf: Specimen
    graph: Graph
    """The true circuit: an edge wherever a part reads a variable that another wrote."""
    varying: Graph
    """The edges of it that carry something about the tokens. What the others carry follows from the prompt's length, so that
    no patching between prompts of one length sees them."""
    answers: tuple[Any, ...]
    """What each logit stands for; empty where the one logit is a number."""

    def __call__(self, sequence: Iterable[Hashable]) -> list[Any]:
        """The model's answer at every token of a sequence."""
        with torch.no_grad():
            return self.decode(self.hf(self.encode(sequence)[None]).logits[0])

    def encode(self, sequence: Iterable[Hashable]) -> Int[Tensor, " pos"]:
        """Token ids of a sequence, BOS first."""
        return torch.tensor([BOS, *(self.program.vocab.index(t) + 1 for t in self.program.checked(sequence))])

    def decode(self, logits: Float[Tensor, "pos vocab"]) -> list[Any]:
        """The answers that the logits of one prompt give, BOS left out."""
        if not self.answers:
            return logits[1:, 0].tolist()
        return [self.answers[i] for i in logits[1:].argmax(-1).tolist()]

    def pairs(self, n: int, seed: int = 0, length: int = 0) -> Pairs:
        """Random sequences in pairs whose answers differ; of the greatest length unless told.

        Where the answer is a number, the clean sequence has the larger one: so the metric falls on the way to the corrupt
        one in every pair, and effects of several pairs do not cancel.
        """
        draw, length = random.Random(seed), length or self.program.length
        found: list[tuple[Tensor, Tensor, int, int, int]] = []
        for _ in range(1000 * n):
            ours, theirs = (self.program.sample(draw, self.program.vocab, length) for _ in range(2))
            one, two = self.program(ours), self.program(theirs)
            places = [i for i, (a, b) in enumerate(zip(one, two)) if a != b]
            if places:
                i = draw.choice(places)
                if not self.answers and one[i] < two[i]:
                    ours, theirs, one, two = theirs, ours, two, one
                right, wrong = (self.answers.index(o[i]) if self.answers else 0 for o in (one, two))
                found.append((self.encode(ours), self.encode(theirs), i + 1, right, wrong))
            if len(found) == n:
                clean, corrupt, at, right, wrong = zip(*found)
                return Pairs(torch.stack(clean), torch.stack(corrupt), torch.tensor(at), right, wrong)
        raise Unserved(
            f"{self.program.name} gives the same answer on nearly all sequences of {length} tokens; take another length."
        )


def compile(program: Program, *, junk: int = 0, rotate: bool = False, seed: int = 0, sharpness: float = SHARPNESS,
            margin: float = MARGIN) -> Compiled:  # fmt: skip
    """The program in a model's weights.

    `junk` adds as many heads and as many neurons that read from anywhere, and write where nothing of the program reads.
    `rotate` turns the stream by a random rotation, so that no coordinate has a meaning. `seed` decides both, and the order
    of the heads. A gradient passes neither a decided softmax nor the flat steps by which a count is read off: with a lower
    `sharpness` and `margin=0` it does, and answers become less exact.
    """
    plan = Plan(program, junk, random.Random(seed))
    if not plan.layers:
        raise Unserved(f"{program.name} gives back what it is given; there is nothing to compile.")
    chance = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        neurons = tuple(tuple(n for m in maps for n in _neurons(plan, m, margin)) for maps in plan.maps)
        hf = Specimen(_config(plan, neurons, sharpness)).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
        _write(plan, neurons, hf)
        _litter(plan, hf, chance)
        if rotate:
            _rotate(hf, chance)
    return Compiled(program, hf, plan.graph(), plan.graph(varying=True), plan.answers)


def _config(plan: Plan, neurons: Neurons, sharpness: float) -> SpecimenConfig:
    """A model that has room for all of it."""
    looks = [h for heads in plan.heads for h in heads if h is not None]
    keys = [sum(len(plan.codes[m.keys].values) for m in look.selector.matches) for look in looks]
    return SpecimenConfig(
        vocab=len(plan.program.vocab) + 1, classes=len(plan.answers) or 1, length=max(plan.program.length + 1, POSITIONS),
        layers=plan.layers, d_model=plan.width, heads=[len(heads) for heads in plan.heads],
        d_head=max((*keys, *(plan.codes[look].size for look in looks), 1)),
        d_mlp=[len(mine) + junk for mine, junk in zip(neurons, plan.litter)],
        activation="relu", norm="none", causal=False, scale=sharpness,
    )  # fmt: skip


def _write(plan: Plan, neurons: Neurons, hf: Specimen) -> None:
    """The program into a model of zeros."""
    assert hf.positions is not None
    embedding, positions, unembedding = hf.embed.weight, hf.positions.weight, hf.unembed.weight
    positions[1:] = plan.unit(0)
    if tokens in plan.codes:
        for i, token in enumerate(plan.program.vocab):
            embedding[i + 1] = plan.writing(tokens, token)
    if indices in plan.codes:
        for i in range(plan.program.length):
            positions[i + 1] += plan.writing(indices, i)
    for layer, heads in enumerate(plan.heads):
        block: Any = hf.blocks[layer]
        for h, look in enumerate(heads):
            if look is not None:
                _head(plan, look, block.attn, h * hf.config.d_head)
        for n, (reading, bias, writing) in enumerate(neurons[layer]):
            block.mlp.up.weight[n], block.mlp.up.bias[n], block.mlp.down.weight[:, n] = reading, bias, writing
    for i, answer in enumerate(plan.answers or (None,)):
        unembedding[i] = (GAIN if plan.answers else 1.0) * plan.reading(plan.program.output, answer)


def _head(plan: Plan, look: Look, attention: Any, row: int) -> None:
    """A look in the rows of one head, from `row` on.

    Scores: +1 selected, 0 BOS, -1 not selected; where the share is asked for, 0 selected and BOS, -2 not selected. BOS
    itself, as a query, scores -2 for every token, and so looks at nothing but itself.
    """
    at = row
    for n, match in enumerate(look.selector.matches):
        hit, miss = (1.0, -1.0) if n == 0 and look.way != "share" else (0.0, -2.0)
        queries = plan.codes[match.queries].values
        for key in plan.codes[match.keys].values:
            attention.k.weight[at] = plan.reading(match.keys, key)
            score = 2 * plan.unit(0)
            for query in queries:
                score += (hit if match.test(key, query) else miss) * plan.reading(match.queries, query)
            attention.q.weight[at], attention.q.bias[at] = score, -2.0
            at += 1
    for i, (reading, writing) in enumerate(_values(plan, look)):
        attention.v.weight[row + i], attention.o.weight[:, row + i] = reading, writing


def _values(plan: Plan, look: Look) -> list[tuple[Direction, Direction]]:
    """What each value of a head reads at the tokens it looks at, and what it writes. At BOS all are 0."""
    values = plan.codes[look.values].values
    if look.way == "copy":
        return [(plan.reading(look.values, v), plan.writing(look, v)) for v in values if v != look.default]
    if look.way == "share":
        return [(plan.unit(0), plan.writing(look))]
    if not values:
        return [(plan.reading(look.values), plan.writing(look))]
    total = sum((float(v) * plan.reading(look.values, v) for v in values), 0 * plan.unit(0))
    return [(total, plan.writing(look))]


def _neurons(plan: Plan, variable: Map, margin: float) -> list[Neuron]:
    """What each neuron of a map reads, its bias, and what it writes: one for each combination of values."""
    if is_number(variable.arguments[0]):
        return _steps(plan, variable, margin)
    made = []
    for row in itertools.product(*(plan.codes[a].values for a in variable.arguments)):
        reading = torch.stack([plan.reading(a, value) for a, value in zip(variable.arguments, row)]).sum(0)
        made.append((reading, 1.0 - len(row), plan.writing(variable, variable.function(*row))))
    return made


def _steps(plan: Plan, variable: Map, margin: float) -> list[Neuron]:
    """A map of a number: from zero outwards, two neurons step from each value it can have to the next."""
    number = variable.arguments[0]
    values, reading, made = plan.domain(number), plan.reading(number), []
    for sign in (1, -1):
        near, here = 0.0, torch.zeros_like(reading)  # zero is the silent value
        for value in sorted((v for v in values if sign * v > 0), key=abs):
            there, far = plan.writing(variable, variable.function(value)), abs(float(value))
            slope, middle = 1 / ((1 - 2 * margin) * (far - near)), (far + near) / 2
            if not torch.equal(here, there):
                made.append((sign * slope * reading, 0.5 - slope * middle, there - here))
                made.append((sign * slope * reading, -0.5 - slope * middle, here - there))
            near, here = far, there
    return made


def _litter(plan: Plan, hf: Specimen, chance: torch.Generator) -> None:
    """Inert heads and neurons: random ones, which write to coordinates that nothing of the program reads."""
    width, size = plan.width, hf.config.d_head
    several = max(len(plan.variables), 1)  # about as many ones as there are in the stream
    score = (2 / (size**0.5 * float(hf.config.scale or 1.0) * several)) ** 0.5

    def some(rows: int, columns: int, std: float) -> Tensor:
        return std * torch.randn(rows, columns, generator=chance)

    for layer, heads in enumerate(plan.heads):
        block: Any = hf.blocks[layer]
        attention, mlp = block.attn, block.mlp
        for h, look in enumerate(heads):
            if look is None:
                rows = slice(h * size, (h + 1) * size)
                attention.q.weight[rows], attention.k.weight[rows] = some(size, width, score), some(size, width, score)
                attention.v.weight[rows] = some(size, width, several**-0.5)
                attention.o.weight[plan.used :, rows] = some(2 * plan.junk, size, size**-0.5)
        for n in range(hf.config.neurons_at(layer) - plan.litter[layer], hf.config.neurons_at(layer)):
            mlp.up.weight[n] = some(1, width, several**-0.5)[0]
            mlp.down.weight[plan.used :, n] = some(1, 2 * plan.junk, 1.0)[0]


def _rotate(hf: Specimen, chance: torch.Generator) -> None:
    """Turn the stream by a random rotation: what writes to it and what reads from it turn alike."""
    width = hf.config.d_model
    turn = torch.linalg.qr(torch.randn(width, width, generator=chance, dtype=torch.float64)).Q
    for module in hf.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            old = module.weight.double()
            module.weight.copy_(turn @ old if isinstance(module, Writing) else old @ turn.T)
