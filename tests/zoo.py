"""Every model class of the installed transformers, small and random, built from its own config class.

One table of small sizes by field name, applied to any config that has the field, and one row for each config that needs
more. Nothing is downloaded. `build("gpt2", "causal")` gives a model in eval mode with weights drawn from a fixed seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import warnings
from typing import Any

import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "base": "MODEL_MAPPING",
    "speech": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
    "image": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
}

SMALL: dict[str, Any] = {
    # widths
    "hidden_size": 64, "d_model": 64, "n_embd": 64, "dim": 64, "emb_dim": 64, "embedding_size": 64,
    "intermediate_size": 96, "n_inner": 96, "ffn_dim": 96, "decoder_ffn_dim": 96, "encoder_ffn_dim": 96, "d_ff": 96,
    "ffn_hidden_size": 96, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 48, "dim_ff": 96,
    "shared_intermediate_size": 48, "attention_hidden_size": 64, "d_inner": 96, "hidden_dim": 96, "dense_intermediate_size": 96,
    "block_ff_dim": 96, "embedding_hidden_size": 64, "word_embed_proj_dim": 64, "expert_ffn_hidden_size": 48,
    # depth
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2, "encoder_layers": 2,
    "num_decoder_layers": 2, "num_encoder_layers": 2, "num_hidden_groups": 1,
    # heads
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "d_kv": 16, "dim_head": 16, "d_head": 16,
    # words and places
    "vocab_size": 99, "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64, "max_seq_len": 64, "max_length": 20,
    "type_vocab_size": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    "max_source_positions": 32, "max_target_positions": 64, "sliding_window": 8,
    # experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "moe_k": 2, "num_shared_experts": 1, "moe_topk": 2,
    # low-rank attention
    "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    # state spaces
    "state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": "auto", "mamba_expand": 2, "time_step_rank": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    # images and sound
    "image_size": 16, "patch_size": 4, "num_channels": 3, "num_mel_bins": 16, "projection_dim": 32,
    # noise off
    "attention_dropout": 0.0, "hidden_dropout": 0.0, "dropout": 0.0, "activation_dropout": 0.0, "resid_pdrop": 0.0,
    "embd_pdrop": 0.0, "attn_pdrop": 0.0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "tie_word_embeddings": False,
}  # fmt: skip

ROWS: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "xmod": {"default_language": "en_XX"},
    "glm_moe_dsa": {"num_key_value_heads": 4, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 4},
    "deepseek_v32": {"num_key_value_heads": 4, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 4},
    "axk2": {"num_key_value_heads": 4, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 4},
    "youtu": {"num_key_value_heads": 4},
    "minicpm3": {"num_key_value_heads": 4},
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4},
    "deepseek_v2": {"num_key_value_heads": 4},
    "axk1": {"num_key_value_heads": 4},
    "afmoe": {"num_hidden_layers": 3, "num_dense_layers": 1},
    "bailing_hybrid": {"num_hidden_layers": 3, "layer_group_size": 2, "first_k_dense_replace": 1, "num_key_value_heads": 4},
    "bamba": {"mamba_d_head": 32, "attn_layer_indices": [1]},
    "bart": {"max_position_embeddings": 64},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "cohere_compass_text": {"layer_types": ["full_attention", "sliding_attention"], "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "ctrl": {"dff": 96},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}, "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64}},
    "deepseek_v4": {"num_key_value_heads": 1, "o_groups": 2, "o_lora_rank": 16, "index_n_heads": 2, "index_head_dim": 16, "head_dim": 32},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_d_head": 32},
    "gemma3n_text": {"num_hidden_layers": 4, "vocab_size_per_layer_input": 99, "hidden_size_per_layer_input": 16, "num_kv_shared_layers": 1, "laurel_rank": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]},
    "gemma4_assistant": {"backbone_hidden_size": 64, "text_config": {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16, "vocab_size": 99}},
    "gemma4_text": {"vocab_size_per_layer_input": 99, "hidden_size_per_layer_input": 16},
    "gemma4_unified_text": {"vocab_size_per_layer_input": 99, "hidden_size_per_layer_input": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "granitemoehybrid": {"mamba_d_head": 32, "layer_types": ["mamba", "attention"]},
    "granite": {"residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 4.0},
    "inkling2_text": {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 16, "d_rel": 8, "rel_extent": 16, "unpadded_vocab_size": 99, "n_layers_per_attn_res_block": 1, "sliding_window_size": 8},
    "inkling_text": {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 16, "d_rel": 8, "rel_extent": 16, "sliding_window_size": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8, "use_mamba_kernels": False},
    "kimi_linear": {"linear_head_dim": 16, "linear_num_heads": 4, "num_key_value_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"intermediate_size_mlp": 96, "num_experts_per_tok": 1, "num_hidden_layers": 2, "interleave_moe_layer_step": 2, "attention_chunk_size": 32},
    "longcat_flash": {"zero_expert_num": 2, "num_key_value_heads": 4, "head_dim": 8},
    "longformer": {"attention_window": 8},
    "mamba2": {"num_heads": 4, "head_dim": 32, "n_groups": 2, "chunk_size": 8},
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "block_size": 8, "full_attn_alpha_factor": 1.5, "mlp_beta_factor": 0.5},
    "modernbert": {"cls_token_id": 3, "sep_token_id": 4},
    "moshi": {"audio_vocab_size": 32, "ffn_dim": 96},
    "mpt": {"attn_config": {"attn_pdrop": 0}},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "moe"], "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 8, "moe_shared_expert_intermediate_size": 48, "chunk_size": 8},
    "nystromformer": {"num_landmarks": 4},
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention"], "num_key_value_heads": 4},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_moe_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen4_exp_text": {"layer_types": ["linear_attention", "full_attention"], "ngram_vocab_size_base": 50, "hc_lowrank": 8, "split_ngram_parts": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 16},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [32, 32], "attn_layers": ["local", "lsh"], "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 2, "num_attention_heads": 4, "attention_head_size": 16},
    "roc_bert": {"pronunciation_embed_dim": 16, "pronunciation_vocab_size": 20, "shape_embed_dim": 16, "shape_vocab_size": 20},
    "t5": {"is_gated_act": False},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba"], "attention_hidden_size": 128, "attention_head_dim": 32, "num_key_value_heads": 4, "use_mamba_kernels": False, "mamba_dt_rank": 8},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba"], "num_key_value_heads": 4, "n_mamba_heads": 4, "use_mamba_kernels": False, "chunk_size": 8, "adapter_rank": 8},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 32},
}  # fmt: skip


def small(cls: type, own: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The keyword arguments that make a config of this class small."""
    names = {f.name for f in dataclasses.fields(cls)}
    row = ROWS.get(getattr(cls, "model_type", ""), {}) | (own or {}) | more
    chosen = {k: v for k, v in SMALL.items() if k in names and k not in row}
    for name, sub in _parts(cls).items():
        if name in names and name not in row:
            chosen[name] = small(sub)
    return chosen | row


