"""Lessons: what a program answers where some wires carry another sequence."""

import random

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.compile import compile
from patchclamp.circuit.lessons import Lessons, interchanged
from patchclamp.circuit.plan import Plan
from patchclamp.circuit.programs import deduplicate, dyck1, histogram, most_frequent, sort
from patchclamp.circuit.rasp import evaluate
from patchclamp.core.errors import Unserved
from patchclamp.model.wires import Wires

HEAD, MLP = "blocks.0.attn.z[head=0]", "blocks.0.mlp.out"


def planned(program):
    return Plan(program, 0, random.Random(0))


def test_by_hand():
    plan = planned(histogram())
    assert interchanged(plan, "aabbc", "ccccc", []) == [2, 2, 2, 2, 1]
    assert interchanged(plan, "aabbc", "ccccc", [("blocks.0.in", HEAD, "q")]) == [1] * 5  # how many c are in aabbc
    assert interchanged(plan, "aabbc", "ccccc", [("blocks.0.in", HEAD, "k")]) == [0, 0, 0, 0, 5]
    assert interchanged(plan, "aabbc", "ccccc", [(HEAD, MLP, "mlp")]) == [5] * 5
    assert interchanged(plan, "aabbc", "ccccc", [(MLP, "logits", "")]) == [5] * 5


def test_all_wires_are_the_source_and_none_the_base():
    for program in (histogram(), sort(), deduplicate(), dyck1()):
        plan, draw = planned(program), random.Random(1)
        keys = [(e.sender, e.receiver, e.into) for e in plan.graph().edges]
        for _ in range(5):
            base, source = (program.sample(draw, program.vocab, program.length) for _ in "12")
            assert interchanged(plan, base, source, []) == evaluate(program.output, base)
            assert interchanged(plan, base, source, keys) == evaluate(program.output, source)


@pytest.mark.parametrize("make", [histogram, deduplicate, most_frequent, dyck1])
def test_a_compiled_model_answers_every_interchange_like_its_program(make):
    """Its weights are exact, so that cutting a wire of it is an interchange of the variables on that wire."""
    program = make(length=4)
    made, plan = compile(program), planned(program)
    model = pc.load(made.hf)
    wires = Wires.of(model)
    lessons = Lessons.of(plan, wires, 60, seed=0)
    theirs = wires.written(model.run(lessons.sources, wires.sites))
    logits = wires.run(model.inputs(lessons.bases), theirs, lessons.swapped.permute(1, 2, 0)[..., None])
    assert torch.equal(logits[:, 1:].argmax(-1), lessons.answers)
    assert not torch.equal(lessons.answers, made.hf(lessons.bases).logits[:, 1:].argmax(-1))


def test_what_is_held_out_is_not_trained_on():
    plan, wires = planned(histogram()), Wires.of(pc.load(compile(histogram()).hf))
    ours, theirs = (Lessons.of(plan, wires, 200, seed=0, held_out=held) for held in (False, True))

    def seen(lessons):
        return {tuple(row) for ids in (lessons.bases, lessons.sources) for row in ids.tolist()}

    assert not seen(ours) & seen(theirs)
    again = Lessons.of(plan, wires, 200, seed=0)
    assert torch.equal(ours.bases, again.bases) and torch.equal(ours.swapped, again.swapped)
    assert not torch.equal(ours.bases, Lessons.of(plan, wires, 200, seed=1).bases)


def test_a_share_and_kinds():
    plan, wires = planned(histogram()), Wires.of(pc.load(compile(histogram()).hf))
    none = Lessons.of(plan, wires, 20, seed=0, share=0)
    assert not none.swapped.any() and int((wires.joined.float() - none.outside).sum()) == 4
    nodes = Lessons.of(plan, wires, 20, seed=0, kinds=("node",))
    assert set(nodes.swapped.sum((1, 2)).tolist()) == {1.0}  # head and layer have one wire each, the embedding is no node
    assert bool((nodes.swapped[:, :, 0] == 0).all())


def test_what_no_program_can_answer_is_not_asked():
    """With the ranks of two sequences mixed, a token of sort may have several values to copy."""
    plan = planned(sort())
    ranks = [("blocks.0.mlp.out", "blocks.1.attn.z[head=0]", "q")]
    with pytest.raises(Unserved, match="selects the values"):
        interchanged(plan, "abcab", "aaaaa", ranks)
    assert len(Lessons.of(plan, Wires.of(pc.load(compile(sort()).hf)), 10, seed=0).bases) == 10
