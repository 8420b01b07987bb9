"""Networks whose every weight is written by hand, so that it is known where each variable of a causal model lives.

`total` adds two numbers modulo three, its variables in a turned stream. `sign` hands on a sign by up to three ways, one of
which may be a dormant pathway: a part that follows the sign and is read by nothing, beside one that is read and always silent
(Makelov et al. 2023). They are plain torch modules, as other people write them: nothing here is a specimen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from patchclamp.cause.abstraction import CausalModel, Hypothesis, Location
from patchclamp.model.load import load
from patchclamp.model.model import Model

WIDTH = 16


class Gather(nn.Module):
    """Every token is given the sum of the last three tokens' streams, itself included, as long as there are three tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.o = linear(3 * torch.eye(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the stream."""
        back = torch.ones(x.shape[1], x.shape[1]).tril()
        return self.o(back / back.sum(-1, keepdim=True) @ x)


class Neurons(nn.Module):
    """A feed-forward layer."""

    def __init__(self, into: Tensor, bias: Tensor, out: Tensor) -> None:
        super().__init__()
        self.up, self.down = linear(into, bias), linear(out)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the stream."""
        return self.down(torch.relu(self.up(x)))


class Block(nn.Module):
    """One part, and the way around it."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """The stream after it."""
        return x + self.part(x)


class Network(nn.Module):
    """An embedding, blocks, and what reads the logits."""

    def __init__(self, embedding: Tensor, parts: Sequence[nn.Module], head: Tensor) -> None:
        super().__init__()
        self.embed = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.blocks = nn.ModuleList([Block(part) for part in parts])
        self.head = linear(head)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of ids."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def linear(matrix: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear module of this matrix."""
    made = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
    made.weight.data = matrix.contiguous()
    if bias is not None:
        made.bias.data = bias
    return made


# ---- a sum -------------------------------------------------------------------------------------------------------------

ANSWERS: dict[Any, int] = {0: 13, 1: 14, 2: 15}
SUM = CausalModel({"x": lambda a: a % 3, "y": lambda b: b % 3, "answer": lambda x, y: (x + y) % 3})


def total() -> tuple[Model, Tensor]:
    """(model, turn): a, b and "=" go in, and the sum of a and b modulo 3 comes out.

    In the stream after block 0, at the last token, x = a mod 3 is one of the rows 0 to 2 of `turn`, y one of the rows 3 to 5;
    rows 6 and 7 hold what nothing reads, whether a and b are above 2.
    """
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(5))).Q
    embedding, head = torch.zeros(16, WIDTH), torch.zeros(16, WIDTH)
    for a in range(6):
        embedding[a, a % 3] = embedding[6 + a, 3 + a % 3] = 1
        embedding[a, 6] = embedding[6 + a, 7] = a // 3
    into, out = torch.zeros(9, WIDTH), torch.zeros(WIDTH, 9)
    for x in range(3):
        for y in range(3):
            into[3 * x + y, [x, 3 + y]] = 1
            out[8 + (x + y) % 3, 3 * x + y] = 1
    for answer, token in ANSWERS.items():
        head[token, 8 + answer] = 8
    neurons = Neurons(into @ turn, -torch.ones(9), turn.T @ out)
    return load(Network(embedding @ turn, [Gather(), neurons], head @ turn).eval()), turn


def sums(places: Mapping[str, Any], **more: Any) -> Hypothesis:
    """The hypothesis that the network computes the sum, with its variables at these places."""
    return Hypothesis(SUM, places, lambda given: [given["a"], 6 + given["b"], 12], ANSWERS, **more)


def every() -> list[dict[str, int]]:
    """All inputs there are."""
    return [{"a": a, "b": b} for a in range(6) for b in range(6)]


def pairs(inputs: Sequence[Any], n: int, seed: int = 0) -> tuple[list[Any], list[Any]]:
    """Bases and sources at random."""
    generator = torch.Generator().manual_seed(seed)
    bases, sources = ([inputs[i] for i in torch.randint(len(inputs), (n,), generator=generator).tolist()] for _ in "12")
    return bases, sources


# ---- a sign, and three ways for it through a layer -----------------------------------------------------------------------

SIGN = CausalModel({"s": lambda a: a % 2, "answer": lambda s: s})


def sign(skip: float, follows: float, silent: float, honest: float) -> Model:
    """A sign s goes in and comes out. Neuron 0 follows it, neuron 1 is always the same, neuron 2 follows it as well.

    The answer is the sign of skip * s + follows * neuron 0 + silent * neuron 1 + honest * neuron 2, each less its mean.
    """
    embedding, head = torch.zeros(12, WIDTH), torch.zeros(12, WIDTH)
    for a in range(8):
        embedding[a, 0], embedding[a, 1] = 2 * (a % 2) - 1, a // 2
    embedding[:, 2] = 1
    into, out = torch.zeros(6, WIDTH), torch.zeros(WIDTH, 6)
    into[0, 0] = into[2, 0] = into[3, 1] = 1
    out[4, 0], out[5, 1], out[6, 2], out[7, 3] = follows, silent, honest, 1
    bias = torch.tensor([5.0, 5.0, 5.0, 0.0, 0.0, 0.0])
    read = torch.zeros(WIDTH)
    read[[0, 4, 5, 6]], read[2] = torch.tensor([float(skip), 1, 1, 1]), -5.0 * (follows + silent + honest)
    head[11], head[10] = 4 * read, -4 * read
    return load(Network(embedding, [Neurons(into, bias, out)], head).eval())


def signs(place: Location | str) -> Hypothesis:
    """The hypothesis that the network hands the sign on, with the sign at this place."""
    return Hypothesis(SIGN, {"s": place}, lambda given: [given["a"]], {0: 10, 1: 11})
