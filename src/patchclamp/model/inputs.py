"""Inputs: what people have (a string, several, ids, a chat, a processor's output) made into what a model takes.

Prompts of unequal length are padded: on the left, with a mask and with positions that count each prompt's own tokens. Not
every model is right that way, so before the first padded batch a small one is tried, on the left with and without
positions and then on the right, against the same tokens alone; the first way that gives the same numbers is taken. What
the tokenizer does about the beginning-of-sequence token is what happens, unless `bos` says otherwise; a run's words show it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from patchclamp.core.errors import Unserved, WrongPrompt, WrongToken
from patchclamp.core.window import Window
from patchclamp.model.tokens import Tokenizer

Prompt = Any
"""A string, a list of strings, ids (a tensor or lists), a chat, a mapping of tensors from a processor, or `Inputs`."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch of prompts, ready for a model."""

    arguments: dict[str, Any]
    tokens: Tensor
    """(batch, pos) ids of the stream that leads to the output; (batch, 0) where it reads no tokens."""
    windows: dict[str, Window]

    @property
    def batch(self) -> int:
        return self.tokens.shape[0]

    @property
    def padded(self) -> bool:
        """Whether the prompts differ in length."""
        return any(w.first is not None or w.end is not None for w in self.windows.values())

    def ids(self, path: str = "", axis: str = "pos", row: int = 0) -> list[int]:
        """The tokens of one prompt, without padding, that an axis of a place counts; none where it reads none."""
        stream = "encoder." if path.startswith("encoder.") or (".cross." in path and axis == "key") else ""
        ids = self.arguments.get("input_ids") if stream else self.tokens
        window = self.windows.get(stream)
        if window is None or not isinstance(ids, Tensor) or not ids.numel():
            return []
        return ids[row, list(window.tokens(row))].tolist()

    def answers(self, tokenizer: Tokenizer) -> tuple[int, ...] | None:
        """For each prompt the column of its masked token, where every prompt has one."""
        mask = getattr(tokenizer, "mask_token_id", None)
        if mask is None or self.tokens.shape[1] == 0 or not bool((self.tokens == mask).any(1).all()):
            return None
        return tuple(int(r) for r in (self.tokens == mask).int().argmax(1))


def tiled(inputs: Inputs, n: int) -> Inputs:
    """The same prompts n times over, one whole batch after the other."""
    arguments = {k: v.repeat(n, *[1] * (v.ndim - 1)) if isinstance(v, Tensor) else v for k, v in inputs.arguments.items()}
    windows = {k: Window(w.length, w.start, w.first and w.first * n, w.end and w.end * n) for k, w in inputs.windows.items()}
    return Inputs(arguments, inputs.tokens.repeat(n, 1), windows)


def prepare(module: nn.Module, tokenizer: Callable[[], Tokenizer], pads: Callable[[], str], prompt: Prompt,
            bos: bool | None = None, decoder: Prompt = None) -> Inputs:  # fmt: skip
    """Read a prompt for a model. `decoder` is what an encoder-decoder has written so far (its start token if not given)."""
    if isinstance(prompt, Mapping):
        return _given(module, dict(prompt))
    if isinstance(prompt, Tensor) and prompt.is_floating_point():
        return _given(module, {getattr(module, "main_input_name", parameters(module)[0]): prompt})
    read = _tensor(module, prompt) if isinstance(prompt, Tensor) else rows(tokenizer(), prompt, bos)
    config = getattr(module, "config", None)
    if getattr(config, "is_encoder_decoder", False) and takes(module, "decoder_input_ids"):
        return _encoder_decoder(module, tokenizer, pads, read, decoder, bos)
    if decoder is not None:
        raise WrongPrompt("this model has no decoder of its own; leave `decoder` out.")
    return Inputs(*_batch(module, tokenizer, read, pads))


def _tensor(module: nn.Module, ids: Tensor) -> Tensor:
    if ids.ndim not in (1, 2):
        raise WrongPrompt(f"token ids are (pos) or (batch, pos); got a tensor {list(ids.shape)}.")
    return (ids[None] if ids.ndim == 1 else ids).to(device_of(module))


def rows(tokenizer: Tokenizer, prompt: Prompt, bos: bool | None = None) -> list[list[int]]:
    """The token ids of every prompt."""
    if isinstance(prompt, str):
        return [_tokenised(tokenizer, prompt, bos)]
    if isinstance(prompt, Sequence) and (not len(prompt) or (isinstance(prompt[0], Sequence) and not len(prompt[0]))):
        raise WrongPrompt("the prompt is empty: it has no tokens.")
    if not isinstance(prompt, Sequence):
        raise WrongPrompt(
            f"a prompt is text, token ids, a chat or a processor's output; got {type(prompt).__name__} {prompt!r}."
        )
    if isinstance(prompt[0], int):
        return [[int(t) for t in prompt]]
    if isinstance(prompt[0], Mapping):
        return [_chat(tokenizer, prompt)]
    return [r for p in prompt for r in rows(tokenizer, p, bos)]


