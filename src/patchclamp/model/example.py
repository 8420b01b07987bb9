"""The smallest input a model can be watched on: a few ordinary tokens, a blank image, a moment of sound."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from patchclamp.model.inputs import device_of, parameters, required, takes

BATCH, TOKENS = 2, 5


def example(module: nn.Module) -> dict[str, Any]:
    """Arguments for one small forward pass over two rows, read off the config."""
    config: Any = getattr(module, "config", None)
    made: dict[str, Any] = {}
    main = _main(module)
    sounds = [name for name in ("input_values", "input_features") if takes(module, name)]
    if main == "input_features":
        made[main] = _noise(module, _features(config))
    elif main.startswith("pixel_values"):
        made |= _picture(module, main, config)
    elif main == "input_values" or (main == "inputs" and len(sounds) == 2):
        made["input_values"] = _noise(module, (BATCH, 4000))
    else:
        made[main] = _ids(module, TOKENS)
    for more in ("pixel_values", "input_ids"):  # CLIP and its kin read both
        both = type(module).__name__.endswith("Model") and hasattr(config, "vision_config") and takes(module, more)
        if more not in made and (both or more in required(module)):
            made |= _picture(module, more, config) if more == "pixel_values" else {more: _ids(module, TOKENS)}
    if getattr(config, "is_encoder_decoder", False) and takes(module, "decoder_input_ids"):
        made["decoder_input_ids"] = _ids(module, TOKENS - 1)
    if takes(module, "use_cache"):
        made["use_cache"] = False
    return made


def _main(module: nn.Module) -> str:
    """The argument that carries what a model reads."""
    said = getattr(module, "main_input_name", "input_ids")
    names = (said, "input_ids", "pixel_values", "pixel_values_videos", "input_features", "input_values")
    return next((n for n in names if takes(module, n)), said if said == "inputs" else parameters(module)[0])


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


def _picture(module: nn.Module, name: str, config: Any) -> dict[str, torch.Tensor]:
    """Pictures, moving ones where the config counts frames, or cut into patches where the model wants them so."""
    config = config if hasattr(config, "patch_size") or not hasattr(config, "vision_config") else config.vision_config
    channels, size = getattr(config, "num_channels", 3), getattr(config, "image_size", 64)
    if takes(module, "spatial_shapes"):  # SigLIP 2: any number of patches, and how they lay in the picture
        count, patch = config.num_patches, config.patch_size
        side, device = math.isqrt(count), device_of(module)
        return {
            name: _noise(module, (BATCH, count, channels * patch * patch)),
            "pixel_attention_mask": (torch.arange(count, device=device) < side * side).long().expand(BATCH, -1),
            "spatial_shapes": torch.full((BATCH, 2), side, device=device),
        }
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    frames = (config.num_frames,) if isinstance(getattr(config, "num_frames", None), int) else ()
    return {name: _noise(module, (BATCH, *frames, channels, height, width))}


def _features(config: Any) -> tuple[int, ...]:
    """A spectrogram: bands before time where it is Whisper's, else time before bands."""
    parts = [config, *(getattr(config, name, None) for name in ("encoder_config", "audio_config"))]
    bands = next(
        (n for p in parts for name in ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim")
         if (n := getattr(p, name, None))),
        80,
    )  # fmt: skip
    places = getattr(config, "max_source_positions", None)
    return (BATCH, bands, 2 * places) if places and hasattr(config, "num_mel_bins") else (BATCH, 64, bands)


def _noise(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device_of(module), dtype)
