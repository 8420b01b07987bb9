"""What every test may use: the zoo of small random models, and the shared real checkpoints where they are present."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network; one that tries must fail at once
torch.set_num_threads(1)  # the tests run in parallel processes

SHARED = Path(os.environ.get("PATCHCLAMP_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared():
    """The folder of real checkpoints and data; a test that needs it is skipped, saying so, where it is absent."""
    if not (SHARED / "models").is_dir():
        pytest.skip(f"no shared checkpoints at {SHARED} (set PATCHCLAMP_SHARED to have these tests run)")
    return SHARED


@pytest.fixture(scope="session")
def stories(shared):
    """A real Llama that tells stories, 260 thousand parameters."""
    import patchclamp as pc

    return pc.load(shared / "models" / "stories260K")


@pytest.fixture(scope="session")
def town():
    """The bundled specimen."""
    import patchclamp as pc

    return pc.load("specimen:town")


@pytest.fixture(scope="session")
def gpt2():
    """A small random GPT-2 on ids."""
    import patchclamp as pc
    import zoo

    return pc.load(zoo.build("gpt2"))


@pytest.fixture(scope="session")
def llama():
    """A small random Llama with grouped-query attention, on ids."""
    import patchclamp as pc
    import zoo

    return pc.load(zoo.build("llama"))


@pytest.fixture
def ids():
    """Two prompts of seven tokens."""
    return torch.arange(20, 34).view(2, 7)


# ---- the shell


@pytest.fixture
def cli(monkeypatch, capfd, tmp_path):
    """Runs the command as its script does: (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    from patchclamp.app.cli import main

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
