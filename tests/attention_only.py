"""Attention-only models as specimens: random ones of any kind, and the published one that has induction heads."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

import patchclamp as pc
from patchclamp.model.specimen import Specimen, SpecimenConfig


def drawn(seed=0, **options):
    """Random weights, large enough that patterns are not flat, every bias among them."""
    plain = {
        "layers": 2,
        "heads": 3,
        "d_head": 8,
        "d_model": 32,
        "d_mlp": 0,
        "vocab": 40,
        "norm": "none",
        "positional": "learned",
        "length": 16,
    }
    torch.manual_seed(seed)
    module = Specimen(SpecimenConfig(**{**plain, **options})).eval()
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.5)
    return pc.load(module)


def induction(shared):
    """The checkpoint in `models/induction-2l-attn-only`, as a specimen."""
    w = load_file(shared / "models" / "induction-2l-attn-only" / "weights.safetensors")
    d_model, vocab = w["embed.W_E"].shape
    heads, d_head, _ = w["attn_blocks.0.attn.W_Q"].shape
    module = Specimen(SpecimenConfig(vocab=vocab, d_model=d_model, layers=2, heads=heads, d_head=d_head, d_mlp=0, norm="none", bias=False,
                                     length=len(w["pos_embed.W_pos"]))).eval()  # fmt: skip
    module.embed.weight.data = w["embed.W_E"].T.contiguous()
    module.positions.weight.data = w["pos_embed.W_pos"].contiguous()
    module.unembed.weight.data = w["unembed.W_U"].T.contiguous()
    for i, block in enumerate(module.blocks):
        for name in "qkv":
            getattr(block.attn, name).weight.data = w[f"attn_blocks.{i}.attn.W_{name.upper()}"].flatten(0, 1).contiguous()
        block.attn.o.weight.data = w[f"attn_blocks.{i}.attn.W_O"].contiguous()
    return pc.load(module)
