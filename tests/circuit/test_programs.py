"""Each program does what its oracle says, on every sequence."""

import random
from itertools import islice

import pytest

from patchclamp.circuit.programs import PROGRAMS, balanced, dyck1, dyck2, fraction_of_previous, most_frequent, sort
from patchclamp.core.errors import WrongPrompt, WrongToken


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_a_program_says_what_its_oracle_says(make):
    program = make(length=4)
    for sequence in program.sequences():
        assert [*program(sequence)] == pytest.approx([*program.oracle(sequence)]), sequence


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_long_random_sequences_too(make):
    program, draw = make(length=12), random.Random(0)
    for _ in range(20):
        sequence = program.sample(draw, program.vocab, 12)
        assert [*program(sequence)] == pytest.approx([*program.oracle(sequence)]), sequence


def test_other_vocabularies():
    assert sort(vocab=(3, 1, 2))((2, 3, 1, 2)) == [1, 2, 2, 3]
    assert most_frequent(vocab="xyz")("zyz") == ["z"] * 3
    assert fraction_of_previous("x", vocab="xy")("yx") == [0, 0.5]


def test_brackets_are_drawn_so_that_both_answers_are_frequent():
    for make in (dyck1, dyck2):
        program, draw = make(), random.Random(0)
        drawn = [program.sample(draw, program.vocab, 6) for _ in range(400)]
        assert 0.4 < sum(balanced(s, "".join(map(str, program.vocab))) for s in drawn) / 400 < 0.8
        assert len(program.sample(draw, program.vocab, 5)) == 5


def test_every_sequence_comes_once():
    program = dyck1(length=3)
    assert len({*program.sequences()}) == 2 + 4 + 8 and [*islice(program.sequences(), 3)] == [("(",), (")",), ("(", "(")]


def test_a_program_reads_what_it_was_made_for():
    with pytest.raises(WrongPrompt, match="Dyck-1 reads 1 to 6 tokens; got 7. Build it with a larger length="):
        dyck1()("((()))(")
    with pytest.raises(WrongToken, match=r"Dyck-1 reads \(, \); '\[' is none of them"):
        dyck1()("[")
