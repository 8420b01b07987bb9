"""The command line: what it prints, what it writes, and that a user's mistake is one clear message and never a stack trace."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

import words
import zoo

CLEAN, CORRUPT = "the boy saw a dog and then ran", "the girl saw a dog and then ran"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small models saved to a folder, by kind."""
    place = tmp_path_factory.mktemp("models")
    for kind, task in (("gpt2", "causal"), ("bert", "masked")):
        with zoo.quiet():
            zoo.build(kind, task).save_pretrained(place / kind)
        words.tokenizer().save_pretrained(place / kind)
    zoo.build("gpt2").save_pretrained(place / "ids")
    return place


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_examine_prints_a_summary_and_writes_the_report(cli, folder, tmp_path):
    status, out, err = cli("examine", folder / "gpt2", CLEAN)
    assert status == 0 and err == ""
    for title in (
        "Inside gpt2",
        "What it says",
        "What each block would say",
        "Who writes the answer",
        "What the heads look at",
    ):
        assert title in out
    assert out.rstrip().endswith("Report: report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>") and CLEAN in page


def test_against_another_prompt_it_maps_what_carries_the_difference(cli, folder, tmp_path):
    status, out, _ = cli(
        "examine", folder / "gpt2", CLEAN, "--against", CORRUPT, "--parts", "q,k,v,pattern", "--out", "maps.html"
    )
    assert status == 0 and "Where the difference travels" in out
    page = (tmp_path / "maps.html").read_text()
    for title in ("Attention layers", "Feed-forward layers", "Heads", "Heads: q", "Heads: k", "Heads: v", "Heads: pattern"):
        assert f"<h2>{title}</h2>" in page


def test_a_model_without_a_tokenizer_is_given_ids(cli, folder):
    status, out, _ = cli("examine", folder / "ids", "30 31, 32", "--answer", "7", "--wrong", "8")
    assert status == 0 and "30 31 32 (3 tokens)" in out and "answer  “7”" in re.sub(r" {2,}", "  ", out)


def test_a_token_is_given_by_its_text_or_else_by_its_id(cli, folder):
    _, by_word, _ = cli("examine", folder / "gpt2", CLEAN, "--answer", "cat", "--json")
    _, by_id, _ = cli("examine", folder / "gpt2", CLEAN, "--answer", words.tokenizer().get_vocab()["cat"], "--json")
    assert json.loads(by_word)["grids"]["contributions"] == json.loads(by_id)["grids"]["contributions"]


def test_json_is_the_page_in_numbers_and_nothing_else(cli, folder):
    status, out, err = cli("examine", folder / "gpt2", CLEAN, "--against", CORRUPT, "--json")
    said = json.loads(out, parse_constant=pytest.fail)  # no NaN, which is no JSON
    assert status == 0 and err == ""
    assert list(said) == ["model", "facts", "tokens", "readings", "left_out", "grids", "report"]
    assert said["model"] == "gpt2" and said["tokens"] == CLEAN.split() and said["report"] == "report.html"
    grids = said["grids"]
    assert {"predictions", "lens", "contributions", "heads", "sources", "patching stream", "patching heads"} <= set(grids)
    for name, grid in grids.items():
        assert {"title", "axes", "labels", "unit", "values", "baseline"} <= set(grid), name
        values, shape = torch.tensor(grid["values"]), [len(grid["labels"][a]) for a in grid["axes"]]
        assert list(values.shape) == shape, name
    assert len(grids["lens"]["text"]) == 2 and set(grids["lens"]["details"]) == {"KL", "entropy", "rank", "token", "p(output)"}
    whole = grids["contributions"]
    assert sum(whole["values"]) == pytest.approx(whole["baseline"]["metric"], abs=1e-4)


def test_sites_lists_every_place(cli, folder):
    status, out, _ = cli("sites", folder / "gpt2")
    assert status == 0 and "blocks.i.attn.pattern" in out
    status, out, _ = cli("sites", folder / "gpt2", "--json")
    said = json.loads(out)
    assert list(said) == ["model", "sites", "refused"]
    assert said["sites"]["blocks.1.attn.z"] == {"axes": ["batch", "pos", "head", "d_head"], "sizes": {"head": 4, "d_head": 16}}
    assert any("gate" in place for place in said["refused"])


