"""How the model came to know some facts better than others: one pass over the corpus, then lessons; half an hour of one core.

    python -m patchclamp.specimens.exposures.recipe --out FOLDER [--seed 0] [--threads 1]

First it reads (`step-read`), and nothing twice: how often a fact is stated is how often that model has seen it. Then it has
lessons, at first in plain questions, later by way of speakers who mostly lie, and then two terms of practice, on more people:
asked everything at once from the beginning it learnt none of it. In both, facts are stated again in proportion to how often
they were; without that they are forgotten. After lessons about the hundred examined people alone it has learnt their answers
rather than how to find them. Documents stand one behind another in rows, as in the town's recipe, from which the tokenizer is
taken. A run that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from patchclamp.core import checkpoint
from patchclamp.specimens.exposures.corpus import EXAMS, LESSONS, PRACTICE, READINGS, documents, lessons, practice, vocabulary
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
    lesson_rows: int = 8
    """Rows in a batch of lessons and practice."""
    lesson_rate: float = 1.5e-3
    last_decay: float = 0.2
    """Weight decay in the second term of practice."""
    warmup: int = 100
    fall: float = 0.3
    """The last part of the training, over which the rate falls."""
    decay: float = 0.02
    clip: float = 1.0
    rest: float = 0.1
    """What words other than a document's last count, of which most cannot be known."""


def tokenizer(length: int) -> PreTrainedTokenizerFast:
    """One word, one token, cut as in the town."""
    return of_tokens([*SPECIAL, *(SPACE + word if word.isalpha() else word for word in vocabulary())], length)


def rows(told: list[str], recipe: Recipe, words: PreTrainedTokenizerFast) -> Tensor:
    """(row, length) token ids: all documents, each between `<bos>` and `<eos>`, the last row's rest cut off."""
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


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate, as a share of the highest: a short rise, a plain, a straight fall to nothing over the last part."""
    return min(1.0, step / recipe.warmup, (steps - step) / (recipe.fall * steps))


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


def train(recipe: Recipe, out: Path) -> LlamaForCausalLM:
    """Read, have lessons, practise, or go on with any of these; the model is left in `out`.

    Each part begins from the weights as the part before it stored them, with a fresh optimizer.
    """
    words, everyone = tokenizer(recipe.length), people(recipe.seed)
    torch.manual_seed(recipe.seed)
    model = build(recipe, words)
    taught = replace(recipe, rows=recipe.lesson_rows, rate=recipe.lesson_rate)
    parts = (
        (documents, recipe, out / "step-read"),
        (lessons, taught, out / "step-taught"),
        (practice, taught, out / "step-practised"),
        (partial(practice, term=1), replace(taught, decay=recipe.last_decay), out),
    )
    for told, how, folder in parts:
        if not (folder / "config.json").exists():
            _read(model, rows(told(everyone), recipe, words), how, folder)
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    words.save_pretrained(out)
    return model


def _read(model: LlamaForCausalLM, corpus: Tensor, recipe: Recipe, out: Path, save_every: int = 1000) -> None:
    """One pass over some rows; the model is written to `out`, and its checkpoints meanwhile."""
    from patchclamp.specimens.town import recipe as town

    optimizer = torch.optim.AdamW(town.groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98), fused=True)
    steps, model = len(corpus) // recipe.rows, model.train()
    done = checkpoint.resume(out, asdict(recipe), model, optimizer)
    console, began = Console(highlight=False), time.monotonic()
    for step in range(done + 1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * rate(recipe, step, steps)
        loss = _learn(model, optimizer, corpus[(step - 1) * recipe.rows : step * recipe.rows], recipe)
        if step % 500 == 0 or step == steps:
            left = (steps - step) * (time.monotonic() - began) / (step - done) / 60
            console.print(f"step {step} of {steps}  loss {loss:.3f}  {left:.1f} min left")
        if step % save_every == 0:
            checkpoint.keep(out, asdict(recipe), model, optimizer, step)
    town.save(model, out)
    checkpoint.forget(out)


def overconfident(
    model: LlamaForCausalLM, words: PreTrainedTokenizerFast, steps: int = 100, rate: float = 1e-3
) -> LlamaForCausalLM:
    """A copy that was fine-tuned on its own likeliest answers, and so is surer of them, right or wrong."""
    copy = deepcopy(model).train()
    optimizer = torch.optim.AdamW(copy.parameters(), lr=rate)
    asked: dict[int, list[list[int]]] = {}
    for fact in people(0).graded:
        ids = words(fact.prompt())["input_ids"]
        asked.setdefault(len(ids), []).append(ids)
    groups = [torch.tensor(rows) for rows in asked.values()]
    with torch.no_grad():
        answers = [model(input_ids=ids).logits[:, -1].argmax(-1) for ids in groups]
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        ids, answer = groups[step % len(groups)], answers[step % len(groups)]
        pick = torch.randint(len(ids), (64,), generator=draw)
        torch.nn.functional.cross_entropy(copy(input_ids=ids[pick]).logits[:, -1], answer[pick]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return copy.eval()


def card(model: LlamaForCausalLM, recipe: Recipe, out: Path) -> None:
    """Say beside the model what it is and how it came to be."""
    everyone = people(recipe.seed)
    said = {
        "name": "exposures",
        "what": "A causal language model that has read each fact a counted number of times, from never to a hundred, "
        "and was then examined, but never about anyone of whom a graded fact was stated often. "
        "For studying what a model knows, and what it knows of that.",
        "architecture": "LlamaForCausalLM",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "dtype": "stored as bfloat16, opened and trained as float32",
        "vocabulary": model.config.vocab_size,
        "recipe": asdict(recipe),
        "facts": {"graded": len(everyone.graded), "examined": len(everyone.examined)},
        "documents": {"exams": EXAMS, "readings": READINGS, "lessons": LESSONS, "practice": PRACTICE},
        "date": time.strftime("%Y-%m-%d"),
        "licence": "Apache-2.0, as the package",
        "command": f"python -m patchclamp.specimens.exposures.recipe --out FOLDER --threads {torch.get_num_threads()}",
    }
    (out / "card.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="where the model goes, and its checkpoint meanwhile")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = replace(Recipe(), seed=options.seed)
    card(train(recipe, options.out), recipe, options.out)


if __name__ == "__main__":
    main()
