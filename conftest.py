"""What holds for tests and for the examples in docstrings alike: shapes are checked, and an example finds its model."""

from __future__ import annotations

import doctest
import inspect
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent / "tests"))

from shapes import MODULES

# Before anything of the package is imported, and only here: whoever uses the package pays for no checks.
install_import_hook(MODULES, "shapes.shapes")

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"


class Finder(doctest.DocTestFinder):
    """A checked function is wrapped, and would pass for one of the module that wraps it."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object) if inspect.isroutine(object) else object)


doctest.DocTestFinder = Finder


@pytest.fixture(scope="session")
def _specimen():
    import patchclamp as pc

    return pc.load("specimen:town")


@pytest.fixture(autouse=True)
def _examples(request):
    """The names that examples begin with, as the front door's docstring says."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    import torch

    import patchclamp as pc

    names = {"pc": pc, "torch": torch, "model": request.getfixturevalue("_specimen"), "clean": CLEAN, "corrupt": CORRUPT}
    request.getfixturevalue("doctest_namespace").update(names)