@pytest.mark.parametrize("command", ["examine", "sites"])
def test_help_has_examples_and_every_option_says_what_it_is_for(cli, command):
    status, out, _ = cli(command, "--help")
    assert status == 0 and f"patchclamp {command} specimen:town" in out
    for line in re.findall(r"^│ +(?:\*  )?--\S+.*$", out, re.MULTILINE):
        assert re.search(r"[a-z]{3,} [a-z]{2,}", line), line


def test_without_a_command_it_says_what_there_is(cli):
    _, out, err = cli()
    assert "examine" in out + err and "sites" in out + err


# ---- a user's mistakes -----------------------------------------------------------------------------------------------


def refused(result, *said):
    """Status 2, nothing on standard output, one message with the cure on standard error."""
    status, out, err = result
    assert status == 2 and out == "", (status, out)
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1, err
    for part in said:
        assert part in err, err


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("./nowhere", "there is no folder ./nowhere"),
        ("nobody/nothing", "could not be opened as a model"),
        ("specimen:twon", 'Did you mean "town"?'),
    ],
)
@pytest.mark.parametrize("command", ["examine", "sites"])
def test_a_model_that_is_not_there(cli, command, source, said):
    refused(cli(command, source, *(["a"] if command == "examine" else [])), "NotAModel: ", said)


def test_folders_that_are_no_models(cli, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    refused(cli("examine", "notes", "a"), "NotAModel: notes is no model folder: it has no config.json. It holds a.txt.")
    (tmp_path / "notes" / "config.json").write_text('{"model_type": "gpt2"}')
    refused(cli("examine", "notes", "a"), "no weights (*.safetensors)")
    torch.save({}, tmp_path / "notes" / "pytorch_model.bin")
    refused(cli("examine", "notes", "a"), "UnsafeWeights: ", "pytorch_model.bin, a pickle", "save_pretrained(folder)")
    (tmp_path / "notes" / "model.safetensors").write_bytes(b"not at all")
    refused(cli("examine", "notes", "a"), "NotAModel: ", 'the weights of "notes" could not be read')
    (tmp_path / "notes" / "config.json").write_text('{"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}')
    refused(cli("examine", "notes", "a"), "NotAModel: ", "brings Python code of its own", "remote_code=True")
    refused(cli("examine", "notes/a.txt", "a"), "NotAModel: ", "is a file; give the folder")


def test_code_of_a_repositorys_own_runs_where_it_is_allowed(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    zoo.build("gpt2").save_pretrained(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    own = {"model_type": "theirs", "architectures": ["Model"]}
    own["auto_map"] = {"AutoConfig": "their_code.Config", "AutoModelForCausalLM": "their_code.Model"}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config | own))
    (tmp_path / "theirs" / "their_code.py").write_text(
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class Config(GPT2Config):\n    model_type = 'theirs'\n"
        "class Model(GPT2LMHeadModel):\n    config_class = Config\n"
    )
    refused(cli("sites", "theirs"), "brings Python code of its own", "--remote-code on the command line")
    status, out, _ = cli("sites", "theirs", "--remote-code", "--json")
    assert status == 0 and "blocks.1.attn.pattern" in json.loads(out)["sites"]


def test_a_tokenizer_that_cannot_be_read(cli, folder, tmp_path):
    zoo.build("gpt2").save_pretrained(tmp_path / "torn")
    (tmp_path / "torn" / "tokenizer.json").write_text("{")
    refused(cli("examine", "torn", "a"), "NotAModel: ", 'the tokenizer of "torn" could not be read')


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([CLEAN, "--answer", "zebra"], ("WrongToken", '"zebra" is not in the vocabulary')),
        ([CLEAN, "--answer", "cat dog"], ("WrongToken", '"cat dog" is 2 tokens ("cat", "dog"); give one of them, or an id')),
        ([CLEAN, "--wrong", "cat dog"], ("WrongToken", "is 2 tokens")),
        ([CLEAN, "--answer", "1234"], ("WrongToken", "there is no token 1234 in a vocabulary of 99")),
        ([CLEAN, "--against", "the girl ran"], ("WrongPrompt", "the clean one has 8 tokens, the corrupt one 3", "Reword one")),
        ([CLEAN, "--against", CLEAN], ("WrongPrompt", "the same tokens; there is nothing to patch")),
        (["the cat " * 40], ("WrongPrompt", "the prompt has 80 tokens; this model has positions for 64")),
        ([""], ("WrongPrompt", "the prompt is empty")),
        ([CLEAN, "--parts", "q,x"], ("--parts takes q, k, v, pattern", 'not "x"')),
        ([CLEAN, "--parts", "patern"], ('Did you mean "pattern"?',)),
        ([CLEAN, "--out", "no/such/page.html"], ("NotSaved", "there is no folder no/such", "name another with --out")),
        ([CLEAN, "--out", "."], ("NotSaved", ". is a folder; give the report a file name")),
        ([CLEAN, "--out", "x" * 300], ("NotSaved", "could not be written (File name too long); name another file with --out")),
    ],
)
def test_mistakes_in_what_is_asked(cli, folder, arguments, said):
    refused(cli("examine", folder / "gpt2", *arguments), *said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["the boy"], ("WrongPrompt", 'ids has no tokenizer, so its prompt is token ids such as "2 0 1"; got "the boy"')),
        (["30 31 990"], ("WrongToken", "there is no token 990 in a vocabulary of 99")),
        (["30 31", "--answer", "cat"], ("WrongToken", '"cat" is a word, but this model has no tokenizer; give the token id')),
        (["30 31", "--answer", "990"], ("WrongToken", "there is no token 990 in a vocabulary of 99")),
        (["30 31", "--answer", "1", "--wrong", "990"], ("WrongToken", "there is no token 990")),
    ],
)
def test_mistakes_without_a_tokenizer(cli, folder, arguments, said):
    refused(cli("examine", folder / "ids", *arguments), *said)


