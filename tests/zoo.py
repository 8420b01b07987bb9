"""Every model class of the installed transformers, small and random, built from its own config class.

One table of small sizes by field name, applied to any config that has the field, and one row for each config that needs
more. Nothing is downloaded. `build("gpt2", "causal")` gives a model in eval mode with weights drawn from a fixed seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import math
import warnings
from typing import Any

import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "encoder": "MODEL_FOR_TEXT_ENCODING_MAPPING",
    "tower": "MODEL_FOR_IMAGE_MAPPING",
    "pair": "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING",
    "speech": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
    "ctc": "MODEL_FOR_CTC_MAPPING",
    "image": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "base": "MODEL_MAPPING",
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
    "max_source_positions": 32, "max_target_positions": 64, "sliding_window": 8, "entity_vocab_size": 20, "entity_emb_size": 16,
    # experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "moe_k": 2, "num_shared_experts": 1, "moe_topk": 2,
    # low-rank attention
    "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    # state spaces
    "state_size": 8, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": "auto", "mamba_expand": 2, "time_step_rank": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    # images and sound
    "image_size": 16, "patch_size": 4, "num_channels": 3, "num_mel_bins": 16, "projection_dim": 32, "num_frames": 4,
    "feature_projection_input_dim": 16, "input_feat_per_channel": 16, "hidden_size_global": 64,
    "audio_hidden_size": 64, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "speech_encoder_layers": 2, "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 96, "t2u_vocab_size": 20, "t2u_encoder_layers": 1, "t2u_decoder_layers": 1,
    "t2u_encoder_attention_heads": 4, "t2u_decoder_attention_heads": 4, "t2u_encoder_ffn_dim": 96, "t2u_decoder_ffn_dim": 96,
    "classifier_proj_size": 32, "unit_hifi_gan_vocab_size": 20, "unit_embed_dim": 16, "upsample_initial_channel": 32,
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
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"], "linear_head_dim": 16, "linear_num_heads": 4, "num_key_value_heads": 4},
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
    "qwen4_exp_text": {"layer_types": ["linear_attention", "full_attention"], "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8, "indexer_compress_ratio": 4, "ngram_vocab_size_base": 50, "hc_lowrank": 8, "split_ngram_parts": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 16},
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [32, 32], "attn_layers": ["local", "lsh"], "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 2, "num_attention_heads": 4, "attention_head_size": 16},
    "roc_bert": {"pronunciation_embed_dim": 16, "pronunciation_vocab_size": 20, "shape_embed_dim": 16, "shape_vocab_size": 20},
    "t5": {"is_gated_act": False},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba"], "attention_hidden_size": 128, "attention_head_dim": 32, "num_key_value_heads": 4, "use_mamba_kernels": False, "mamba_dt_rank": 8},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba"], "num_key_value_heads": 4, "n_mamba_heads": 4, "use_mamba_kernels": False, "chunk_size": 8, "adapter_rank": 8},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 32},
    "perceiver": {"num_latents": 8, "d_latents": 64, "num_self_attends_per_block": 2, "num_self_attention_heads": 4, "num_cross_attention_heads": 4},
    "esmc": {"num_key_value_heads": 4},
    "reformer/masked": {"is_decoder": False},
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 4, "downsampling_ratios": [2, 2], "depths": [1, 1, 1], "hidden_size": 16},
    "vibevoice_acoustic_tokenizer": {"num_filters": 4, "downsampling_ratios": [2, 2], "depths": [1, 1, 1], "hidden_size": 16},
    "siglip2_vision_model": {"num_patches": 16},
    "kyutai_speech_to_text": {"codebook_vocab_size": 20, "num_codebooks": 2, "audio_bos_token_id": 19, "audio_pad_token_id": 110},
    "dia": {"delay_pattern": [0, 1, 2, 3, 4, 5, 6, 7, 8]},
    "videoprism_vision_model": {"num_spatial_layers": 2, "num_temporal_layers": 2, "num_auxiliary_layers": 1, "tubelet_size": [1, 4, 4]},
    "vivit": {"tubelet_size": [2, 4, 4]},
    "yolos": {"image_size": [16, 16], "num_detection_tokens": 3},
    "lasr_encoder": {"conv_kernel_size": 5, "subsampling_conv_channels": 16},
    "parakeet_encoder": {"subsampling_conv_channels": 16},
    "granite_speech5_encoder": {"context_size": 16, "subsample_layers": [], "num_key_value_heads": 4},
    "swin": {"image_size": 32, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "swinv2": {"image_size": 32, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "donut-swin": {"image_size": 32, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "swin2sr": {"patch_size": 1, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
    "hiera": {"image_size": [32, 32], "embed_dim": 32, "patch_size": [3, 3], "patch_stride": [2, 2], "patch_padding": [1, 1], "depths": [2, 2], "num_heads": [2, 4], "num_query_pool": 1, "masked_unit_size": [4, 4], "masked_unit_attention": [True, False]},
    "pvt": {"image_size": 32, "num_encoder_blocks": 2, "depths": [2, 2], "sequence_reduction_ratios": [2, 1], "hidden_sizes": [32, 64], "patch_sizes": [4, 2], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2]},
    "segformer": {"num_encoder_blocks": 2, "depths": [2, 2], "sr_ratios": [2, 1], "hidden_sizes": [32, 64], "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2]},
    "glpn": {"num_encoder_blocks": 2, "depths": [2, 2], "sr_ratios": [2, 1], "hidden_sizes": [32, 64], "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2]},
    "cvt": {"embed_dim": [32, 48, 64], "num_heads": [1, 3, 4], "depth": [1, 1, 2]},
    "vitdet": {"pretrain_image_size": 16},
    "nemotron3_5_transcribe_word_timestamp": {"blank_token_id": 98},
    "mimi": {"upsample_groups": 16, "num_filters": 4, "vector_quantization_hidden_dimension": 16, "codebook_size": 16, "codebook_dim": 16, "num_quantizers": 8, "upsampling_ratios": [4, 2]},
    "fun_asr_nano": {"adaptor_config": {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 16, "num_hidden_layers": 2, "projector_hidden_size": 64}},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "moonshine_streaming_encoder": {"num_key_value_heads": 4, "sliding_windows": [[4, 2], [4, 0]]},
    "moonshine": {"encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2, "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    "t5gemma/encoder": {"is_encoder_decoder": False},
    "focalnet": {"embed_dim": 16, "depths": [1, 1], "hidden_sizes": [16, 32], "focal_levels": [2, 2], "focal_windows": [3, 3]},
    "blip_2_qformer": {"use_qformer_text_input": True},
    "encoder-decoder": {"decoder": {"is_decoder": True, "add_cross_attention": True}},
    "speech-encoder-decoder": {"decoder": {"is_decoder": True, "add_cross_attention": True}},
    "align": {"projection_dim": 320},
    "align_vision_model": {"image_size": 64, "width_coefficient": 1.0, "depth_coefficient": 1.0},
    "llama4_vision_model": {"intermediate_size": 256, "projector_input_dim": 64, "projector_output_dim": 64},
    **{kind: {"conv_dim": [16, 16, 16], "conv_stride": [5, 8, 8], "conv_kernel": [10, 8, 8]} for kind in ("data2vec-audio", "hubert", "sew", "sew-d", "speecht5", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-conformer", "wavlm")},
}  # fmt: skip


CANNOT: dict[str, str] = {
    **dict.fromkeys(
        ("bit", "convnext", "convnextv2", "dinov3_convnext", "efficientnet", "mobilenet_v1", "mobilenet_v2", "poolformer", "regnet", "resnet"),
        "a convolutional network: it has no stream of tokens",
    ),
    **dict.fromkeys(("mobilevit", "mobilevitv2", "swiftformer"), "convolutions and attention by turns: it has no one stream of tokens"),
    **dict.fromkeys(("conditional_detr", "dab-detr", "deformable_detr", "detr", "table-transformer"), "its backbone comes from the timm library"),
    **dict.fromkeys(("timm_backbone", "timm_wrapper"), "it wraps a model of the timm library"),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "it drafts for another model, whose keys and values it reads; it takes no tokens of its own"),
    **dict.fromkeys(("musicgen", "musicgen_melody"), "every prompt is several rows of ids, one a codebook, so rows are not prompts"),
    **dict.fromkeys(("dia", "kyutai_speech_to_text"), "it reads several tokens at every place, one a codebook, so prompts are not rows of tokens"),
    "cohere2_vision": "it reads a picture only where its text has a token for it",
    "depth_pro": "it cuts its picture into crops of three scales, which no small picture has",
    "dinat": "its attention is a kernel of the natten library",
    "gemma3n": "its picture tower comes from the timm library; its text model is listed below it",
    "levit": "it keeps tensors of one pass for the next, so a pass that is watched would leave a trace",
    "mllama/tower": "it reads tiles of a picture together with their aspect ratios",
    "mra": "its attention is a CUDA kernel of its own; without it the layer adds nothing",
}  # fmt: skip
"""Why a class is not built here, by model type, or by model type and task."""

EXAMPLES: dict[str, dict[str, tuple[int, ...]]] = {
    "granite_speech5_ctc": {"input_features": (2, 16, 64)},
    "nystromformer": {"input_ids": (2, 64)},
    "voxtral_realtime": {"input_ids": (2, 5), "input_features": (2, 16, 40)},
}
"""Shapes of the inputs of models for which patchclamp cannot make one up; a user gives `pc.load(..., example={...})`."""


def cannot(kind: str, task: str) -> str:
    """Why a class is not built here; nothing where it is."""
    return CANNOT.get(kind) or CANNOT.get(f"{kind}/{task}", "")


def example(kind: str) -> dict[str, torch.Tensor] | None:
    """What a model of this type is to be watched on, where that must be said."""
    shapes, generator = EXAMPLES.get(kind), torch.Generator().manual_seed(0)
    if shapes is None:
        return None
    return {
        name: 3 + torch.arange(math.prod(shape)).view(shape) % 90 if name.endswith("_ids") else torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }  # fmt: skip


def small(cls: type, own: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The keyword arguments that make a config of this class small."""
    names = {f.name for f in dataclasses.fields(cls)}
    row = ROWS.get(getattr(cls, "model_type", ""), {}) | (own or {}) | more
    chosen = {k: v for k, v in SMALL.items() if k in names and k not in row}
    if getattr(cls, "is_encoder_decoder", False):
        chosen.pop("tie_word_embeddings", None)  # both halves read the same matrix, as they were trained to
    for name, sub in _parts(cls).items():
        if name in names and name not in row:
            chosen[name] = {"model_type": sub.model_type, **small(sub)}
        elif name in names and isinstance(row[name], dict):
            chosen[name] = {"model_type": sub.model_type, **small(sub), **row[name]}
    return row | chosen


