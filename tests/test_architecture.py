"""The house stands as the plan says: floors, no cycles, hooks in one file, a front door that is a list."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import patchclamp

ROOT = Path(patchclamp.__file__).parent
FLOORS = {"picture": 0, "core": 1, "model": 2, "specimens": 2, "cause": 3, "circuit": 3, "lenses": 3, "probe": 3, "sparse": 3,
          "surgery": 3, "matrix": 3, "vision": 3, "lab": 3, "task": 3, "papers": 4, "app": 5}  # fmt: skip
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")
FRONT_DOOR = [
    "Dictionary", "Edge", "Edit", "Graph", "Grid", "Model", "Node", "PatchclampError", "Run", "Site", "TunedLens", "clamp", "contrast",
    "decompose", "direct", "effects", "freeze", "gradient", "kl", "lens", "load", "logit", "logit_diff", "mean", "nll", "patch", "prob",
    "project", "rank",
    "splice", "steer", "zero",
]  # fmt: skip


def imports(path: Path, top: bool) -> set[str]:
    """The modules of this package that a file imports; only those at its top level, or all of them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("patchclamp"):
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names if _is_module(f"{node.module}.{a.name}")}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("patchclamp")}
    return found


def _is_module(name: str) -> bool:
    place = ROOT.parent / Path(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_arrows_point_down_and_rooms_do_not_know_each_other(path):
    mine = room(name_of(path))
    for module in imports(path, top=False):
        theirs = room(module)
        if not theirs or theirs == mine:
            continue
        assert FLOORS[theirs] < FLOORS[mine], f"{name_of(path)} imports {module}"


def test_there_are_no_cycles():
    graph = {name_of(p): imports(p, top=True) for p in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done or module not in graph:
            return
        for other in graph[module]:
            visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_hooks_are_registered_in_one_file():
    guilty = [name_of(p) for p in FILES if "register_forward" in p.read_text(encoding="utf-8")]
    assert guilty == ["patchclamp.model.tap"]


def test_no_weights_are_unpickled():
    """One foreign format is a `.pt`; it is opened in one place, and as tensors only."""
    texts = {name_of(p): p.read_text(encoding="utf-8") for p in FILES}
    assert not any("pickle.load" in text for text in texts.values())
    opened = {name: re.findall(r"torch\.load\((.*)", text) for name, text in texts.items() if "torch.load(" in text}
    assert list(opened) == ["patchclamp.lenses.tuned_format"]
    assert all("weights_only=True" in call for calls in opened.values() for call in calls)


def test_nothing_is_downloaded_and_no_address_is_named():
    for path in [*FILES, *ROOT.rglob("*.js"), *ROOT.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        assert "http://" not in text and "https://" not in text, path


def test_the_front_door_is_a_list():
    assert patchclamp.__all__ == FRONT_DOOR
    assert set(dir(patchclamp)) == {*FRONT_DOOR, "__version__"}
    for name in FRONT_DOOR:
        assert getattr(patchclamp, name).__name__ == name
    with pytest.raises(AttributeError, match="patchclamp has no 'nothing'"):
        patchclamp.nothing  # noqa: B018


def test_no_room_has_the_name_of_a_verb():
    assert not set(FRONT_DOOR) & {p.name for p in ROOT.iterdir()}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import patchclamp", ("torch", "transformers", "numpy", "rich")),
        ("import patchclamp.picture", ("torch", "transformers", "rich")),
        ("import patchclamp; patchclamp.Site", ("torch", "transformers")),
        ("import patchclamp; patchclamp.Grid; patchclamp.Model; patchclamp.effects", ("transformers",)),
        ("import patchclamp.app.cli", ("torch", "transformers")),
    ],
)
def test_importing_costs_only_what_is_used(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent!r} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]", said.stdout


def test_every_public_thing_says_what_it_is():
    silent = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            silent.append(name_of(path))
        for node in tree.body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and not ast.get_docstring(node) and path.parent.name != "town":
                silent.append(f"{name_of(path)}.{node.name}")
    assert silent == []
