"""`patchclamp blimp` as a user runs it: what it prints and writes, stopping and going on, mistakes."""

import json

import pytest

from patchclamp.core.journal import Journal

LINES = [
    ("Mary and John went to the store.", "Mary and John went to the the."),
    ("John gave a drink to Mary.", "John gave a drink to gave."),
    ("Xxxx.", "Yyyy."),
]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    for name, field, lines in (("one", "syntax", LINES), ("two", "morphology", LINES[:1])):
        rows = [{"sentence_good": g, "sentence_bad": b, "field": field, "linguistics_term": f"{name} term"} for g, b in lines]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def test_it_prints_a_table_and_writes_the_page(shell, folder, tmp_path):
    status, out, err = shell("blimp", "specimen:town", folder)
    assert status == 0 and err == "4 pairs of sentences in 2 paradigms\n"
    assert "one term" in out and "0.667" in out and "In 1 pair both" in out and "morphology" in out
    assert out.rstrip().endswith("Report: blimp.html")
    assert (tmp_path / "blimp.html").read_text().startswith("<!doctype html>")


def test_json_is_alone_on_standard_output(shell, folder):
    status, out, _ = shell("blimp", "specimen:town", folder, "--limit", "2", "--json")
    said = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and list(said) == ["model", "facts", "readings", "grids", "report"]
    grid = said["grids"]["paradigms"]
    assert grid["labels"]["paradigm"] == ["one", "two"] and grid["values"] == [1.0, 1.0]
    assert grid["details"]["pairs"] == [2.0, 1.0] and said["facts"]["before a sentence"] == "<bos>"


def test_stopped_by_hand_and_resumed_it_is_the_same(shell, folder, monkeypatch):
    monkeypatch.setattr("patchclamp.task.blimp.PAIRS", 1)
    _, out, _ = shell("blimp", "specimen:town", folder, "--json")
    expected, written = json.loads(out), Journal.flush_in_time

    def stop(self):
        written(self)
        if self.count == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "flush_in_time", stop)
    status, out, err = shell("blimp", "specimen:town", folder, "--json", "--resume", "work")
    assert status == 130 and out == "" and err.endswith("Stopped: 2 finished answers are kept; go on with --resume work.\n")
    monkeypatch.setattr(Journal, "flush_in_time", written)
    status, out, err = shell("blimp", "specimen:town", folder, "--json", "--resume", "work")
    assert status == 0 and "Going on from what is finished in work." in err
    assert json.loads(out)["grids"] == expected["grids"]


def test_mistakes_are_one_line_and_no_stack_trace(shell, folder, tmp_path):
    (folder / "one.jsonl").write_text("{}\n")
    for arguments, says in (
        (("specimen:town", folder), 'one.jsonl, line 1 has no text "sentence_good"'),
        (("specimen:town", tmp_path / "none"), "could not be read"),
        (("specimen:town", folder, "--limit", "0"), "--limit is how many pairs"),
        (("ids", folder / "two.jsonl"), "has no tokenizer"),
    ):
        status, out, err = shell("blimp", *arguments)
        assert status == 2 and out == "" and says in err and "Traceback" not in err


def test_help_has_examples(shell):
    status, out, _ = shell("blimp", "-h")
    assert status == 0 and "patchclamp blimp gpt2 blimp/data --limit 100 --json" in " ".join(out.split())
