"""What tests of the shell share: the command run as its script runs it."""

import sys

import pytest

from patchclamp.app.cli import main


@pytest.fixture
def shell(monkeypatch, capfd, tmp_path, town, gpt2):
    """Runs a command on the bundled model, or on `ids`, a small random one: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("patchclamp.model.load.load", lambda source, **_: gpt2 if source == "ids" else town)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["patchclamp", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        said = capfd.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def flawed(town):
    """The town with a head that wants Nora to have every drink: (model, wrong examples, controls), text and answer each."""
    import flaw

    return flaw.plant(town), *flaw.examples(town)
