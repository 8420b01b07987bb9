"""Judging circuits, on the bundled model: the found one does the work, random ones of its size do not."""

import pytest

import patchclamp as pc
from patchclamp.circuit.acdc import acdc
from patchclamp.circuit.edges import edges, exact
from patchclamp.circuit.faithful import curve, judge, minimality
from patchclamp.core.errors import WrongPrompt

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
METRIC = pc.logit_diff(" Mary", " John")
PAIR = (CLEAN, CORRUPT, METRIC)


@pytest.fixture(scope="module")
def ranking(town):
    return edges(town, *PAIR, estimate=exact)


@pytest.fixture(scope="module")
def circuit(town):
    return acdc(town, CLEAN, CORRUPT, 0.2, METRIC)


def test_the_whole_model_is_faithful_and_the_empty_circuit_is_not(town, ranking):
    whole, empty = judge(town, ranking, *PAIR, random=0), judge(town, ranking.only([]), *PAIR, random=0)
    assert whole.faithfulness == pytest.approx(1, abs=1e-4)
    assert empty.faithfulness == pytest.approx(0, abs=1e-4)
    assert (whole.complement, empty.complement) == (empty.faithfulness, whole.faithfulness)


def test_the_found_circuit_does_the_work_and_random_ones_do_not(town, circuit):
    found = judge(town, circuit, *PAIR, random=19)
    assert found.share < 0.15
    assert found.faithfulness > 0.9
    assert found.complement < 0.15
    assert max(found.random) < 0.15
    assert found.p_value == pytest.approx(0.05)
    assert "of the answer" in str(found)


def test_more_of_a_ranking_is_more_faithful(town, ranking):
    grid = curve(town, ranking, *PAIR)
    assert grid.values[0] == pytest.approx(0, abs=1e-4)
    assert grid.values[-1] == pytest.approx(1, abs=1e-4)
    assert grid.baseline["CMD"] < 0.05
    assert grid.baseline["CPR"] > 0.95
    backwards = ranking.only(type(e)(e.sender, e.receiver, 1 / (1e-9 + abs(e.weight)), e.into) for e in ranking.edges)
    assert curve(town, backwards, *PAIR).baseline["CMD"] > 0.3


def test_a_junk_edge_is_not_needed_and_a_missing_one_is_missed(town, circuit, ranking):
    inside = {(e.sender, e.receiver, e.into) for e in circuit.edges}
    junk = min((e for e in ranking.edges if (e.sender, e.receiver, e.into) not in inside), key=lambda e: abs(e.weight))
    needed = minimality(town, ranking.only([*circuit.edges, junk]), *PAIR)
    assert abs(float(needed.values[-1])) < 0.01
    worst = circuit.edges[int(needed.values[:-1].argmax())]
    without = judge(town, circuit.only(e for e in circuit.edges if e is not worst), *PAIR, random=0)
    assert without.faithfulness < 0.5


def test_without_a_difference_there_is_nothing_to_judge(town, circuit):
    with pytest.raises(WrongPrompt, match="no difference"):
        judge(town, circuit, CLEAN, CORRUPT, pc.logit_diff(" Mary", " Mary"), random=0)
