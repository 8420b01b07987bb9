"""The report of a fault: it names the planted head, the edit, what that mends and what it costs."""

from pathlib import Path

import pytest

import flaw
import patchclamp as pc
from patchclamp.app.debug_report import debug_report, examples, part, planned
from patchclamp.core.errors import WrongToken
from patchclamp.core.pair import Pair


@pytest.fixture(scope="module")
def planted(town):
    wrong, right = ([(p, town.token(a)) for p, a in some] for some in flaw.examples(town))
    return flaw.plant(town), wrong, right


@pytest.fixture(scope="module")
def report(town, planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cure")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("patchclamp.app.debug_report.blame", lambda *_, **__: flaw.blamed(town))
        return debug_report(*planted, save=folder), folder


def test_it_names_the_head_and_the_cure(report):
    made, _ = report
    blamed, mended, tried = made.page.sections
    assert blamed.reading.startswith("Without head 2.1 the right answer gains +")
    assert mended.reading.startswith("Head 2.1 held at its mean over the controls: 100.0% of 10 wrong examples")
    assert "accuracy on 20 controls goes from 100.0% to 100.0%" in mended.reading
    assert "3 other parts, drawn by lot, mends 0.0% at best" in mended.reading
    assert tried.folded and len(tried.pictures[0].rows) == 9


def test_the_numbers_and_the_edit_are_there(report):
    made, folder = report
    assert made.data["cures"][0] == {"site": flaw.SITE, "kind": "mean", "fixed": 1.0, "cost": 0.0}
    assert made.data["facts"]["wrong examples"] == "20" and made.data["facts"]["such as"].endswith("not “Nora”")
    assert str(pc.Edit.load(folder).site) == flaw.SITE


def test_few_examples_without_controls_are_said_to_be_so(planted):
    model, wrong, _ = planted
    made = debug_report(model, wrong[:2], [], lots=0)
    assert "none, so nothing is known of what an edit costs" in made.page.facts["controls"]
    assert "There are no controls, so what it costs is not known; give some with --right." in made.page.sections[1].reading
    assert made.page.facts["wrong examples"] == "2" and made.data["cures"][0]["cost"] is None


def test_it_says_beforehand_what_it_will_do(planted):
    assert planned(*planted).startswith("20 wrong examples, 40 controls: 36 parts are taken away one by one, then 9 edits")


def test_an_answer_that_is_no_token_names_its_line(town):
    pairs = [Pair("Mary works as a", None, (" doctor",)), Pair("Mary works as a", None, (" doctor baker",))]
    with pytest.raises(WrongToken, match=r"wrong.jsonl, example 2: the continuation .* is 2 tokens"):
        examples(town, pairs, Path("wrong.jsonl"))


def test_parts_in_words():
    assert [part(s) for s in (flaw.SITE, "blocks.0.mlp.out", "blocks.3.mixer.out")] == ["head 2.1", "MLP 0", "mixer 3"]
