"""The report of a circuit: found, pruned, judged; every way to weigh edges and to cut a ranking off."""

import json
from dataclasses import replace

import pytest

import patchclamp as pc
from patchclamp.app.asked import Source, WrongOption, others, read
from patchclamp.app.circuit_report import How, circuit_report, planned
from patchclamp.circuit.faithful import judge
from patchclamp.circuit.mask import Gates as GATES
from patchclamp.circuit.mib import read_mib
from patchclamp.core.errors import WrongPrompt

SOURCE = Source(task="town/ioi", count=3)


@pytest.fixture(scope="module")
def asked(town):
    return read(town, SOURCE)


@pytest.fixture(scope="module")
def report(town, asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("circuit")
    made = circuit_report(asked, How(random=3), others(town, SOURCE), folder / "mib.json", folder / "saved")
    return made, folder


def test_few_edges_hold_the_answer_and_random_ones_do_not(report, asked, town):
    verdict = report[0].data["verdict"]
    assert verdict["faithfulness"] >= 0.9 and verdict["share"] < 0.15 and verdict["complement"] < 0.15
    assert max(verdict["random"]) < 0.15 and verdict["p_value"] == 0.25
    assert report[0].data["beyond"]["faithfulness"] > 0.5
    graph = pc.Graph.load(report[1] / "saved")
    again = judge(town, graph, asked.clean, asked.corrupt, asked.metric(), random=0)
    assert again.faithfulness == pytest.approx(verdict["faithfulness"], abs=1e-5)


def test_the_page_says_what_the_numbers_say(report):
    made, _ = report
    verdict, sections = made.data["verdict"], {s.title: s for s in made.page.sections}
    assert sections["The circuit"].reading.startswith(f"{verdict['edges']} edges ({verdict['share']:.1%} of all)")
    assert f"keep {verdict['faithfulness']:.1%} of the answer" in sections["The circuit"].reading
    assert "of 3 random circuits of as many edges the best keeps" in sections["Is it the circuit?"].reading
    assert "as small as so few can tell" in sections["Is it the circuit?"].reading
    strongest = max(made.data["circuit"]["edges"], key=lambda e: abs(e["weight"]))
    assert sections["Strongest edges"].pictures[0].rows[0][-1] == strongest["weight"]
    assert f"(CPR) is {made.data['curve']['baseline']['CPR']:.3f}" in sections["How many edges are enough"].reading


def test_it_is_written_for_others(report, town):
    made, folder = report
    graph = read_mib(folder / "mib.json", town)
    assert {(e.sender, e.receiver, e.into) for e in graph.edges} == {
        (e["sender"], e["receiver"], e["into"]) for e in made.data["circuit"]["edges"]
    }
    json.dumps(made.data, allow_nan=False)


@pytest.fixture(scope="module")
def small(gpt2):
    return read(gpt2, Source("20 21 22 23 24", "20 31 22 23 24", "5", "9"))


@pytest.mark.parametrize(
    ("how", "most"),
    [
        (How("eap", edges=20), 20),
        (How("eap", share=0.2, signed=True), 22),
        (How("eap", threshold=0.01), 100),
        (How("eap-ig", metric="kl", edges=30), 30),
        (How("exact"), 110),
        (How("acdc"), 110),
        (How("mask"), 110),
    ],
    ids=["edges", "share", "threshold", "kl", "exact", "acdc", "mask"],
)
def test_every_method_finds_a_circuit_and_a_ranking_is_cut_off_in_one_way(small, how, most, monkeypatch):
    monkeypatch.setattr("patchclamp.app.circuit_report.Gates", lambda **more: GATES(steps=20, price=0.01, **more))
    data = circuit_report(small, replace(how, random=1)).data
    edges = data["circuit"]["edges"]
    assert 0 < len(edges) <= most and (data["curve"] is None) == (how.method == "acdc")
    assert how.threshold is None or all(abs(e["weight"]) >= how.threshold for e in edges)
    assert planned(small, how).startswith(f"110 edges on 1 prompt pair by {how.method}: ")


def test_an_empty_circuit_says_so(small):
    report = circuit_report(small, How("eap", threshold=1e6, random=0))
    assert "no edge on a way from the embedding to the logits is left" in report.page.sections[0].left_out


def test_prompts_with_the_same_answer_have_no_circuit(small):
    same = replace(small, wrongs=small.answers)
    with pytest.raises(WrongPrompt, match="give the same logit difference .* there is nothing to carry"):
        circuit_report(same, How("eap"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (How("epa"), 'Did you mean "eap"'),
        (How("eap", metric="rank"), "a rank has none; take exact or acdc"),
        (How("eap", metric="kl"), "no slope at the clean run"),
        (How(edges=3, share=0.1), "cut off in one way; these are 2: --edges, --share"),
        (How("acdc", edges=3), "steered by --threshold alone; leave out --edges"),
        (How(share=2.0), "--share is above 0 and up to 1; got 2"),
        (How(edges=0), "--edges is above 0; got 0"),
        (How(random=-1), "how many random circuits"),
    ],
)
def test_options_that_do_not_go_together(how, said):
    with pytest.raises(WrongOption, match=said):
        how.checked()
