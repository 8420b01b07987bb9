"""`patchclamp effects`, `circuit` and `debug` as a user runs them: what they print and write, stopping and going on, mistakes."""

import json
import re

import pytest

import flaw
from patchclamp.core.journal import Journal

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = CLEAN.replace("John gave", "Mary gave")
IDS = ("ids", "--clean", "20 21 22 23 24", "--corrupt", "20 31 22 23 24", "--answer", "5", "--wrong", "9")
PAIR = ("specimen:town", "--clean", CLEAN, "--corrupt", CORRUPT)


def test_effects_prints_a_summary_and_writes_the_page(shell, tmp_path):
    status, out, err = shell("effects", *PAIR)
    assert status == 0 and err == "blocks.*.out[pos=*]: 60 cells on 1 prompt, about 1 batched pass\n"
    assert "then in block" in out and out.rstrip().endswith("Report: effects.html")
    assert (tmp_path / "effects.html").read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["effects.html"]


def test_json_is_alone_on_standard_output(shell):
    status, out, _ = shell("effects", *PAIR, "--sites", "blocks.*.attn.z[head=*]", "--json", "--out", "e.html")
    said = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and list(said) == ["model", "facts", "readings", "grids", "report"] and said["report"] == "e.html"


@pytest.mark.parametrize(
    "command",
    [("effects", *PAIR, "--sites", "blocks.*.attn.z[head=*]"), ("circuit", *IDS, "--random", "2", "--method", "acdc")],
    ids=["effects", "circuit"],
)  # fmt: skip
def test_stopped_by_hand_and_resumed_it_is_the_same(shell, command, tmp_path, monkeypatch):
    _, out, _ = shell(*command, "--json")
    expected = json.loads(out)
    written = Journal.flush_in_time

    def stop(self):
        written(self)
        if self.count == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "flush_in_time", stop)
    status, out, err = shell(*command, "--json", "--resume", "work")
    assert status == 130 and out == "" and err.endswith("Stopped: 3 finished answers are kept; go on with --resume work.\n")
    assert (tmp_path / "work" / "card.json").is_file()
    monkeypatch.setattr(Journal, "flush_in_time", written)
    status, out, err = shell(*command, "--json", "--resume", "work")
    found = json.loads(out)
    assert status == 0 and "Going on from what is finished in work." in err
    for said in (expected, found):
        said["facts"].pop("took")
    assert found == expected


def test_another_question_does_not_go_on_from_there(shell):
    shell("effects", *PAIR, "--resume", "work")
    status, out, err = shell("effects", *PAIR, "--resume", "work", "--metric", "prob")
    assert status == 2 and out == ""
    assert err.splitlines()[-1] == (
        'NotSaved: work holds the answers to another question: its metric was null, and is "prob" now. '
        "Ask the same, or name another folder."
    )


def test_circuit_writes_what_it_is_asked_to(shell, tmp_path):
    arguments = ("--method", "eap", "--edges", "60", "--random", "1", "--mib", "mib.json", "--save", "saved")
    status, out, err = shell("circuit", *IDS, *arguments)
    assert status == 0 and err == "110 edges on 1 prompt pair by eap: two passes and one gradient; then 1 random circuit.\n"
    for title in ("The circuit", "Is it the circuit?", "Strongest edges", "How many edges are enough"):
        assert f"── {title} ─" in out
    assert {p.name for p in tmp_path.iterdir()} == {"circuit.html", "mib.json", "saved"}


def test_debug_finds_the_planted_head(shell, flawed, tmp_path, monkeypatch):
    model, wrong, right = flawed
    monkeypatch.setattr("patchclamp.model.load.load", lambda source, **_: model)
    for name, some in (("wrong", wrong[:8]), ("right", right[:8])):
        lines = (json.dumps({"prompt": p, "answer": a}) for p, a in some)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    status, out, _ = shell("debug", "flawed", "--wrong", "wrong.jsonl", "--right", "right.jsonl", "--random", "1", "--json")
    said = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and list(said) == ["model", "facts", "readings", "parts", "cures", "others", "report"]
    assert said["cures"][0]["site"] == flaw.SITE and said["cures"][0]["fixed"] == 1


@pytest.mark.parametrize("command", ["effects", "circuit", "debug"])
def test_help_has_examples_and_every_option_says_what_it_is_for(shell, command):
    status, out, _ = shell(command, "--help")
    assert status == 0 and f"patchclamp {command} specimen:town" in out and "--json" in out
    for line in re.findall(r"^│ +(?:\*  )?--\S+.*$", out, re.MULTILINE):
        assert re.search(r"[a-z]{3,} [a-z]{2,}", line), line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("effects", "m"), "WrongOption: give prompts as --clean and --corrupt"),
        (("effects", "m", "--task", "ioy"), 'UnknownTask: there is no task "ioy". Did you mean "ioi"?'),
        (("effects", "m", "--pairs", "no.json"), "NotSaved: there is no file no.json"),
        (("effects", "m", "--task", "ioi", "--by", "men"), 'WrongOption: --by is one of patch, zero, mean, resample, noise; not "men"'),
        (("effects", *PAIR, "--out", "no/such.html"), "NotSaved: there is no folder no"),
        (("effects", *PAIR, "--sites", "blocks.*.atn.z[head=*]"), 'Did you mean "blocks.*.attn.z"?'),
        (("circuit", *PAIR[:3], "--corrupt", "Mary saw"), "WrongPrompt: patching lays two prompts side by side"),
        (("circuit", "m", "--task", "ioi", "--edges", "3", "--share", "0.1"), "WrongOption: a circuit is cut off in one way"),
        (("circuit", *PAIR, "--save", "here/is/a/file"), "NotSaved: the folder here/is/a/file could not be made (Not a directory)"),
        (("effects", *PAIR, "--resume", "here/is/a/file"), "NotSaved: here/is/a/file could not be made (Not a directory)"),
        (("debug", "m", "--wrong", "no.jsonl"), "NotSaved: no.jsonl could not be read"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(shell, arguments, said, tmp_path):
    (tmp_path / "here").write_text("")
    status, out, err = shell(*arguments)
    assert status == 2 and out == "" and "Traceback" not in err
    assert said in err and len([line for line in err.splitlines() if "cells on" not in line and "edges on" not in line]) == 1
