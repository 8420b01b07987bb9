"""Plan: where a compiled program goes. Which part of which block computes each variable, and how it stands in the stream.

Every variable has coordinates of its own, one for each value it can have; a number has one. Layers are given by the longest
path: a head reads what the blocks before it made, a feed-forward layer also what the heads of its own block did. Heads and
maps that are ready at once stand side by side. From here the circuit follows too: an edge for every variable that is read.

One value of a variable may be written as nothing at all: the default of a copy, the zero of a count. Coordinate 0 is 1 at
every token and 0 at BOS, so that such a value can still be read, and BOS has none. The positions write it, as they write the
`indices`; both are the same in every prompt, and what reads them has no edge for it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.circuit.rasp import Look, Map, Program, Variable, domain, is_number, reads, tokens, varies
from patchclamp.core.graph import Edge, Graph, Node

EMBEDDING = "blocks.0.in"
"""The node that writes the tokens, as in `edges.py`."""
Direction = Float[Tensor, " d_model"]


@dataclass(frozen=True)
class Code:
    """How a variable stands in the stream: a coordinate for each of its values but the silent one, or one for a number."""

    values: tuple[Any, ...]
    """Empty for a number."""
    line: int
    """The first of its coordinates."""
    silent: int = -1
    """Which value is written as nothing at all; -1 for none."""

    @property
    def size(self) -> int:
        return len(self.values) - (self.silent >= 0) if self.values else 1

    def at(self, value: Any) -> int:
        """The coordinate of a value; -1 for the silent one."""
        i = self.values.index(value)
        return -1 if i == self.silent else self.line + i - (0 <= self.silent < i)


@dataclass(frozen=True, eq=False)
class Plan:
    """Where everything goes: which part of which block computes a variable, and which coordinates it is written to."""

    program: Program
    junk: int
    draw: random.Random

    def domain(self, variable: Variable) -> tuple[Any, ...]:
        """Every value a variable may have."""
        return domain(variable, self.program.vocab, self.program.length)

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """Every variable of the program, each after those it is made from."""
        found: dict[Variable, None] = {}

        def visit(variable: Variable) -> None:
            for _, before in reads(variable):
                visit(before)
            found.setdefault(variable)

        visit(self.program.output)
        return tuple(found)

    @cached_property
    def levels(self) -> dict[Variable, int]:
        """When each is ready: 0 from the start, 1 after the first attention, 2 after the first feed-forward layer, ..."""
        found: dict[Variable, int] = {}
        for variable in self.variables:
            before = max((found[v] for _, v in reads(variable)), default=0)
            parity = {Look: 1, Map: 0}.get(type(variable))
            found[variable] = 0 if parity is None else before + (1 if (before + 1) % 2 == parity else 2)
        return found

    def layer(self, variable: Variable) -> int:
        """The block that computes a variable."""
        return (self.levels[variable] - 1) // 2

    @cached_property
    def layers(self) -> int:
        return (max(self.levels.values()) + 1) // 2

    @cached_property
    def heads(self) -> tuple[tuple[Look | None, ...], ...]:
        """The heads of every block in a random order; None is an inert one."""
        found: list[list[Look | None]] = [[] for _ in range(self.layers)]
        for variable in self.variables:
            if isinstance(variable, Look):
                found[self.layer(variable)].append(variable)
        for _ in range(self.junk):
            found[self.draw.randrange(self.layers)].append(None)
        for heads in found:
            self.draw.shuffle(heads)
        return tuple(map(tuple, found))

    @cached_property
    def maps(self) -> tuple[tuple[Map, ...], ...]:
        """The maps of every block."""
        maps = [v for v in self.variables if isinstance(v, Map)]
        return tuple(tuple(v for v in maps if self.layer(v) == i) for i in range(self.layers))

    @cached_property
    def litter(self) -> tuple[int, ...]:
        """How many inert neurons every block has."""
        blocks = [self.draw.randrange(self.layers) for _ in range(self.junk)]
        return tuple(blocks.count(i) for i in range(self.layers))

    @cached_property
    def codes(self) -> dict[Variable, Code]:
        """The coordinates of every variable. Coordinate 0 is 1 at every token, and 0 at BOS."""
        found, line = {}, 1
        for variable in self.variables:
            values = () if is_number(variable) else self.domain(variable)
            silent = _silent(variable, values)
            found[variable] = Code(values, line, -1 if silent is None else values.index(silent[0]))
            line += found[variable].size
        return found

    @cached_property
    def used(self) -> int:
        """How many coordinates the program has."""
        return max(c.line + c.size for c in self.codes.values())

    @cached_property
    def answers(self) -> tuple[Any, ...]:
        return self.codes[self.program.output].values

    @property
    def width(self) -> int:
        return self.used + 2 * self.junk

    def unit(self, coordinate: int) -> Direction:
        """The direction of one coordinate."""
        made = torch.zeros(self.width, dtype=torch.float64)
        made[coordinate] = 1
        return made

    def reading(self, variable: Variable, value: Any = None) -> Direction:
        """What is 1 where a variable has a value and 0 elsewhere; of a number, the number."""
        code = self.codes[variable]
        if not code.values:
            return self.unit(code.line)
        if code.at(value) >= 0:
            return self.unit(code.at(value))
        direction = self.unit(0)
        direction[code.line : code.line + code.size] = -1
        return direction

    def writing(self, variable: Variable, value: Any = None) -> Direction:
        """What a variable with a value is in the stream; of a number, what is multiplied by it."""
        code = self.codes[variable]
        if not code.values:
            return self.unit(code.line)
        return self.unit(code.at(value)) if code.at(value) >= 0 else torch.zeros(self.width, dtype=torch.float64)

    def node(self, variable: Variable) -> str:
        """The node that writes a variable; `""` for what positions write, and for what is always the same."""
        if not self.codes[variable].size:
            return ""
        if isinstance(variable, Look):
            layer = self.layer(variable)
            return f"blocks.{layer}.attn.z[head={self.heads[layer].index(variable)}]"
        if isinstance(variable, Map):
            return f"blocks.{self.layer(variable)}.mlp.out"
        return EMBEDDING if variable is tokens else ""

    def graph(self, varying: bool = False) -> Graph:
        """The circuit; or the part of it in which two prompts of one length can differ."""
        output = self.program.output
        wires = [(before, self.node(v), into) for v in self.variables for into, before in reads(v)] + [(output, "logits", "")]
        found = [(self.node(v), to, into) for v, to, into in wires if self.node(v) and to and (varies(v) or not varying)]
        labels: dict[str, list[str]] = {EMBEDDING: [], "logits": []}
        for v in sorted(self.variables, key=self.levels.__getitem__):
            if self.node(v):
                labels.setdefault(self.node(v), []).append(v.name)
        labels["logits"] = labels.pop("logits")  # last
        edges = tuple(Edge(sender, receiver, 1.0, into) for sender, receiver, into in dict.fromkeys(found))
        ends = {end for e in edges for end in (e.sender, e.receiver)}
        nodes = tuple(Node(site, 1.0, ", ".join(names) or site) for site, names in labels.items() if site in ends)
        return Graph(nodes, edges, title=f"The circuit of {self.program.name}", facts={"program": self.program.name})


def _silent(variable: Variable, values: tuple[Any, ...]) -> tuple[Any] | None:
    """The value that is written as nothing at all, if there is one."""
    if isinstance(variable, Look) and values:
        return (variable.default,)
    if isinstance(variable, Map) and is_number(variable.arguments[0]):
        return (variable.function(0),)
    return (values[0],) if len(values) == 1 else None