def _parts(cls: type) -> dict[str, type]:
    """The config classes inside a composite config; where it says "any", the one of its default."""
    parts = {k: v for k, v in (getattr(cls, "sub_configs", None) or {}).items() if dataclasses.is_dataclass(v)}
    open_ = [k for k in (getattr(cls, "sub_configs", None) or {}) if k not in parts]
    if open_:
        with quiet(), contextlib.suppress(Exception):
            default = cls()
            parts |= {k: type(getattr(default, k)) for k in open_ if getattr(default, k, None) is not None}
    return parts


def class_of(kind: str, task: str) -> type:
    """The model class that transformers names for a model type and a task."""
    cls = getattr(modeling_auto, MAPPINGS[task])[CONFIG_MAPPING[kind]]
    return cls[0] if isinstance(cls, (tuple, list)) else cls


def config(kind: str, task: str = "causal", **more: Any):
    """A small config of the model type `kind`; of a part of it, where the class for `task` is made from that part."""
    whole, own = CONFIG_MAPPING[kind], class_of(kind, task).config_class
    cls = own if own is not None and dataclasses.is_dataclass(own) and not issubclass(whole, own) else whole
    return cls(**small(cls, ROWS.get(f"{kind}/{task}"), **more))


def build(kind: str, task: str = "causal", seed: int = 0, **more: Any):
    """A small random model of type `kind` for `task`, in eval mode."""
    cls, cfg = class_of(kind, task), config(kind, task, **more)
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
