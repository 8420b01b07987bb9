"""`patchclamp heads` as a user runs it: what it prints and writes, and mistakes."""

import json

import pytest

from patchclamp.specimens import town

FOLDER = town.__path__[0]
PARROT = ("specimen:town", "--task", "town/parrot", "--count", "4")


def test_it_prints_a_table_and_writes_the_page(shell, tmp_path):
    status, out, err = shell("heads", *PARROT)
    assert status == 0 and err == ""
    said = " ".join(out.split())
    assert "4 induction" in said and "In an untrained copy: none." in said and "matters most: without it" in said
    assert out.rstrip().endswith("Report: heads.html")
    page = (tmp_path / "heads.html").read_text()
    assert page.startswith("<!doctype html>") and "How they spread their attention" in page


def test_json_has_the_heads_and_with_checkpoints_when_they_came(cli):
    status, out, _ = cli("heads", *PARROT, "--movers", "town/ioi", "--no-untrained", "--checkpoints", FOLDER, "--json")
    said = json.loads(out, parse_constant=pytest.fail)
    assert status == 0 and list(said) == ["model", "facts", "readings", "heads", "grids", "report"]
    first = said["heads"][0]
    assert (
        first["head"] == "3.3"
        and first["name"] == "induction"
        and first["score"] > 5 * first["control"]
        and first["effect"] > 0.1
    )
    assert said["grids"]["checkpoints"]["labels"]["step"] == ["600", "1600", "8000"]
    assert "name mover" in said["grids"]["heads"]["details"] and "goes from 0." in said["readings"]["When it learnt that"]


def test_random_tokens_and_files_of_texts_are_prompts_too(shell, tmp_path):
    status, out, _ = shell("heads", "ids", "--no-untrained")
    assert status == 0 and "--prompts takes texts that repeat words" in out
    (tmp_path / "texts.txt").write_text("The list began: sun hat. The second list was the same: sun hat.\n" * 3)
    status, out, _ = shell("heads", "specimen:town", "--prompts", "texts.txt", "--no-untrained")
    assert status == 0 and "induction" in out


def test_mistakes_are_one_line_and_no_stack_trace(shell, tmp_path):
    (tmp_path / "one.txt").write_text("a\n")
    for arguments, says in (
        (("--task", "town/parrot", "--prompts", "one.txt"), "leave out one of them"),
        (("--count", "1"), "two or more"),
        (("--prompts", "none.txt"), "there is no file none.txt"),
        (("--prompts", "one.txt"), "has 1 texts"),
        (("--task", "town/parot"), "town/parrot"),
    ):
        status, out, err = shell("heads", "specimen:town", *arguments)
        assert status == 2 and out == "" and says in err and "Traceback" not in err
