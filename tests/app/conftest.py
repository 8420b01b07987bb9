"""What tests of the shell share: the command run as its script runs it."""

import sys

import pytest

from patchclamp.app.cli import main


@pytest.fixture
def cli(monkeypatch, capfd, tmp_path):
    """Runs the command as its script does: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

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
def shell(cli, monkeypatch, town, gpt2):
    """The same on the bundled model, opened once, or on `ids`, a small random one."""
    monkeypatch.setattr("patchclamp.model.load.load", lambda source, **_: gpt2 if source == "ids" else town)
    return cli


@pytest.fixture
def flawed(town):
    """The town with a head that wants Nora to have every drink: (model, wrong examples, controls), text and answer each."""
    import flaw

    return flaw.plant(town), *flaw.examples(town)
