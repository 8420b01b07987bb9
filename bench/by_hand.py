"""The activations of plain Hugging Face models, read by hand: the judge when two libraries differ.

Six families, each with a table, written by reading its modelling file, of the module in or out of which every place of the
residual stream, attention and MLP goes by. Everything is read with torch's own hooks from the eager model; queries, keys,
values, scores and patterns at the model file's own `eager_attention_forward`. Nothing here knows Patchclamp or a peer.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from bench.models import twin

Values = dict[str, Tensor]
"""By place: `blocks.0.mlp.out`, and `transformer.h.0.mlp.out` for what a module reads (`.in`) or returns (`.out`)."""


@dataclass(frozen=True)
class Family:
    """A small model of one architecture, and where its places are."""

    name: str
    config: PreTrainedConfig
    block: str
    """The path of a block, with {} for its number."""
    inside: dict[str, str]
    """Place within a block: the module within it, in or out."""
    outside: dict[str, str]
    """Place outside the blocks: the module."""
    attention: str = "self_attn"
    """The module within a block whose second output is the pattern, where attention is eager."""

    def model(self) -> nn.Module:
        """Random weights from a fixed seed, with no norm left an identity and no bias zero."""
        masked = isinstance(self.config, BertConfig)
        torch.manual_seed(0)
        module = (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_config(self.config).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn(p.shape, generator=generator) * 0.1)
        return module

    @property
    def layers(self) -> int:
        return self.config.num_hidden_layers

    def places(self) -> dict[str, str]:
        """Every place that is a module's input or output, and which."""
        blocks = {
            f"blocks.{i}.{name}": f"{self.block.format(i)}{'.' if not place.startswith('.') else ''}{place}"
            for i in range(self.layers)
            for name, place in self.inside.items()
        }
        return {**self.outside, **blocks}


