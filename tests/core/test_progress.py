"""Bars for what takes time, silence for what does not."""

import io

from patchclamp.core import progress as module
from patchclamp.core.progress import progress


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_short_work_is_silent(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    assert list(progress([1, 2, 3], label="x")) == [1, 2, 3]
    assert screen.getvalue() == ""


def test_long_work_shows_a_bar_to_whoever_looks(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    assert list(progress(iter(range(5)), total=5, label="counting")) == [0, 1, 2, 3, 4]
    assert "counting" in screen.getvalue()


def test_nobody_looking_sees_no_bar(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    list(progress(range(3)))
    assert log.getvalue() == ""


def test_work_within_work_has_one_bar(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    for _ in progress([1, 2], label="outer"):
        list(progress([1, 2], label="inner"))
    assert "outer" in screen.getvalue() and "inner" not in screen.getvalue()
