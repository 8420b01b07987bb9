"""What TransformerLens' hook names mean in Patchclamp, family by family.

`Site.from_transformer_lens` knows the names that people use most, and knows no model. Where a name means one place in one
family and another place in the next, the meaning is here: a site, and what is to be taken of it. Hooks at the edge of a
component mean what the module behind it reads or returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.by_hand import Family

ROTARY, GATED = ("llama", "gpt_neox", "gemma2", "qwen3"), ("llama", "gemma2", "qwen3")


@dataclass(frozen=True)
class Meaning:
    """A site, and the part of its value that a name stands for."""

    site: str
    take: Callable[[Tensor], Tensor] = lambda value: value


def meaning(name: str, family: Family, module: nn.Module, adapter: Any) -> Meaning | str:
    """What a hook name means; a string says why it means no activation of the model."""
    block = re.match(r"blocks\.\d+\.", name)
    prefix, key = (block[0], name[block.end() :]) if block else ("", name)
    for families, pattern, site in SAME:
        if family.name in families and re.fullmatch(pattern, key):
            site = re.sub(pattern, site, key)
            return Meaning(site[1:] if site.startswith("/") else prefix + site)
    if key.endswith("hook_sin"):
        return "the second tensor of a module's output; a raw site is the first"
    if family.name == "gpt_neox" and (part := re.fullmatch(r"attn\.(?:hook_)?([qk])(?:\.hook_out)?", key)):
        joint = Meaning(f"@{family.block.format(prefix.split('.')[1])}.attention.query_key_value.out")
        heads, which = family.config.num_attention_heads, "qk".index(part[1])
        return Meaning(joint.site, lambda value: value.unflatten(-1, (heads, 3, -1))[..., which, :])
    return _component(prefix + ALIASES.get(key, key), module, adapter)


FAMILY_NAMES = ("gpt2", *ROTARY, "bert")
SAME: tuple[tuple[tuple[str, ...], str, str], ...] = (
    # families, hook name within its block, site within the block (or, after a slash, anywhere)
    (("gpt2", "bert"), r"attn\.hook_([qk])", r"attn.\1"),
    (("gpt2",), r"attn\.([qkv])\.hook_out", r"attn.\1"),
    (("gpt2", "gpt_neox"), r"attn\.([qkv])\.hook_in", "attn.in"),
    (("gpt_neox",), r"attn\.v\.hook_out", "attn.v"),
    (ROTARY, r"attn\.hook_rot_([qk])", r"attn.\1"),
    (GATED, r"mlp\.hook_pre", "mlp.gate"),
    (GATED, r"mlp\.hook_pre_linear", "mlp.pre"),
    (FAMILY_NAMES, r"attn\.hook_hidden_states", "attn.out"),
    (("bert",), "hook_embed", "/blocks.0.in"),
    (("bert",), "hook_attn_out", "mid"),
    (("bert",), r"attn\.hook_attn_scores", "attn.pattern"),
    (("bert",), r"hook_mlp_in|mlp\.hook_in", "mlp.in"),
    (("bert",), r"mlp\.hook_out", "mlp.out"),
)
ALIASES = {
    "hook_pos_embed": "pos_embed.hook_out",
    "hook_unembed": "unembed.hook_out",
    "hook_resid_mid": "ln2.hook_in",
    "attn.hook_q": "attn.q.hook_out",
    "attn.hook_k": "attn.k.hook_out",
    "attn.hook_q_normed": "attn.q_norm.hook_out",
    "attn.hook_k_normed": "attn.k_norm.hook_out",
    "attn.hook_cos": "rotary_emb.hook_cos",
}


def _component(name: str, module: nn.Module, adapter: Any) -> Meaning | str:
    """A hook at a component: what the module behind it reads or returns, or what a norm makes on the way."""
    path, _, hook = name.rpartition(".")
    path = "rotary_emb" if path.endswith("rotary_emb") else path
    try:
        part = adapter.get_component(module, path)
    except (AttributeError, ValueError) as error:
        return f"no module stands behind it ({error})"
    raw = next(name for name, other in module.named_modules() if other is part)
    if hook in ("hook_scale", "hook_normalized"):
        return Meaning(f"@{raw}.in", _standardised(part)[hook])
    side = {"hook_in": "in", "hook_out": "out", "hook_cos": "out"}.get(hook)
    return Meaning(f"@{raw}.{side}") if side else "no site, and no table here, has it"


def _standardised(norm: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """What a norm divides by, and what it has before its weight and bias."""
    epsilon = getattr(norm, "eps", None) or norm.variance_epsilon

    def centred(value: Tensor) -> Tensor:
        return value - value.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else value

    def scale(value: Tensor) -> Tensor:
        return torch.sqrt(centred(value).pow(2).mean(-1, keepdim=True) + epsilon)

    return {"hook_scale": scale, "hook_normalized": lambda value: centred(value) / scale(value)}


BOTH, OURS = "both; the converter is not", "Patchclamp"
REASONS: tuple[tuple[str, tuple[str, ...], str, str, str], ...] = (
    # what was done, families, hook name within its block, who is right, why the two differ
    ("read", FAMILY_NAMES, r"(ln1|ln2|ln_final)\.hook_normalized", BOTH,
     "TransformerLens 4 computes it beside the model: before the norm's weight and bias. The norm's `hook_out` is what the "
     "site means. (In TransformerLens 1 to 3 the name meant what attention reads.)"),
    ("read", ROTARY, r"attn\.hook_[qk]", BOTH,
     "before the rotation and QK-norm; `attn.q` and `attn.k` are what the scores are made of: hook_rot_q and hook_rot_k"),
    ("read", GATED, r"mlp\.hook_pre", BOTH,
     "in a gated MLP it is what goes into the activation function: `mlp.gate`; hook_pre_linear is `mlp.pre`"),
    ("read", ("gemma2",), r"unembed\.hook_out", OURS,
     "it is what the matrix returns, before the model's soft-cap; `logits` are the model's"),
    ("read", ("bert",), "hook_embed", BOTH,
     "the sum of three embeddings after its norm: `blocks.0.in`; `embed.out` is what the word embedding returns"),
    ("read", ("bert",), "hook_attn_out", OURS,
     "it is the stream with attention added, normed: `mid`. What attention adds is attn.o.hook_out: `attn.out`"),
    ("read", ("bert",), "hook_resid_mid", OURS,
     "it is what the second norm reads, with the MLP's output already added; the stream between the two is ln1.hook_out"),
    ("read", ("bert",), r"attn\.hook_attn_scores", OURS,
     "it holds the pattern: its rows are positive and sum to 1, which scores do not"),
    ("gradient", ("gpt2", *GATED), "hook_resid_mid", OURS,
     "the hook sits on the way into the MLP's norm, past the fork: the stream's own way around the MLP is left out"),
    ("edit", ("gpt2", *GATED), "hook_resid_mid", OURS,
     "the hook sits on the way into the MLP's norm, past the fork: a change reaches the MLP only, not the stream"),
    ("edit", ("bert",), r"attn\.hook_pattern", OURS,
     "the hook is shown the pattern after it was used: a change there changes nothing"),
)  # fmt: skip


def reason(done: str, name: str, family: Family) -> tuple[str, str]:
    """Who is right where two differ, and why; empty where nobody has found out."""
    key = re.sub(r"^blocks\.\d+\.", "", name)
    for what, families, pattern, who, why in REASONS:
        if what == done and family.name in families and re.fullmatch(pattern, key):
            return who, why
    return "", ""