def find_logits(output: Any) -> Tensor | None:
    """The logits of a module's output, or None where it has none."""
    if isinstance(output, Tensor):
        return output if output.ndim == 3 else None
    if isinstance(output, dict):
        found = output.get("logits")
        return found if isinstance(found, Tensor) else None
    return next((o for o in output if isinstance(o, Tensor) and o.ndim == 3), None) if isinstance(output, tuple) else None


def logits_of(output: Any) -> Tensor:
    """The logits of a module's output; an error where it has none."""
    found = find_logits(output)
    if found is None:
        raise Unserved("this model returns no logits, so nothing can be asked of its answer; load it with its head.")
    return found


def takes(module: nn.Module, name: str) -> bool:
    """Whether a model's forward has an argument of that name."""
    return name in parameters(module)


def parameters(module: nn.Module) -> tuple[str, ...]:
    """The names of a forward's arguments."""
    return _signature(type(module))


def required(module: nn.Module) -> tuple[str, ...]:
    """The names of those arguments of a forward that must be given."""
    told = tuple(inspect.signature(type(module).forward).parameters.values())[1:]
    return tuple(p.name for p in told if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))


@lru_cache(maxsize=256)
def _signature(kind: type[nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def _tokenised(tokenizer: Tokenizer, text: str, bos: bool | None) -> list[int]:
    if tokenizer is None:
        raise WrongPrompt("this model has no tokenizer; give token ids, or load it with pc.load(module, tokenizer).")
    ids = list(tokenizer(text)["input_ids"])
    lead = tokenizer.bos_token_id
    if bos is None or lead is None:
        return ids
    has = bool(ids) and ids[0] == lead
    return [lead, *ids] if bos and not has else ids[1:] if has and not bos else ids


def _chat(tokenizer: Tokenizer, chat: Sequence[Mapping]) -> list[int]:
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise WrongPrompt("this is a chat, but the model's tokenizer has no chat template; write the prompt as text.")
    made = tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(made["input_ids"])


def _check(module: nn.Module, tokens: Tensor) -> None:
    if not tokens.shape[1]:
        raise WrongPrompt("the prompt is empty: it has no tokens.")
    config = _text_config(module)
    size = getattr(config, "vocab_size", None)
    low, high = (int(t) for t in tokens.aminmax())
    if size and (high >= size or low < 0):
        raise WrongToken(f"there is no token {high if high >= size else low} in a vocabulary of {size}.")
    limit = longest(config)
    if limit and tokens.shape[1] > limit:
        raise WrongPrompt(f"the prompt has {tokens.shape[1]} tokens; this model has positions for {limit}.")


def longest(config: Any) -> int | None:
    """How many positions a model has a learned vector for; None where positions are computed."""
    if config is None or getattr(config, "rope_parameters", None):
        return None
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _text_config(module: nn.Module):
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "get_text_config"):
        return config
    # Most models are their own text model, and asking takes longer than everything else before a run.
    parts = config.__dict__.keys() & {"decoder", "generator", "text_config"}
    return config.get_text_config(decoder=True) if parts or config.is_encoder_decoder else config


WAYS = ("left and positions", "left", "right")
"""The ways of padding, in the order in which they are tried."""


def padding(module: nn.Module, tokenizer: Callable[[], Tokenizer]) -> str:
    """The first way of padding under which three tokens alone and beside a longer prompt give the same numbers."""
    long = (
        list(range(5))
        if (size := getattr(_text_config(module), "vocab_size", 0) or 5) < 12
        else [size // 2 + i for i in range(5)]
    )
    short = long[:3]
    for way in WAYS:
        try:
            with torch.no_grad():
                alone = _numbers(module, *_batch(module, tokenizer, [short], partial(str, way)))
                beside = _numbers(module, *_batch(module, tokenizer, [short, long], partial(str, way)))
        except Exception:
            continue
        ours = beside[0, -3:] if way != "right" else beside[0, :3]
        if torch.allclose(ours, alone[0], rtol=1e-3, atol=1e-4 * float(alone.abs().max())):
            return way
    return ""


def _numbers(module: nn.Module, arguments: dict[str, Tensor], tokens: Tensor, windows: dict[str, Window]) -> Tensor:
    more: dict[str, Any] = {"use_cache": False} if takes(module, "use_cache") else {}
    config = getattr(module, "config", None)
    if getattr(config, "is_encoder_decoder", False) and takes(module, "decoder_input_ids"):
        more["decoder_input_ids"] = torch.ones_like(tokens[:, :1])
    output = module(**arguments, **more)
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else [output]
    found = [v for v in values if isinstance(v, Tensor) and v.ndim == 3 and v.shape[:2] == tokens.shape]
    return found[0]


def _batch(module: nn.Module, tokenizer: Callable[[], Tokenizer], ids: Tensor | list[list[int]], pads: Callable[[], str]):
    """(arguments, tokens, windows): ids as one tensor; where lengths differ, padded in the way that suits the model."""
    first = "input_ids" if takes(module, "input_ids") else parameters(module)[0]
    lengths = [len(r) for r in ids] if isinstance(ids, list) else [ids.shape[1]]
    if not min(lengths):
        raise WrongPrompt("the prompt is empty: it has no tokens.")
    if len(set(lengths)) == 1:
        tokens = torch.tensor(ids, device=device_of(module)) if isinstance(ids, list) else ids
        _check(module, tokens)
        return {first: tokens}, tokens, {"": Window(lengths[0])}
    assert isinstance(ids, list)
    way = pads()
    if not way:
        raise WrongPrompt("padding changes what this model computes, so prompts of unequal length must be run one by one.")
    n, pad, device, left = max(lengths), _pad(module, tokenizer()), device_of(module), way != "right"
    gaps = [n - length for length in lengths]
    tokens = torch.tensor([[pad] * g + r if left else r + [pad] * g for r, g in zip(ids, gaps)], device=device)
    _check(module, tokens)
    mask = torch.tensor([[0] * g + [1] * len(r) if left else [1] * len(r) + [0] * g for r, g in zip(ids, gaps)], device=device)
    arguments = {first: tokens} | ({"attention_mask": mask} if takes(module, "attention_mask") else {})
    if way == "left and positions" and takes(module, "position_ids"):
        arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return arguments, tokens, {"": Window(n, 0, tuple(gaps) if left else None, None if left else tuple(lengths))}


def _encoder_decoder(module: nn.Module, tokenizer: Callable[[], Tokenizer], pads: Callable[[], str],
                     ids: Tensor | list[list[int]], decoder: Prompt, bos: bool | None) -> Inputs:  # fmt: skip
    config: Any = module.config
    arguments, tokens, windows = _batch(module, tokenizer, ids, pads)
    said = (config, getattr(module, "generation_config", None))
    start = next((i for c in said if (i := getattr(c, "decoder_start_token_id", None)) is not None), None)
    if decoder is None:
        if start is None:
            raise WrongPrompt("this encoder-decoder names no start token; say what its decoder reads with decoder=...")
        written = [[start]]
    elif isinstance(decoder, Tensor):
        written = _tensor(module, decoder).tolist()
    else:
        written = [r if start is None or r[:1] == [start] else [start, *r] for r in rows(tokenizer(), decoder, bos)]
    written = written * tokens.shape[0] if len(written) == 1 else written
    if len({len(r) for r in written}) > 1 or len(written) != tokens.shape[0]:
        raise WrongPrompt("the decoder's prompts must be as many as the encoder's, and of equal length.")
    arguments["decoder_input_ids"] = torch.tensor(written, device=device_of(module))
    _check(module, arguments["decoder_input_ids"])
    decoded = arguments["decoder_input_ids"]
    return Inputs(arguments, decoded, {"": Window(decoded.shape[1]), "encoder.": windows[""]})


def _given(module: nn.Module, arguments: dict[str, Any]) -> Inputs:
    """A processor's output goes in as it is."""
    device = device_of(module)
    arguments = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in arguments.items()}
    tensors = [v for v in arguments.values() if isinstance(v, Tensor)]
    if not tensors:
        raise WrongPrompt(f"a mapping of tensors was expected; {sorted(arguments)} holds none.")
    ids = arguments.get("decoder_input_ids", arguments.get("input_ids"))
    if ids is None:
        return Inputs(arguments, torch.empty(tensors[0].shape[0], 0, dtype=torch.long), {})
    mask = arguments.get("attention_mask") if "decoder_input_ids" not in arguments else None
    return Inputs(arguments, ids, {"": _window(ids, mask)})


def _window(ids: Tensor, mask: Tensor | None) -> Window:
    if mask is None or mask.ndim != 2 or bool(mask.all()):
        return Window(ids.shape[1])
    first = tuple(int(r.nonzero()[0]) for r in mask)
    end = tuple(int(r.nonzero()[-1]) + 1 for r in mask)
    n = ids.shape[1]
    return Window(n, 0, first if any(first) else None, end if any(e < n for e in end) else None)


def _pad(module: nn.Module, tokenizer: Tokenizer) -> int:
    config = _text_config(module)
    for source in (tokenizer, config):
        for name in ("pad_token_id", "eos_token_id"):
            value = getattr(source, name, None)
            if isinstance(value, int):
                return value
    return 0


def device_of(module: nn.Module) -> torch.device:
    """Where a model's first parameter is."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
