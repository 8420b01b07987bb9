"""Where a compiled program goes: levels, coordinates, and the circuit that follows."""

import itertools
import random

import pytest
import torch

from patchclamp.circuit.plan import Plan
from patchclamp.circuit.programs import PROGRAMS, dyck1, sort
from patchclamp.circuit.rasp import Look, Program, aggregate, constant, indices, map, reads, select, tokens


def plan(program, junk=0):
    return Plan(program, junk, random.Random(0))


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_what_is_read_is_made_before(make):
    found = plan(make())
    for variable in found.variables:
        assert all(found.levels[v] < found.levels[variable] for _, v in reads(variable))
        assert found.levels[variable] % 2 == isinstance(variable, Look) or not reads(variable)
    assert set(itertools.chain(*found.heads, *found.maps)) == {v for v in found.variables if reads(v)}


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_every_variable_has_coordinates_of_its_own(make):
    found = plan(make(length=4))
    taken = [range(c.line, c.line + c.size) for c in found.codes.values()]
    assert sorted(i for t in taken for i in t) == list(range(1, found.used))
    for variable, code in found.codes.items():
        read = torch.stack([found.reading(variable, v) for v in code.values or (None,)])
        written = torch.stack([found.writing(variable, v) for v in code.values or (None,)])
        assert torch.equal(
            read @ (written + (found.unit(0) if code.values else 0)).T, torch.eye(len(read), dtype=torch.float64)
        )
        others = torch.stack([found.writing(o, v) for o, c in found.codes.items() if o is not variable for v in c.values])
        assert not (read[:, 1:] @ others[:, 1:].T).any()


def test_junk_is_laid_beside_what_is_used():
    found, bare = plan(dyck1(), junk=5), plan(dyck1())
    assert found.used == bare.used and found.width == bare.width + 10
    assert [h for heads in found.heads for h in heads].count(None) == sum(found.litter) == 5


def test_what_is_always_the_same_is_written_by_nobody():
    same = map(lambda t: 1, tokens)
    first = aggregate(select(indices, constant(0)) & select(same, same), tokens)
    graph = plan(Program("first", first, ("a", "b"), 3, list)).graph()
    assert {(e.sender, e.into) for e in graph.edges} == {("blocks.0.in", "v"), ("blocks.1.attn.z[head=0]", "")}


def test_nodes_say_what_they_compute():
    assert [n.label for n in plan(sort()).graph().nodes] == [
        "tokens", "token and place", "share of rank", "rank", "token of this rank", "logits",
    ]  # fmt: skip
