"""Notebooks are recognised without importing IPython."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import picture_samples as samples

from patchclamp.picture import notebook


def pretend(monkeypatch, shell, shown=None):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    display = SimpleNamespace(display=lambda bundle, raw: shown.append((bundle, raw)))
    monkeypatch.setitem(sys.modules, "IPython.display", display)


def test_no_notebook_without_ipython(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not notebook.running()


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch):
    pretend(monkeypatch, SimpleNamespace())
    assert not notebook.running()


def test_ipython_loaded_but_not_running(monkeypatch):
    pretend(monkeypatch, None)
    assert not notebook.running()


def test_showing_in_a_notebook_gives_html_and_text(monkeypatch):
    shown: list = []
    pretend(monkeypatch, SimpleNamespace(kernel=object()), shown)
    samples.bars().show()
    [(bundle, raw)] = shown
    assert raw
    assert "<patchclamp-picture" in bundle["text/html"]
    assert "2.41" in bundle["text/plain"]
    assert "\x1b" not in bundle["text/plain"]