def test_what_can_be_told_beforehand_is_told_before_the_model_is_opened(cli, monkeypatch):
    monkeypatch.setattr("patchclamp.model.load.load", pytest.fail)
    refused(cli("examine", "somewhere", "a", "--out", "no/such/page.html"), "there is no folder")
    refused(cli("examine", "somewhere", "a", "--parts", "x"), "--parts takes")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["examine", "m", "a", "--agianst", "b"], "No such option: --agianst"),
        (["examine", "m"], "Missing argument 'PROMPT'"),
        (["examin", "m", "a"], "No such command 'examin'"),
        (["sites", "m", "--out", "x"], "No such option: --out"),
    ],
)
def test_mistakes_of_spelling(cli, arguments, said):
    status, out, err = cli(*arguments)
    assert status == 2 and out == "" and said in re.sub(r"[│\s]+", " ", err) and "Traceback" not in err


def test_stopping_it_is_no_error(cli, folder, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("patchclamp.model.load.load", stopped)
    status, out, err = cli("examine", folder / "gpt2", CLEAN)
    assert status == 130 and out == "" and "Traceback" not in err


# ---- as a process of its own -----------------------------------------------------------------------------------------


def process(*arguments, cwd):
    command = [sys.executable, "-m", "patchclamp.app.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "100"}, check=False)


def test_a_process_prints_json_alone_on_standard_output(folder, tmp_path):
    done = process("examine", folder / "gpt2", CLEAN, "--json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["model"] == "gpt2"
    assert (tmp_path / "report.html").is_file()


def test_a_process_ends_with_status_two_and_one_line(tmp_path):
    done = process("examine", "./nowhere", "a", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "NotAModel: there is no folder ./nowhere.\n"


def test_a_process_asked_for_help_reads_no_model(tmp_path):
    done = process("--help", cwd=tmp_path)
    assert done.returncode == 0 and "examine" in done.stdout and "sites" in done.stdout
