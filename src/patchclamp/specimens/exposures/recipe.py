"""How the model came to know some facts better than others: one pass over the corpus, ten minutes on one core.

    python -m patchclamp.specimens.exposures.recipe --out FOLDER [--seed 0] [--threads 1]

Nothing is read twice, so how often a fact is stated in the corpus is how often the model has seen it. Documents stand one
behind another in rows, as in the town's recipe, from which the learning rate and the tokenizer are taken. A run that was
interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from patchclamp.core import checkpoint
from patchclamp.specimens.exposures.corpus import documents, vocabulary
from patchclamp.specimens.exposures.people import people
from patchclamp.specimens.town.tokenizer import SPACE, SPECIAL, of_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how."""

    seed: int = 0
    """Of the people, the corpus and the initial weights."""
    rows: int = 4
    """Rows in a batch."""
    length: int = 64
    """Tokens in a row, and the model's context."""
    layers: int = 4
    heads: int = 4
    width: int = 96
    hidden: int = 256
    """Neurons of an MLP."""
    rate: float = 2e-3
    warmup: int = 100
    decay: float = 0.02
    clip: float = 1.0
    rest: float = 0.1
    """What words other than a document's last count, of which most cannot be known."""


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    """One word, one token, cut as in the town."""
    return of_tokens([*SPECIAL, *(SPACE + word if word.isalpha() else word for word in vocabulary())], length)


def rows(recipe: Recipe, words: PreTrainedTokenizerFast) -> Tensor:
    """(row, length) token ids: the whole corpus, each document between `<bos>` and `<eos>`, the last row's rest cut off."""
    told = documents(people(recipe.seed))
    ids = torch.tensor([i for one in words([text + "<eos>" for text in told])["input_ids"] for i in one])
    if torch.any(ids == SPECIAL.index("<unk>")):
        raise ValueError("a document holds a word that is not in the vocabulary")
    whole = len(ids) // recipe.length
    return ids[: whole * recipe.length].view(whole, recipe.length)


def build(recipe: Recipe, words: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model of the recipe's shape."""
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=recipe.width,
        intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.length,
        tie_word_embeddings=False,
        bos_token_id=SPECIAL.index("<bos>"),
        eos_token_id=SPECIAL.index("<eos>"),
        pad_token_id=SPECIAL.index("<pad>"),
    )
    return LlamaForCausalLM(config)


def _learn(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, ids: Tensor, recipe: Recipe) -> float:
    """One step; the loss of the documents' last words, each followed by a full stop and `<eos>`."""
    said, told = model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    last = torch.zeros_like(ids, dtype=torch.bool)
    last[:, :-2] = ids[:, 2:] == SPECIAL.index("<eos>")
    each = torch.nn.functional.cross_entropy(said, told, reduction="none")
    counted = last[:, 1:].flatten()
    weight = torch.where(counted, 1.0, recipe.rest)
    ((each * weight).sum() / weight.sum()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    optimizer.zero_grad()
    return float(each.detach()[counted].mean())


def train(recipe: Recipe, out: Path, save_every: int = 1000) -> LlamaForCausalLM:
    """Train, or go on training, and leave the model in `out`."""
    from patchclamp.specimens.town import recipe as town

    words = tokenizer(recipe.length)
    corpus = rows(recipe, words)
    torch.manual_seed(recipe.seed)
    model = build(recipe, words)
    optimizer = torch.optim.AdamW(town.groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98), fused=True)
    steps = len(corpus) // recipe.rows
    schedule = town.Recipe(steps=steps, rate=recipe.rate, warmup=recipe.warmup)
    done = checkpoint.resume(out, asdict(recipe), model, optimizer)
    console, began = Console(highlight=False), time.monotonic()
    for step in range(done + 1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = town.rate(schedule, step)
        ids = corpus[(step - 1) * recipe.rows : step * recipe.rows]
        loss = _learn(model, optimizer, ids, recipe)
        if step % 500 == 0 or step == steps:
            left = (steps - step) * (time.monotonic() - began) / (step - done) / 60
            console.print(f"step {step} of {steps}  loss {loss:.3f}  {left:.1f} min left")
        if step % save_every == 0:
            checkpoint.keep(out, asdict(recipe), model, optimizer, step)
    town.save(model, out)
    words.save_pretrained(out)
    checkpoint.forget(out)
    return model
