"""Guides and README are run: every Python block of a page, in order, and what it prints is what the page says it prints.

PATCHCLAMP_UPDATE_DOCS=1 python -m pytest tests/test_docs.py     writes down what they print now
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:```text\n(?P<said>.*?)```\n)?", re.DOTALL)
NUMBER = re.compile(r"[-−+]?\d*\.\d+(?:e[-+]\d+)?")


def run_page(page: Path) -> tuple[str, list[tuple[str, str]]]:
    """The page with its outputs as they are now, and (what it said, what was printed) for every block."""
    names: dict = {}
    pairs = []

    def carried_out(block: re.Match) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], page.name, "exec"), names)
        now = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
        pairs.append(((block["said"] or "").rstrip(), now.rstrip()))
        shown = f"```text\n{now.rstrip()}\n```\n" if now.strip() else ""
        return f"```python\n{block['code']}```\n{shown}"

    return BLOCK.sub(carried_out, page.read_text(encoding="utf-8")), pairs


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_prints_what_it_says(page, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    fresh, pairs = run_page(page)
    if os.environ.get("PATCHCLAMP_UPDATE_DOCS"):
        page.write_text(fresh, encoding="utf-8")
        return
    for said, now in pairs:
        # Digits may differ in the last place between processors; words and structure may not.
        assert NUMBER.sub("#", said) == NUMBER.sub("#", now)
        for one, other in zip(NUMBER.findall(said), NUMBER.findall(now)):
            assert _float(one) == pytest.approx(_float(other), abs=0.02, rel=0.02), (said, now)


def _float(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem in ("README", "examine", "shell")], ids=lambda p: p.stem)
def test_commands_of_a_page_exist(page):
    """Every option that a page names is one that the command has."""
    import typer

    from patchclamp.app.cli import app

    known = typer.main.get_command(app).commands
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^patchclamp (.+)$", text, re.MULTILINE):
        command, *words = shlex.split(line)
        options = {o for p in known[command].params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= options, line


def test_make_has_the_commands_that_the_readme_names():
    made = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"examine", "test", "check", "docs"} <= named <= made


def test_the_annotated_tree_of_the_readme_is_the_tree():
    """Every folder and file of the package that the README's tree names exists, and every folder is named."""
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("src/patchclamp/\n")[2].partition("```")[0]
    named = {word for line in tree.splitlines() for word in re.findall(r"^\s*(?:\d )?\s*(\w+)/", line)}
    folders = {p.parent.name for p in (ROOT / "src" / "patchclamp").glob("*/__init__.py")}
    assert folders <= named, folders - named
