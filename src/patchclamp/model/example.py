"""The smallest input a model can be watched on: a few ordinary tokens, a blank image, a moment of sound."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from patchclamp.model.inputs import device_of, parameters, takes

BATCH, TOKENS = 2, 5


def example(module: nn.Module) -> dict[str, Any]:
    """Arguments for one small forward pass over two rows, read off the config."""
    config: Any = getattr(module, "config", None)
    made: dict[str, Any] = {}
    main = getattr(module, "main_input_name", "input_ids" if takes(module, "input_ids") else parameters(module)[0])
    if main == "input_features":
        made[main] = _noise(module, _features(config))
    elif main == "pixel_values":
        made[main] = _noise(module, _pixels(config))
    elif main == "input_values":
        made[main] = _noise(module, (BATCH, 4000))
    else:
        made[main] = _ids(module, TOKENS)
        if takes(module, "pixel_values") and type(module).__name__.endswith("Model") and hasattr(config, "vision_config"):
            made["pixel_values"] = _noise(module, _pixels(config.vision_config))  # CLIP and its kin read both
    if getattr(config, "is_encoder_decoder", False) and takes(module, "decoder_input_ids"):
        made["decoder_input_ids"] = _ids(module, TOKENS - 1)
    if takes(module, "use_cache"):
        made["use_cache"] = False
    return made


def _ids(module: nn.Module, count: int) -> torch.Tensor:
    """Distinct ordinary tokens from the middle of the vocabulary, clear of the special ones at its ends."""
    config: Any = getattr(module, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    size = getattr(text, "vocab_size", None) or _embedding_rows(module)
    special = (
        {v for name, v in vars(text).items() if name.endswith(("token_id", "token_index")) and isinstance(v, int)}
        if text
        else set()
    )
    ordinary = [i for i in [*range(size // 2, size), *range(size // 2)] if i not in special] or list(range(size))
    ids = [ordinary[i % len(ordinary)] for i in range(BATCH * count)]
    return torch.tensor(ids, device=device_of(module)).view(BATCH, count)


def _embedding_rows(module: nn.Module) -> int:
    rows = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    return rows[0] if rows else 8


def _pixels(config: Any) -> tuple[int, ...]:
    config = config if hasattr(config, "image_size") else config.vision_config
    size = config.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return BATCH, getattr(config, "num_channels", 3), height, width


def _features(config: Any) -> tuple[int, ...]:
    return BATCH, config.num_mel_bins, 2 * getattr(config, "max_source_positions", 50)


def _noise(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device_of(module), dtype)
