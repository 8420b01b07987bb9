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


def test_work_inside_work_has_a_bar_on_the_same_screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    screens = []
    for _ in progress(range(2), label="outer"):
        for _ in progress(range(2), label="inner"):
            screens.append((id(module._screen[0]), len(module._screen[0].tasks)))
        assert len(module._screen[0].tasks) == 1
    assert len({which for which, _ in screens}) == 1 and {bars for _, bars in screens} == {2}
    assert not module._screen and "outer" in screen.getvalue() and "inner" in screen.getvalue()


def test_a_loop_that_is_left_takes_its_bar_along(monkeypatch):
    monkeypatch.setattr("sys.stderr", Screen())
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    try:
        for n in progress(range(3)):
            if n == 1:
                raise KeyError
    except KeyError:
        pass
    assert not module._screen
