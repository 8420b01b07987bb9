"""Saving and loading of the nouns: numbers as safetensors, everything else as a readable JSON card. Never a pickle.

A noun is a folder with `card.json` and, where it has numbers, `tensors.safetensors`. What cannot be written down (an edit
made from somebody's function) is refused, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from patchclamp.core.edit import Edit, clamp, freeze, mean, patch, project, steer, zero
from patchclamp.core.errors import NotSaved, did_you_mean
from patchclamp.core.graph import Edge, Graph, Node
from patchclamp.core.grid import Grid
from patchclamp.core.run import Kept, Remembered, Run
from patchclamp.core.site import Site, written
from patchclamp.core.window import Window

CARD, TENSORS = "card.json", "tensors.safetensors"
VERSION = 1
Noun = TypeVar("Noun")


def save(noun: Grid | Run | Graph | Edit, folder: str | Path) -> Path:
    """Write a noun to a folder and return its path."""
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    card = {"noun": type(noun).__name__, "version": VERSION, **_card(noun, tensors, "")}
    folder.mkdir(parents=True, exist_ok=True)
    if tensors:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, folder / TENSORS)
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def load(folder: str | Path, kind: type[Noun]) -> Noun:
    """Read a noun of a given kind from a folder."""
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotSaved(f"{folder} holds no {CARD}; it was not written by save().") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotSaved(f"{folder / CARD} is not readable JSON ({error}).") from None
    if card.get("noun") != kind.__name__:
        raise NotSaved(f"{folder} holds a {card.get('noun')}, not a {kind.__name__}.")
    if card.get("version", 0) > VERSION:
        raise NotSaved(f"{folder} was written by a newer Patchclamp (version {card['version']}); update it.")
    path = folder / TENSORS
    tensors = load_file(path) if path.is_file() else {}
    return _noun(card, tensors, "")


def _card(noun: Any, tensors: dict[str, Tensor], at: str) -> dict[str, Any]:
    if isinstance(noun, Grid):
        return _grid_card(noun, tensors, at)
    if isinstance(noun, Run):
        return _run_card(noun, tensors, at)
    if isinstance(noun, Graph):
        return asdict(noun)
    if isinstance(noun, Edit):
        return _edit_card(noun, tensors, at)
    raise NotSaved(f"{type(noun).__name__} is not a noun that can be saved; Grid, Run, Graph and Edit are.")


def _noun(card: dict[str, Any], tensors: Mapping[str, Tensor], at: str) -> Any:
    made = {"Grid": _grid, "Run": _run, "Graph": _graph, "Edit": _edit}
    return made[card["noun"]](card, tensors, at)


def _grid_card(grid: Grid, tensors: dict[str, Tensor], at: str) -> dict[str, Any]:
    tensors[f"{at}values"] = grid.values
    tensors.update({f"{at}details.{k}": v for k, v in grid.details.items()})
    if grid.each is not None:
        tensors[f"{at}each"] = grid.each
    return {
        "axes": list(grid.axes),
        "labels": {a: [str(w) for w in words] for a, words in grid.labels.items() if a in grid.axes},
        "unit": grid.unit, "title": grid.title, "note": grid.note, "scale": grid.scale,
        "text": grid.text, "details": list(grid.details), "baseline": dict(grid.baseline),
    }  # fmt: skip


def _grid(card: dict[str, Any], tensors: Mapping[str, Tensor], at: str) -> Grid:
    return Grid(
        tensors[f"{at}values"], tuple(card["axes"]), card["labels"], card["unit"], card["title"], card["note"], card["scale"],
        card["text"], {k: tensors[f"{at}details.{k}"] for k in card["details"]}, card["baseline"], tensors.get(f"{at}each"),
    )  # fmt: skip


def _run_card(run: Run, tensors: dict[str, Tensor], at: str) -> dict[str, Any]:
    tensors[f"{at}tokens"] = run.tokens
    if run.output is not None:
        tensors[f"{at}logits"] = run.output
    kept = {}
    for path, k in run.kept.items():
        tensors[f"{at}kept.{path}"] = k.value
        kept[path] = {
            "axes": list(k.axes),
            "index": [[a, v if isinstance(v, int) else written(v)] for a, v in k.index],
            "windows": {a: asdict(w) for a, w in k.windows.items()},
        }
    ids = sorted({int(i) for i in run.tokens.flatten()})
    return {
        "model": run.model, "texts": list(run.texts), "fresh": run.fresh, "answers": run.answers, "kept": kept,
        "words": {str(i): w for i, w in zip(ids, run.reader.words(ids))},
        "windows": {a: asdict(w) for a, w in run.windows.items()},
    }  # fmt: skip


def _run(card: dict[str, Any], tensors: Mapping[str, Tensor], at: str) -> Run:
    kept = {
        path: Kept(tensors[f"{at}kept.{path}"], tuple(k["axes"]), _windows(k["windows"]), _read_index(path, k["index"]))
        for path, k in card["kept"].items()
    }
    answers = None if card["answers"] is None else tuple(card["answers"])
    reader = Remembered({int(i): w for i, w in card["words"].items()})
    return Run(tensors[f"{at}tokens"], _windows(card["windows"]), kept, tensors.get(f"{at}logits"), answers, card["fresh"],
               reader, card["model"])  # fmt: skip


def _windows(said: Mapping[str, dict[str, Any]]) -> dict[str, Window]:
    return {
        a: Window(w["length"], w["start"], *(None if w[k] is None else tuple(w[k]) for k in ("first", "end")))
        for a, w in said.items()
    }


def _read_index(path: str, said: list) -> tuple:
    if not said:
        return ()
    return Site.parse(f"{path}[{', '.join(f'{a}={v}' for a, v in said)}]").index


def _graph(card: dict[str, Any], tensors: Mapping[str, Tensor], at: str) -> Graph:
    nodes, edges = (Node(**n) for n in card["nodes"]), (Edge(**e) for e in card["edges"])
    return Graph(tuple(nodes), tuple(edges), card["unit"], card["title"], card["facts"])


_BUILDERS = {
    "zero": zero, "mean": mean, "patch": patch, "clamp": clamp, "steer": steer, "project": project, "freeze": freeze,
}  # fmt: skip


def _edit_card(edit: Edit, tensors: dict[str, Tensor], at: str) -> dict[str, Any]:
    if edit.kind not in _BUILDERS:
        near = did_you_mean(edit.kind, _BUILDERS)
        raise NotSaved(
            f"an edit of the kind {edit.kind} holds Python objects and cannot be saved; {', '.join(_BUILDERS)} can.{near}"
        )
    params: dict[str, Any] = {}
    for name, value in edit.params.items():
        if isinstance(value, Tensor):
            tensors[f"{at}{name}"] = value
            params[name] = {"tensor": True}
        elif isinstance(value, Run):
            params[name] = {"run": {"noun": "Run", **_card(value, tensors, f"{at}{name}.")}}
        else:
            params[name] = {"value": value}
    return {"site": str(edit.site), "kind": edit.kind, "params": params}


def _edit(card: dict[str, Any], tensors: Mapping[str, Tensor], at: str) -> Edit:
    values = []
    for name, said in card["params"].items():
        if "tensor" in said:
            values.append(tensors[f"{at}{name}"])
        elif "run" in said:
            values.append(_run(said["run"], tensors, f"{at}{name}."))
        else:
            values.append(said["value"])
    return _BUILDERS[card["kind"]](card["site"], *values)
