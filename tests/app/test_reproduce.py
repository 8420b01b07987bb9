"""`patchclamp reproduce`: what it lists, measures, keeps and says."""

import json
import sys

import pytest

from patchclamp.papers import shelf
from patchclamp.papers.claims import Mark, Measured, Paper, claim

STATE = {"interrupt": False, "runs": 0}


@claim("Two and two are four.", source="Peano 1889", mark=Mark(4, 4), control="two and one")
def a_sum(asked):
    """By adding."""
    STATE["runs"] += 1
    return Measured(4.0, 3.0, "four", "three", ("case", "sum"), (("two and two", 4),))


@claim("All sums are four.", source="nobody", mark=Mark(4, 4), control="two and one")
def all_sums(asked):
    """By adding more."""
    if STATE["interrupt"]:
        raise KeyboardInterrupt
    return Measured(5.0, 3.0, f"{asked.seeds} seeds, quick {asked.quick}")


@pytest.fixture(autouse=True)
def _papers(monkeypatch):
    """Two papers, so small that nothing but the command is measured."""
    STATE.update(interrupt=False, runs=0)
    sums = Paper("sums", "On sums", "Peano 1889", (a_sum, all_sums))
    monkeypatch.setattr(shelf, "PAPERS", {"sums": "sums"})
    monkeypatch.setattr("patchclamp.app.reproduce.PAPERS", {"sums": "sums"})
    module = type(sys)("patchclamp.papers.sums")
    module.PAPER = sums  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "patchclamp.papers.sums", module)


def test_it_measures_and_writes_page_and_results(cli, tmp_path):
    status, out, err = cli("reproduce", "sums", "--seeds", "2")
    assert status == 0 and err == ""
    assert "On sums: 1 holds, 1 fails" in out and out.rstrip().endswith("Report: sums.html, results: sums.json")
    page = (tmp_path / "sums.html").read_text()
    assert page.startswith("<!doctype html>") and "By adding." in page and "two and two" in page
    claims = json.loads((tmp_path / "sums.json").read_text())["claims"]
    assert [c["verdict"] for c in claims.values()] == ["holds", "fails"]
    assert claims["all sums"]["result"]["measured"]["said"] == "2 seeds, quick False"


def test_interrupted_it_keeps_what_is_done_and_goes_on(cli):
    STATE["interrupt"] = True
    status, out, err = cli("reproduce", "sums", "--out", "x.html")
    assert status == 130 and "1 holds, 1 not run" in out
    assert "Interrupted: what is done is kept in x.json; the same command goes on from there." in err
    STATE["interrupt"] = False
    status, out, err = cli("reproduce", "sums", "--out", "x.html")
    assert status == 0 and "1 holds, 1 fails" in out and STATE["runs"] == 1
    cli("reproduce", "sums", "--out", "x.html", "--fresh")
    assert STATE["runs"] == 2


def test_json_is_all_there_is_and_nothing_else(cli):
    status, out, err = cli("reproduce", "sums", "--quick", "--json")
    said = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and err == ""
    assert list(said) == ["paper", "version", "asked", "claims", "report"]
    assert said["asked"] == {"quick": True, "seeds": 3} and said["claims"]["a sum"]["mark"] == "4 to 4"


def test_it_lists(cli):
    for arguments in (("reproduce",), ("reproduce", "--list")):
        status, out, _ = cli(*arguments)
        assert status == 0 and "On sums" in out
    status, out, _ = cli("reproduce", "sums", "--list")
    assert status == 0 and "Two and two are four." in out and not STATE["runs"]
    assert json.loads(cli("reproduce", "--list", "--json")[1])["rows"] == [["sums", "On sums", 2, "Peano 1889"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("summs",), 'there is no paper "summs" here; there is sums. Did you mean "sums"'),
        (("sums", "--seeds", "0"), "--seeds is how many seeds each measure is taken with, one or more; got 0"),
        (("sums", "--out", "."), "is a folder; give the report a file name"),
        (("sums", "--out", "x.json"), "the results lie beside it as JSON; name it x.html"),
        (("sums", "--out", "no/x.html"), "there is no folder no to write x.html into"),
    ],
)
def test_mistakes_are_one_line(cli, arguments, says):
    status, out, err = cli("reproduce", *arguments)
    assert status == 2 and out == "" and says in err and len(err.splitlines()) == 1


def test_results_of_other_options_are_not_taken_for_these(cli):
    cli("reproduce", "sums")
    status, _, err = cli("reproduce", "sums", "--quick")
    assert status == 2 and "sums.json holds results that were measured with quick=False, seeds=3" in err