def small(**more: Any) -> dict[str, Any]:
    """The sizes all six share: 2 layers, width 64, 4 heads of 16."""
    return {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 99,
            "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **more}  # fmt: skip


PRE_NORM = {
    "in": ".in",
    "attn.in": "input_layernorm.out",
    "attn.z": "self_attn.o_proj.in",
    "attn.out": "self_attn.out",
    "mid": "post_attention_layernorm.in",
    "mlp.in": "post_attention_layernorm.out",
    "mlp.gate": "mlp.gate_proj.out",
    "mlp.pre": "mlp.up_proj.out",
    "mlp.act": "mlp.down_proj.in",
    "mlp.out": "mlp.out",
    "out": ".out",
}
"""Llama's block, and those of its descendants."""
LLAMA = {"embed.out": "model.embed_tokens.out", "norm.out": "model.norm.out"}

FAMILIES = (
    Family(
        "gpt2",
        GPT2Config(n_embd=64, n_layer=2, n_head=4, n_inner=96, vocab_size=99, n_positions=64, bos_token_id=1, eos_token_id=2),
        "transformer.h.{}",
        {
            "in": ".in",
            "attn.in": "ln_1.out",
            "attn.z": "attn.c_proj.in",
            "attn.out": "attn.out",
            "mid": "ln_2.in",
            "mlp.in": "ln_2.out",
            "mlp.pre": "mlp.c_fc.out",
            "mlp.act": "mlp.c_proj.in",
            "mlp.out": "mlp.out",
            "out": ".out",
        },
        {"embed.out": "transformer.wte.out", "norm.out": "transformer.ln_f.out"},
        "attn",
    ),
    Family("llama", LlamaConfig(**small(num_key_value_heads=2)), "model.layers.{}", PRE_NORM, LLAMA),
    Family(
        "gpt_neox",
        GPTNeoXConfig(**small()),
        "gpt_neox.layers.{}",
        {
            "in": ".in",
            "attn.in": "input_layernorm.out",
            "attn.z": "attention.dense.in",
            "attn.out": "attention.out",
            "mlp.in": "post_attention_layernorm.out",
            "mlp.pre": "mlp.dense_h_to_4h.out",
            "mlp.act": "mlp.dense_4h_to_h.in",
            "mlp.out": "mlp.out",
            "out": ".out",
        },
        {"embed.out": "gpt_neox.embed_in.out", "norm.out": "gpt_neox.final_layer_norm.out"},
        "attention",
    ),
    Family(
        "gemma2",  # soft-caps low enough, and a window short enough, to make a difference
        Gemma2Config(
            **small(
                num_key_value_heads=2,
                head_dim=16,
                query_pre_attn_scalar=16,
                sliding_window=4,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=2.0,
            )
        ),
        "model.layers.{}",
        {
            **PRE_NORM,
            "attn.out": "post_attention_layernorm.out",
            "mid": "pre_feedforward_layernorm.in",
            "mlp.in": "pre_feedforward_layernorm.out",
            "mlp.out": "post_feedforward_layernorm.out",
        },
        LLAMA,
    ),
    Family("qwen3", Qwen3Config(**small(num_key_value_heads=2, head_dim=16)), "model.layers.{}", PRE_NORM, LLAMA),
    Family(
        "bert",
        BertConfig(**small()),
        "bert.encoder.layer.{}",
        {
            "in": ".in",
            "attn.in": "attention.self.in",
            "attn.z": "attention.output.dense.in",
            "attn.out": "attention.output.dense.out",
            "mid": "attention.output.LayerNorm.out",
            "mlp.in": "intermediate.dense.in",
            "mlp.pre": "intermediate.dense.out",
            "mlp.act": "output.dense.in",
            "mlp.out": "output.dense.out",
            "out": ".out",
        },
        {"embed.out": "bert.embeddings.word_embeddings.out"},
        "attention.self",
    ),
)


def read(family: Family, module: nn.Module, ids: Tensor) -> Values:
    """Everything the eager model lets by, in one pass; canonical places are further names of the same tensors."""
    copy = twin(module)
    copy.set_attn_implementation("eager")
    found: Values = {}
    with torch.no_grad(), _modules(copy, found), _attention(copy, found):
        output = copy(ids, output_attentions=True, output_hidden_states=True, **cacheless(copy))
    found["logits"] = output.logits
    for place, name in family.places().items():
        found[place] = found[name]
    for i, attention in enumerate(output.attentions):
        torch.testing.assert_close(found[f"blocks.{i}.attn.pattern"], attention, rtol=0, atol=0)
        torch.testing.assert_close(found[f"blocks.{i}.attn.scores"].softmax(-1), attention)
        torch.testing.assert_close(found[f"blocks.{i}.in"], output.hidden_states[i], rtol=0, atol=0)
    return found


def cacheless(module: nn.Module) -> dict[str, bool]:
    """The argument that keeps a decoder from filling a cache; an encoder takes none."""
    return {} if isinstance(module.config, BertConfig) else {"use_cache": False}


def halved(family: Family, module: nn.Module, ids: Tensor, site: str, truth: Values) -> Tensor | None:
    """The logits where the value at a place is halved; None for places that no hook of torch reaches."""
    copy, place = twin(module), family.places().get(site, "")
    copy.set_attn_implementation("eager")
    block, _, name = site.rpartition(".")
    change: Callable[[Tensor], Tensor] = lambda value: value / 2  # noqa: E731
    if name == "mid" and family.inside["out"] == ".out" and place.endswith(".in"):
        # The stream forks where the norm reads it, so it is halved by what attention adds: in + (mid / 2 - in).
        place, change = family.places()[f"{block}.attn.out"], lambda value: truth[site] / 2 - truth[f"{block}.in"]
    with torch.no_grad(), contextlib.ExitStack() as stack:
        if site.endswith("attn.pattern"):
            stack.enter_context(_attention(copy, {}, int(site.split(".")[1])))
        elif place:
            stack.callback(_hooked(copy, place, change).remove)
        else:
            return None
        return copy(ids, **cacheless(copy)).logits


def slopes(family: Family, module: nn.Module, ids: Tensor, sites: list[str], metric: Callable[[Tensor], Tensor]) -> Values:
    """The gradient of a metric, summed over prompts, at places of the residual stream."""
    found: Values = {}
    with torch.enable_grad(), _modules(module, found):
        total = metric(module(ids, **cacheless(module)).logits).sum()
    values = [found[family.places()[site]] for site in sites]
    return dict(zip(sites, torch.autograd.grad(total, values)))


def _hooked(module: nn.Module, place: str, change: Callable[[Tensor], Tensor]) -> Any:
    """A hook that changes the first tensor into or out of a module."""
    path, _, side = place.rpartition(".")

    def before(part: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after(part: nn.Module, args: tuple, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    part = module.get_submodule(path)
    return part.register_forward_pre_hook(before, with_kwargs=True) if side == "in" else part.register_forward_hook(after)


@contextlib.contextmanager
def _modules(module: nn.Module, found: Values) -> Iterator[None]:
    """The first tensor into and out of every module."""
    handles = []
    for name, part in module.named_modules():
        if name:
            handles.append(part.register_forward_pre_hook(_reading(found, f"{name}.in"), with_kwargs=True))
            handles.append(part.register_forward_hook(_returning(found, f"{name}.out")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reading(found: Values, name: str) -> Callable[..., None]:
    def note(part: nn.Module, args: tuple, kwargs: dict) -> None:
        found.setdefault(name, next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), torch.empty(0)))

    return note


def _returning(found: Values, name: str) -> Callable[..., None]:
    def note(part: nn.Module, args: tuple, output: Any) -> None:
        values = output if isinstance(output, tuple) else output.values() if isinstance(output, dict) else (output,)
        found.setdefault(name, next((v for v in values if isinstance(v, Tensor)), torch.empty(0)))

    return note


@contextlib.contextmanager
def _attention(module: nn.Module, found: Values, halve: int = -1) -> Iterator[None]:
    """What the model file's eager attention is given, the scores it must have made of that, and the pattern it returns; in one
    layer the pattern may be halved, which is to halve what it takes from the values."""
    source: Any = sys.modules[type(module).__module__]
    own, layer = source.eager_attention_forward, iter(range(99))

    def listening(part, query, key, value, mask, scaling=None, softcap=None, **kwargs):
        i = next(layer)
        output, pattern = own(part, query, key, value, mask, scaling=scaling, **kwargs,
                              **({} if softcap is None else {"softcap": softcap}))  # fmt: skip
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(-1, -2) * scale
        scores = scores if softcap is None else (scores / softcap).tanh() * softcap
        scores = scores if mask is None else scores + mask
        given = {"q": query.transpose(1, 2), "k": key.transpose(1, 2), "v": value.transpose(1, 2)}
        for name, tensor in (given | {"scores": scores, "pattern": pattern}).items():
            found[f"blocks.{i}.attn.{name}"] = tensor
        return (output / 2 if i == halve else output), pattern

    source.eager_attention_forward = listening
    try:
        yield
    finally:
        source.eager_attention_forward = own
