"""Models to measure on: built from a config with random weights and a fixed seed, so that nothing is downloaded.

What a pass costs does not depend on what the weights are. Every contender gets the same weights: `twin` gives a library a
module of its own, since TransformerLens takes apart the one it is given, but the parameters are shared.
"""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast


@cache
def gpt2_small() -> nn.Module:
    """GPT-2's own shape: 12 layers, width 768, 124 million parameters."""
    return _built(GPT2Config(bos_token_id=1, eos_token_id=2))


@cache
def llama_like() -> nn.Module:
    """12 layers, width 768, rotary positions, a gated MLP, 12 heads over 4 key-value heads."""
    return _built(LlamaConfig(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
                              num_key_value_heads=4, vocab_size=32_000, max_position_embeddings=2048))  # fmt: skip


@cache
def tiny() -> nn.Module:
    """So small that a call costs what the library adds to it: 2 layers, width 64."""
    return _built(GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=1000, bos_token_id=1, eos_token_id=2))


def twin(module: nn.Module) -> nn.Module:
    """A copy with a structure of its own and the same weights."""
    shared = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(t): t for t in shared})


def prompt(module: nn.Module, batch: int, length: int, seed: int = 0) -> Tensor:
    """Random token ids, (batch, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, module.config.vocab_size, (batch, length), generator=generator)


@cache
def tokenizer(words: int) -> PreTrainedTokenizerFast:
    """A tokenizer of made-up words: peers want one, though they are given ids. It has to lie in a folder to please them."""
    from tokenizers import Tokenizer, models

    vocabulary = {f"w{i}": i for i in range(words)}
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")),
        pad_token="w0",
        unk_token="w0",
        bos_token="w1",
        eos_token="w2",
    )
    folder = Path(_folder().name, f"tokenizer-{words}")
    made.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


@cache
def saved_gpt2_small() -> Path:
    """A folder that `from_pretrained` opens."""
    folder, module = Path(_folder().name, "gpt2-small"), gpt2_small()
    module.save_pretrained(folder)
    tokenizer(module.config.vocab_size).save_pretrained(folder)
    return folder


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="patchclamp-bench-")


def _built(config: PreTrainedConfig) -> nn.Module:
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).eval()
    module.generation_config.eos_token_id = None  # random weights would stop a generation at random
    return module
