"""The same questions put to others: plain Hugging Face with hooks, TransformerLens, nnsight.

Each is written as its own documentation would have it, and where a user who knows it well would save work, the saving is in.
Everything that patches answers with the change of the metric, (layer, position) or (layer, head), so the answers can be laid
side by side. `streams` are block outputs, `heads` the heads' outputs before the output projection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import nnsight
import torch
from nnsight import NNsight
from torch import Tensor, nn
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from bench.models import tokenizer, twin

Metric = Callable[[Tensor], Tensor]
"""Logits (batch, pos, vocab) to one number a prompt."""


@cache
def bridge(module: nn.Module) -> TransformerBridge:
    """The model in TransformerLens, on the same weights."""
    words = tokenizer(module.config.vocab_size)
    return TransformerBridge.boot_transformers("bench/model", hf_model=twin(module), tokenizer=words, device="cpu")


@cache
def insight(module: nn.Module) -> NNsight:
    """The model in nnsight, on the same weights."""
    return NNsight(twin(module))


@cache
def eager(module: nn.Module) -> nn.Module:
    """The model with attention that can return its patterns."""
    copy = twin(module)
    copy.set_attn_implementation("eager")
    return copy


def blocks(module: Any) -> Any:
    """The list of blocks, of a Hugging Face model or of nnsight's view of one."""
    return module.transformer.h if hasattr(module, "transformer") else module.model.layers


def projection(block: Any) -> Any:
    """The matrix that reads the heads' outputs."""
    return block.attn.c_proj if hasattr(block, "attn") else block.self_attn.o_proj


# ---- plain Hugging Face, with torch's own hooks ------------------------------------------------------------------


@contextlib.contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Takes hooks out again."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def streams_by_hand(module: nn.Module, ids: Tensor) -> list[Tensor]:
    """Every block's output."""
    kept: list[Tensor] = []
    with hooked(*(b.register_forward_hook(lambda m, a, out: kept.append(out)) for b in blocks(module))):
        module(ids, use_cache=False)
    return kept


def heads_by_hand(module: nn.Module, ids: Tensor) -> list[Tensor]:
    """Every layer's head outputs, (batch, pos, head * d_head)."""
    kept: list[Tensor] = []
    with hooked(*(projection(b).register_forward_pre_hook(lambda m, a: kept.append(a[0])) for b in blocks(module))):
        module(ids, use_cache=False)
    return kept


@torch.no_grad()
def patch_streams_one_by_one(module: nn.Module, clean: Tensor, corrupt: Tensor, metric: Metric) -> Tensor:
    """A forward pass a cell: the naive loop that every faster way must equal."""
    stored = streams_by_hand(module, clean)
    found = torch.zeros(len(stored), clean.shape[1])
    for layer, block in enumerate(blocks(module)):
        for pos in range(clean.shape[1]):

            def put(m, a, out, pos=pos, layer=layer):
                made = out.clone()
                made[:, pos] = stored[layer][:, pos]
                return made

            with hooked(block.register_forward_hook(put)):
                found[layer, pos] = metric(module(corrupt, use_cache=False).logits)[0]
    return found - metric(module(corrupt, use_cache=False).logits)[0]


@torch.no_grad()
def patch_heads_one_by_one(module: nn.Module, clean: Tensor, corrupt: Tensor, metric: Metric) -> Tensor:
    """The naive loop over heads."""
    stored, heads = heads_by_hand(module, clean), module.config.num_attention_heads
    found = torch.zeros(len(stored), heads)
    for layer, block in enumerate(blocks(module)):
        for head in range(heads):

            def put(m, a, head=head, layer=layer):
                made = a[0].clone().unflatten(-1, (heads, -1))
                made[:, :, head] = stored[layer].unflatten(-1, (heads, -1))[:, :, head]
                return (made.flatten(-2), *a[1:])

            with hooked(projection(block).register_forward_pre_hook(put)):
                found[layer, head] = metric(module(corrupt, use_cache=False).logits)[0]
    return found - metric(module(corrupt, use_cache=False).logits)[0]


def attribute_by_hand(module: nn.Module, clean: Tensor, corrupt: Tensor, metric: Metric) -> Tensor:
    """Attribution patching of the streams with two forwards and one backward: the least it can cost."""
    with torch.no_grad():
        wanted = streams_by_hand(module, clean)
    kept: list[Tensor] = []

    def keep(m, a, out):
        kept.append(out if out.requires_grad else out.requires_grad_())
        return out

    with torch.enable_grad(), hooked(*(b.register_forward_hook(keep) for b in blocks(module))):
        slopes = torch.autograd.grad(metric(module(corrupt, use_cache=False).logits).sum(), kept)
    return torch.stack([(g * (w - k.detach())).sum(-1)[0] for g, w, k in zip(slopes, wanted, kept)])


@torch.no_grad()
def steered_by_hand(module: nn.Module, layer: int, vector: Tensor, generate: Callable[[], Tensor]) -> Tensor:
    """A generation with a vector added to a block's output at every token."""
    with hooked(blocks(module)[layer].register_forward_hook(lambda m, a, out: out + vector)):
        return generate()


# ---- TransformerLens ---------------------------------------------------------------------------------------------

