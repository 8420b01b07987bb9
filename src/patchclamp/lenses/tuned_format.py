"""Tuned lenses on disk: our own folders, and those of the `tuned-lens` package (0.2.0), read and written.

The package keeps `config.json` and `params.pt`, a dictionary with `i.weight` and `i.bias` for the input of block i. The `.pt`
is opened with `weights_only=True`: tensors are read, nothing is run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from patchclamp.core.errors import NotSaved, ShapeMismatch, UnsafeWeights
from patchclamp.core.store import CARD, TENSORS, VERSION
from patchclamp.lenses.tuned import TunedLens
from patchclamp.model.model import Model

CONFIG, PARAMS = "config.json", "params.pt"
KIND = "linear_tuned_lens"


def save(lens: TunedLens, folder: str | Path) -> Path:
    """Write a lens to a folder of our own."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"weight": lens.weight, "bias": lens.bias} | ({} if lens.history is None else {"history": lens.history})
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / TENSORS)
    card = {"noun": "TunedLens", "version": VERSION, "about": dict(lens.about)}
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def load(folder: str | Path) -> TunedLens:
    """Read what `save` wrote."""
    folder = Path(folder)
    if (folder / CONFIG).is_file() and not (folder / CARD).is_file():
        raise NotSaved(f"{folder} looks like a lens of the tuned-lens package; open it with tuned_format.read(folder).")
    card = _json(folder / CARD)
    if card.get("noun") != "TunedLens":
        raise NotSaved(f"{folder} holds a {card.get('noun')}, not a TunedLens.")
    if card.get("version", 0) > VERSION:
        raise NotSaved(f"{folder} was written by a newer Patchclamp (version {card['version']}); update it.")
    tensors = load_file(folder / TENSORS)
    return TunedLens(tensors["weight"], tensors["bias"], card["about"], tensors.get("history"))


def write(lens: TunedLens, folder: str | Path, model: Model) -> Path:
    """Write a lens as the package does, for the model whose unembedding it reads through; returns the folder.

    >>> import tempfile
    >>> from patchclamp.lenses import tuned_format
    >>> lens = pc.TunedLens.untrained(model)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = tuned_format.read(tuned_format.write(lens, folder, model))
    >>> torch.equal(again.weight, lens.weight)
    True
    """
    layers, width = lens.bias.shape
    if (layers, width) != (model.layers, model.width):
        raise ShapeMismatch(f"this lens has {layers} translators of width {width}; {model.name} has {model.layers} blocks of "
                            f"width {model.width}.")  # fmt: skip
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"{i}.{name}": value[i].detach().cpu().clone() for i in range(layers)
             for name, value in (("weight", lens.weight), ("bias", lens.bias))}  # fmt: skip
    torch.save(state, folder / PARAMS)
    config = {
        "base_model_name_or_path": getattr(model.hf.config, "name_or_path", "") or model.name,
        "d_model": width, "num_hidden_layers": layers, "bias": True, "base_model_revision": None,
        "unembed_hash": unembedding_hash(model), "lens_type": KIND,
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return folder


def read(folder: str | Path) -> TunedLens:
    """Read a lens that the package wrote."""
    folder = Path(folder)
    config = _json(folder / CONFIG)
    if config.get("lens_type", KIND) != KIND:
        raise NotSaved(f"{folder} holds a lens of the type {config['lens_type']}; only {KIND} is known.")
    try:
        state = torch.load(folder / PARAMS, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NotSaved(f"{folder} holds no {PARAMS}.") from None
    except (UnpicklingError, RuntimeError) as error:
        raise UnsafeWeights(
            f"{folder / PARAMS} holds more than tensors, and was not opened ({str(error).splitlines()[0]})."
        ) from None
    layers, width = config["num_hidden_layers"], config["d_model"]
    wanted = {f"{i}.weight" for i in range(layers)} | (
        {f"{i}.bias" for i in range(layers)} if config.get("bias", True) else set()
    )
    if set(state) != wanted:
        odd = sorted(set(state) ^ wanted)[0]
        raise NotSaved(f"{folder / PARAMS} does not hold the {layers} translators that {CONFIG} speaks of; see {odd}.")
    weight = torch.stack([state[f"{i}.weight"].float() for i in range(layers)])
    bias = torch.stack([state[f"{i}.bias"].float() if f"{i}.bias" in state else torch.zeros(width) for i in range(layers)])
    if weight.shape != (layers, width, width) or bias.shape != (layers, width):
        raise ShapeMismatch(f"{folder / PARAMS} holds matrices {list(weight.shape[1:])}, where {CONFIG} says {width}.")
    about = {"model": config["base_model_name_or_path"], "revision": config.get("base_model_revision"), "format": "tuned-lens"}
    return TunedLens(weight, bias, about)


def unembedding_hash(model: Model) -> str:
    """What the package calls a model's unembedding by: a hash of the matrix as numpy prints it, to one decimal.

    The package warns where a lens is opened on a model with another.
    """
    matrix = model.hf.get_output_embeddings().weight.detach().cpu().float().numpy()  # type: ignore[operator]
    return hashlib.sha256(np.array_str(matrix, precision=1).encode()).hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotSaved(f"{path.parent} holds no {path.name}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotSaved(f"{path} is not readable JSON ({error}).") from None
