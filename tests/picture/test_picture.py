"""Pictures are plain data that can show and save themselves; importing them costs nothing."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import picture_samples as samples
import pytest
from rich.console import Console

import patchclamp.picture as pictures
from patchclamp.picture import Picture


def test_every_exported_name_is_there():
    assert all(hasattr(pictures, name) for name in pictures.__all__)


def test_importing_loads_no_renderer_and_no_torch():
    code = "import sys, patchclamp.picture; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = ("torch", "transformers", "rich", "IPython", "patchclamp.picture.html", "patchclamp.picture.terminal")
    assert not [name for name in heavy if name in loaded]


@pytest.mark.parametrize("kind", [kind for kind in Picture.__subclasses__() if dataclasses.is_dataclass(kind)])
def test_pictures_are_frozen(kind):
    assert kind.__dataclass_params__.frozen


def test_saving_writes_the_page(tmp_path: Path):
    path = samples.bars().save(tmp_path / "bars.html")
    assert path.read_text(encoding="utf-8") == samples.bars().html()


def test_a_hostile_page_can_be_saved(tmp_path: Path):
    assert samples.hostile().save(tmp_path / "hostile.html").stat().st_size > 1000


def test_showing_outside_a_notebook_prints(capsys):
    samples.bars().show()
    assert "2.41" in capsys.readouterr().out


def test_rich_prints_pictures():
    file = io.StringIO()
    Console(file=file, width=60).print(samples.tokens())
    assert "Mary" in file.getvalue()


def test_notebooks_get_a_fragment():
    assert "<patchclamp-picture" in samples.bars()._repr_html_()