STREAMS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
patch_resid_post = partial(patching.generic_activation_patch, patch_setter=patching.layer_pos_patch_setter,
                           activation_name="resid_post", index_axis_names=("layer", "pos"))  # fmt: skip
"""What `get_act_patch_resid_pre` is to block inputs, for block outputs."""


@torch.no_grad()
def lens_sweep(model: TransformerBridge, clean: Tensor, corrupt: Tensor, metric: Metric, hook: str, sweep: Callable) -> Tensor:
    """One of TransformerLens' own sweeps, with the clean run it needs."""
    _, stored = model.run_with_cache(clean, names_filter=lambda name: name.endswith(hook))
    found = sweep(model, corrupt, stored, lambda logits: metric(logits)[0])
    return found - metric(model(corrupt))[0]


def lens_streams(model: TransformerBridge, clean: Tensor, corrupt: Tensor, metric: Metric) -> Tensor:
    return lens_sweep(model, clean, corrupt, metric, "hook_resid_post", patch_resid_post)


def lens_heads(model: TransformerBridge, clean: Tensor, corrupt: Tensor, metric: Metric) -> Tensor:
    return lens_sweep(model, clean, corrupt, metric, "hook_z", patching.get_act_patch_attn_head_out_all_pos)


def lens_attribution(model: TransformerBridge, clean: Tensor, corrupt: Tensor, metric: Metric) -> Tensor:
    """Attribution patching as TransformerLens' demo has it, minus the gradients of weights, which nobody asks for."""
    names = [f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers)]
    with torch.no_grad():
        _, wanted = model.run_with_cache(clean, names_filter=names)
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> None:
        kept[hook.name] = value

    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, keep) for name in names]):
        value = metric(model(corrupt)).sum()
    own = list(kept.values())
    slopes = torch.autograd.grad(value, own)
    return torch.stack([(g * (wanted[n] - k.detach())).sum(-1)[0] for n, g, k in zip(names, slopes, own)])


@torch.no_grad()
def lens_generation(model: TransformerBridge, ids: Tensor, tokens: int, layer: int, vector: Tensor) -> Tensor:
    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", lambda value, hook: value + vector)]):
        return model.generate(ids, max_new_tokens=tokens, do_sample=False, stop_at_eos=False, verbose=False)


# ---- nnsight -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def insight_run(model: NNsight, ids: Tensor) -> Any:
    with model.trace(ids, use_cache=False):
        output = model.output.save()
    return output  # noqa: RET504  a name that is saved survives the trace


@torch.no_grad()
def insight_kept(model: NNsight, ids: Tensor) -> list[Tensor]:
    """All places of the residual stream, in the order in which they go by (GPT-2: `mid` is what the second norm reads)."""
    with model.trace(ids, use_cache=False):
        kept = nnsight.save([place for b in blocks(model) for place in (b.input, b.ln_2.input, b.output)])
    return kept  # noqa: RET504


@torch.no_grad()
def insight_streams(
    model: NNsight, clean: Tensor, corrupt: Tensor, metric: Metric, first: int = 0, lean: bool = False
) -> Tensor:
    """All positions of a layer as rows of one trace. `lean` asks for the last token's logits only."""
    layers, places = blocks(model), list(range(first, clean.shape[1]))
    rows, more = list(range(len(places))), {"logits_to_keep": 1} if lean else {}
    with model.trace(clean, use_cache=False, **more):
        stored = nnsight.save([block.output for block in layers])
    base = metric(insight_run(model, corrupt).logits)[0]
    found = torch.zeros(len(stored), clean.shape[1])
    for layer in range(len(stored)):
        with model.trace(corrupt.repeat(len(places), 1), use_cache=False, **more):
            layers[layer].output[rows, places] = stored[layer][0, places]
            values = metric(model.output.logits).save()
        found[layer, places] = values - base
    return found


@torch.no_grad()
def insight_heads(model: NNsight, clean: Tensor, corrupt: Tensor, metric: Metric, heads: int) -> Tensor:
    """All heads of a layer as rows of one trace."""
    layers, rows = blocks(model), list(range(heads))
    with model.trace(clean, use_cache=False):
        stored = nnsight.save([projection(block).input for block in layers])
    base = metric(insight_run(model, corrupt).logits)[0]
    found = torch.zeros(len(stored), heads)
    for layer in range(len(stored)):
        own = stored[layer][0].unflatten(-1, (heads, -1)).transpose(0, 1)
        with model.trace(corrupt.repeat(heads, 1), use_cache=False):
            projection(layers[layer]).input.unflatten(-1, (heads, -1))[rows, :, rows] = own
            values = metric(model.output.logits).save()
        found[layer] = values - base
    return found


@torch.no_grad()
def insight_generation(model: NNsight, ids: Tensor, tokens: int, layer: int, vector: Tensor) -> Tensor:
    module = model._module
    with model.trace(ids, fn=module.generate, max_new_tokens=tokens, do_sample=False) as tracer:
        for _ in tracer.iter[:tokens]:
            blocks(model)[layer].output = blocks(model)[layer].output + vector
        made = tracer.result.save()
    return made  # noqa: RET504
