"""Checkpoints of a training: an interrupted run goes on as if nothing had happened.

A checkpoint holds the weights, the optimizer's moments, the step and what the run is (its recipe as plain data). One of another
recipe is refused, not overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from patchclamp.core.errors import NotAModel

CHECKPOINT = "checkpoint.safetensors"


def keep(folder: Path, recipe: Mapping[str, Any], model: nn.Module, optimizer: Optimizer, step: int) -> None:
    """Written under another name first: a run killed while writing still has the checkpoint before."""
    folder.mkdir(parents=True, exist_ok=True)
    moments = {f"{name}/{i}": value for i, own in optimizer.state_dict()["state"].items() for name, value in own.items()}
    about = {"recipe": json.dumps(dict(recipe)), "step": str(step)}
    save_file({**model.state_dict(), **moments}, folder / (CHECKPOINT + ".new"), metadata=about)
    (folder / (CHECKPOINT + ".new")).replace(folder / CHECKPOINT)


def resume(folder: Path, recipe: Mapping[str, Any], model: nn.Module, optimizer: Optimizer) -> int:
    """The step reached by an earlier run of the same recipe, whose state is now the model's; 0 where there is none."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        about = file.metadata()
    if json.loads(about["recipe"]) != dict(recipe):
        raise NotAModel(f"{path} is of another recipe, {about['recipe']}; remove it or choose another folder.")
    state = load_file(path)
    model.load_state_dict({name: state.pop(name) for name in model.state_dict()})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, i = key.rpartition("/")
        moments.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(about["step"])


def forget(folder: Path) -> None:
    """Take the checkpoint away: the run is done."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
