"""The examples in the docstrings of this floor are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import patchclamp.picture as pictures

MODULES = [module.name for module in pkgutil.walk_packages(pictures.__path__, pictures.__name__ + ".")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
