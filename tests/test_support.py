"""docs/support.md says what is so: it is made again and compared, and what it promises is counted."""

from __future__ import annotations

import difflib
import re

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError

import support
import zoo

AGAIN = "make it again with `python tests/support.py`, and read what changed"


@pytest.fixture(scope="module")
def written():
    """The page as it stands, if it is about the transformers that is installed."""
    assert support.PAGE.is_file(), f"there is no docs/support.md; {AGAIN}"
    theirs, ours = support.written_for(), transformers.__version__
    if theirs != ours:
        pytest.skip(f"NOT COMPARED: docs/support.md is about transformers {theirs}, installed is {ours}; {AGAIN}")
    return support.PAGE.read_text(encoding="utf-8")


def listed(written: str, task: str) -> list[dict[str, str]]:
    """The rows of one task's table, by heading."""
    section = written.split(f"## {support.TASKS[task][0]}\n")[1].split("\n## ")[0]
    heads, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"
    ]
    return [dict(zip(heads, row)) for row in rows]


def test_the_page_is_what_the_models_say(written):
    now = support.page() + "\n"
    changed = "\n".join(list(difflib.unified_diff(written.splitlines(), now.splitlines(), "docs/support.md", "now", n=0))[:20])
    assert now == written, f"docs/support.md is not what the models say now; {AGAIN}\n{changed}"


def test_enough_language_models_have_their_residual_stream_and_their_attention(written):
    rows = listed(written, "causal")
    assert sum(row["stream"][0] in "is" for row in rows) >= 140  # `in ... out`, or `streams`
    assert sum(row[support.GROUPS["heads"]] == row["pattern"] == "●" for row in rows) >= 120


@pytest.mark.parametrize("task", support.TASKS)
def test_every_class_is_listed_and_whatever_it_lacks_has_a_reason(written, task):
    rows = listed(written, task)
    assert [row["class"].strip("`") for row in rows] == [zoo.class_of(kind, task).__name__ for kind in zoo.kinds(task)]
    reasons = set(re.findall(r"^(\d+)\. \*\*", written.split(f"## {support.TASKS[task][0]}\n")[1].split("\n## ")[0], re.M))
    for row in rows:
        lacks = any(mark in cell for cell in row.values() for mark in "○◐—")
        assert set(row["reasons"].split()) <= reasons and (row["reasons"] or not lacks), row["class"]


def test_what_is_said_not_to_build_is_in_scope_and_does_not_build():
    kinds = {kind: task for task in support.TASKS for kind in zoo.kinds(task) if zoo.cannot(kind, task)}
    assert {k.partition("/")[0] for k in zoo.CANNOT} == set(kinds)
    for kind in ("gemma4_assistant", "detr", "timm_wrapper", "dinat"):
        with pytest.raises((ImportError, ValueError, TypeError, StrictDataclassError)), zoo.quiet():
            zoo.build(kind, kinds[kind])


def test_the_page_is_no_longer_than_a_page_should_be(written):
    assert len(written.encode()) < 150_000
