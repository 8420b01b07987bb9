"""Papers: a claim holds when its value meets the mark and its control does not; what was measured is kept whatever happens."""

import json

import pytest

from patchclamp.core.errors import NotSaved
from patchclamp.papers.claims import Asked, Mark, Measured, Paper, UnknownPaper, claim

runs = []


def made(name, value, control, mark=None):
    def measure(asked):
        """By looking
        it up."""
        runs.append((name, asked))
        if value is None:
            raise KeyboardInterrupt
        return Measured(value, control, "", "", ("case", "value"), (("a", value), ("b", None)))

    measure.__name__ = name
    return claim(f"{name}.", source="us", mark=mark or Mark(low=0.9), control="nothing")(measure)


@pytest.fixture(autouse=True)
def _forgotten():
    runs.clear()


def paper(*claims):
    return Paper("p", "A paper", "us", claims)


def test_a_control_that_passes_too_proves_nothing():
    found = paper(made("right", 0.95, 0.5), made("wrong", 0.8, 0.5), made("empty", 0.95, 0.95), made("nan", float("nan"), 0.1))
    assert found.reproduce().verdicts == {"right": "holds", "wrong": "fails", "empty": "fails", "nan": "fails"}


def test_marks():
    assert str(Mark(low=1)) == "≥ 1" and str(Mark(high=0.3)) == "≤ 0.3" and str(Mark(0, 1)) == "0 to 1"
    assert Mark(0, 1).met(1) and not Mark(0, 1).met(1.01) and not Mark(low=1).met(float("nan"))


def test_a_claim_is_a_function_with_its_words():
    one = made("the_sky_is_blue", 1, 0)
    assert (one.name, one.how, one.statement) == ("the sky is blue", "By looking it up.", "the_sky_is_blue.")
    found = paper(one)
    assert found["the sky is blue"] is one
    with pytest.raises(UnknownPaper, match='makes no claim "the sea is blue". Did you mean "the sky is blue"'):
        found["the sea is blue"]


def test_how_thoroughly_is_handed_on():
    paper(made("a", 1, 0)).reproduce(quick=True, seeds=7)
    assert runs == [("a", Asked(True, 7))]


def test_only_some():
    found = paper(made("a", 1, 0), made("b", 1, 0)).reproduce(only=["b"])
    assert found.verdicts == {"a": "not run", "b": "holds"} and not found.interrupted
    assert repr(found) == "Report(p: 1 holds, 1 not run)"


def test_what_is_done_is_kept_and_not_measured_again(tmp_path):
    store = tmp_path / "p.json"
    first = paper(made("a", 1, 0), made("b", None, 0), made("c", 1, 0)).reproduce(store=store)
    assert first.interrupted and first.verdicts == {"a": "holds", "b": "not run", "c": "not run"}
    assert [name for name, _ in runs] == ["a", "b"]
    second = paper(made("a", 1, 0), made("b", 0.5, 0), made("c", 1, 0)).reproduce(store=store)
    assert [name for name, _ in runs] == ["a", "b", "b", "c"] and not second.interrupted
    assert second.verdicts == {"a": "holds", "b": "fails", "c": "holds"}
    assert second.results["a"].measured == first.results["a"].measured
    assert not list(tmp_path.glob("*.new"))


def test_a_bug_is_no_verdict_and_loses_nothing(tmp_path):
    def broken(asked):
        raise ZeroDivisionError

    bad = claim("No.", source="us", mark=Mark(0, 1), control="none")(broken)
    with pytest.raises(ZeroDivisionError):
        paper(made("a", 1, 0), bad).reproduce(store=tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["claims"]["a"]["verdict"] == "holds"


def test_results_of_something_else_are_refused(tmp_path):
    store = tmp_path / "p.json"
    paper(made("a", 1, 0)).reproduce(store=store)
    with pytest.raises(NotSaved, match="measured with quick=False, seeds=3, not with quick=True, seeds=3. Name another file"):
        paper(made("a", 1, 0)).reproduce(store=store, quick=True)
    with pytest.raises(NotSaved, match="holds results of p, version 1; wanted are q, version 1"):
        Paper("q", "Another", "us", ()).reproduce(store=store)
    store.write_text("[]")
    with pytest.raises(NotSaved, match="holds no results that can be read"):
        paper(made("a", 1, 0)).reproduce(store=store)
    with pytest.raises(NotSaved, match="could not be written"):
        paper(made("a", 1, 0)).reproduce(store=tmp_path / "no" / "p.json")


def test_a_report_shows_itself(capsys):
    found = paper(made("a", 0.95, 0.5), made("b", 0.8, 0.5)).reproduce(only=["a"])
    found.show()
    said = capsys.readouterr().out
    assert "A paper: 1 holds, 1 not run" in said and "0.95" in said
    page = found.html()
    for word in ("By looking it up.", "not run", "≥ 0.9", "Control: nothing", "case"):
        assert word in page
    paper(made("a", 1, 0)).show()
    assert "what they said" in capsys.readouterr().out
    json.dumps(found.json(), allow_nan=False)
