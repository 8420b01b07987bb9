"""Opening a model: a hub name, a local folder, `specimen:town`, or a module already in memory. Nothing is converted.

Weights come as safetensors; a folder that has only pickles is refused, since a pickle can run any code while it loads.
Code that a repository brings along is not run unless asked for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from patchclamp.core.errors import NotAModel, UnsafeWeights, did_you_mean
from patchclamp.model.body import Body
from patchclamp.model.model import Model
from patchclamp.model.tokens import Tokenizer

SPECIMENS = Path(__file__).parent.parent / "specimens"


def load(
    source: str | Path | nn.Module,
    tokenizer: Tokenizer = None,
    *,
    blocks: str = "",
    example: dict[str, Any] | None = None,
    dtype: torch.dtype | str = "auto",
    device: str | torch.device | None = None,
    revision: str | None = None,
    remote_code: bool = False,
    **options: Any,
) -> Model:
    """Open a model.

    `source` is a hub name, a folder, `specimen:NAME`, or a module in memory (with its tokenizer, or without one for a
    model that is given ids). Weights keep the checkpoint's dtype. For modules of other people's making `blocks` may name
    the list of blocks ("decoder.layers"), and `example` the arguments of one small forward pass; both are found out where
    possible. `remote_code=True` lets a repository's own Python run. Further options go to `from_pretrained`
    (`attn_implementation`, `device_map`, `quantization_config`, ...).

    >>> pc.load("specimen:town")
    Model(specimen:town)
    """
    if isinstance(source, nn.Module):
        return Model(Body(_evaluating(source), type(source).__name__, lambda: tokenizer, blocks, example))
    place = _located(str(source))
    config = _config(place, remote_code, revision)
    _safe(place)
    if device is not None:
        options["device_map"] = device
    options |= {
        "dtype": dtype,
        "revision": revision or "main",
        "trust_remote_code": remote_code,
        "use_safetensors": True,
    }
    with _quiet(place):
        module = _read(_class(config, place), place, options)
    find = _tokenizer(place, revision, remote_code) if tokenizer is None else lambda: tokenizer
    name = Path(place).name if Path(place).is_dir() and not str(source).startswith("specimen:") else str(source)
    return Model(Body(module, name, find, blocks, example))


def _read(kind: Any, place: str, options: dict[str, Any]) -> nn.Module:
    """The module with its weights; a `NotAModel` where they cannot be read or are those of another model."""
    try:
        return kind.from_pretrained(place, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise NotAModel(f'the weights of "{place}" could not be read: {reason}') from error


def specimens() -> list[str]:
    """The names of the trained models that ship with the package."""
    return sorted(p.parent.name for p in SPECIMENS.glob("*/config.json"))


def _located(source: str) -> str:
    """The folder or hub name behind a source; an error where it is neither."""
    if source.startswith("specimen:"):
        name, _, step = source.removeprefix("specimen:").partition("/")
        folder = SPECIMENS / name / step if step else SPECIMENS / name
        if not (folder / "config.json").is_file():
            raise NotAModel(
                f'there is no specimen "{source}"; there is {", ".join(specimens())}.{did_you_mean(name, specimens())}'
            )
        return str(folder)
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            inside = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
            raise NotAModel(f"{source} is no model folder: it has no config.json. It holds {inside}.")
        return str(path)
    if path.exists():
        raise NotAModel(f"{source} is a file; give the folder that holds config.json and the weights.")
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise NotAModel(f"there is no folder {source}.")
    return source


def _config(place: str, remote_code: bool, revision: str | None):
    from transformers import AutoConfig

    folder = Path(place)
    if folder.is_dir():
        try:
            said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise NotAModel(f"{place}/config.json is not readable JSON ({error}).") from None
        if not isinstance(said, dict) or not ("model_type" in said or "architectures" in said):
            raise NotAModel(f"{place}/config.json names no model_type, so it is no transformers model.")
        if said.get("model_type") == "patchclamp_specimen":
            import patchclamp.model.specimen  # noqa: F401  (makes the type known to transformers)
        if "auto_map" in said and not remote_code and not _known(said.get("model_type")):
            raise NotAModel(
                f"{place} brings Python code of its own; read it, then load with remote_code=True "
                "(--remote-code on the command line)."
            )
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=remote_code, revision=revision or "main")
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise NotAModel(f'"{place}" could not be opened as a model: {reason}') from None


def _known(model_type: str | None) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def _safe(place: str) -> None:
    """A local folder must hold safetensors; on the hub `use_safetensors` sees to it."""
    folder = Path(place)
    if not folder.is_dir() or any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json")):
        return
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl") for p in folder.glob(pattern))
    if pickles:
        raise UnsafeWeights(
            f"{place} holds its weights as {pickles[0]}, a pickle, which can run any code while it loads. If you trust it, "
            "convert it once: load it with transformers in a sandbox and call save_pretrained(folder): that writes safetensors."
        )
    raise NotAModel(f"{place} has a config.json but no weights (*.safetensors).")


def _class(config: Any, place: str) -> Any:
    """The class that the checkpoint says it was saved from, else the one for continuing text, else the bare model."""
    import transformers

    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if found is not None and hasattr(found, "from_pretrained"):
            return found
    for auto in ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM", "AutoModel"):
        kind = getattr(transformers, auto)
        if type(config) in kind._model_mapping or "auto_map" in config.to_dict():
            return kind
    raise NotAModel(f"{place}: transformers has no model for {type(config).__name__}.")


@contextlib.contextmanager
def _quiet(place: str) -> Iterator[None]:
    """No progress bar for what takes no time: weights of less than a gigabyte in a local folder."""
    from transformers.utils import logging

    small = Path(place).is_dir() and sum(p.stat().st_size for p in Path(place).glob("*.safetensors")) < 1 << 30
    hide = small and logging.is_progress_bar_enabled()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


def _tokenizer(place: str, revision: str | None, remote_code: bool) -> Callable[[], Tokenizer]:
    """The tokenizer, read when first needed; None for a folder that has none."""

    def find() -> Tokenizer:
        from transformers import AutoTokenizer

        folder = Path(place)
        if folder.is_dir() and not _has_tokenizer(folder):
            if folder.parent.joinpath("tokenizer.json").is_file() and folder.name.startswith("step-"):
                return AutoTokenizer.from_pretrained(folder.parent)  # checkpoints share their model's tokenizer
            return None
        try:
            return AutoTokenizer.from_pretrained(place, revision=revision or "main", trust_remote_code=remote_code)
        except Exception as error:  # tokenizers fail in every way there is
            reason = str(error).strip().partition("\n")[0]
            raise NotAModel(f'the tokenizer of "{place}" could not be read: {reason}') from error

    return find


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")
    return any((folder / n).is_file() for n in names)


def _evaluating(module: nn.Module) -> nn.Module:
    """A module in training mode drops units at random; it is not ours to switch."""
    noisy = [m for m in module.modules() if m.training and getattr(m, "p", 0) and "Dropout" in type(m).__name__]
    if noisy:
        raise NotAModel(
            f"{type(module).__name__} is in training mode, where dropout makes every pass another; call .eval() first."
        )
    return module