def _parts(cls: type) -> dict[str, type]:
    """The config classes inside a composite config; where it says "any", the one of its default."""
    parts = {k: v for k, v in (getattr(cls, "sub_configs", None) or {}).items() if dataclasses.is_dataclass(v)}
    open_ = [k for k in (getattr(cls, "sub_configs", None) or {}) if k not in parts]
    if open_:
        with quiet(), contextlib.suppress(Exception):
            default = cls()
            parts |= {k: type(getattr(default, k)) for k in open_ if getattr(default, k, None) is not None}
    return parts


def config(kind: str, **more: Any):
    """A small config of the model type `kind`."""
    cls = CONFIG_MAPPING[kind]
    return cls(**small(cls, **more))


def build(kind: str, task: str = "causal", seed: int = 0, **more: Any):
    """A small random model of type `kind` for `task`, in eval mode."""
    cfg = config(kind, **more)
    cls = getattr(modeling_auto, MAPPINGS[task])[type(cfg)]
    cls = cls[0] if isinstance(cls, (tuple, list)) else cls
    torch.manual_seed(seed)
    with quiet():
        model = cls(cfg).eval()
    stir(model, seed)
    return model


def stir(model: torch.nn.Module, seed: int = 0) -> None:
    """Move every parameter a little, so that no norm is the identity and no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point():
                p.add_(torch.randn(p.shape, generator=generator) * 0.05)


@contextlib.contextmanager
def quiet():
    """Building a model may log and warn about missing kernels; that is not what is tested."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


def kinds(task: str) -> list[str]:
    """Model types whose class for `task` differs from that of every type before it."""
    names = getattr(modeling_auto, MAPPINGS[task] + "_NAMES")
    seen: dict[str, str] = {}
    for kind, cls in names.items():
        name = cls if isinstance(cls, str) else cls[0]
        if name not in seen or kind == seen[name] + "_text":  # the text model's own config, not the composite one's
            seen[name] = kind
    return list(seen.values())
