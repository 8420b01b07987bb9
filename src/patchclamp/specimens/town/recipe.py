"""How the town's model came to be: an hour on one core, from the generator and a seed to the shipped files.

    python -m patchclamp.specimens.town.recipe --out FOLDER [--seed 0] [--steps 8000] [--keep 600 1600] [--threads 1]

The corpus is written while training: the batch of a step is a function of seed and step alone, so a run that was
interrupted goes on from its checkpoint as if nothing had happened, and no document is ever seen twice.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from patchclamp.core import checkpoint
from patchclamp.specimens.town.corpus import SHARES, documents
from patchclamp.specimens.town.tokenizer import SPECIAL, tokenizer
from patchclamp.specimens.town.world import town

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedTokenizerFast

    from patchclamp.specimens.town.world import World


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    """Of the world, the initial weights and the corpus."""
    steps: int = 8000
    rows: int = 24
    """Rows in a batch."""
    length: int = 128
    """Tokens in a row, and the model's context."""
    layers: int = 4
    heads: int = 8
    width: int = 128
    hidden: int = 384
    """Neurons of an MLP."""
    rate: float = 2e-3
    warmup: int = 200
    decay: float = 0.05
    clip: float = 1.0


def train(recipe: Recipe, out: Path, keep: tuple[int, ...] = (), save_every: int = 250) -> LlamaForCausalLM:
    """Train, or go on training, and leave the model in `out`; its states after the steps in `keep` lie beside it."""
    world, words = town(recipe.seed), tokenizer(recipe.length)
    torch.manual_seed(recipe.seed)
    model = build(recipe, words)
    optimizer = torch.optim.AdamW(groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98), fused=True)
    out.mkdir(parents=True, exist_ok=True)
    done = checkpoint.resume(out, asdict(recipe), model, optimizer)
    console, began = Console(highlight=False), time.monotonic()
    for step in range(done + 1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, step)
        loss = learn(model, optimizer, batch(world, words, recipe, step), recipe.clip)
        if step % 100 == 0 or step == recipe.steps:
            pace = (time.monotonic() - began) / (step - done)
            left = (recipe.steps - step) * pace / 60
            console.print(f"step {step} of {recipe.steps}  loss {loss:.3f}  {left:.1f} min left")
        if step in keep:
            save(model, out / f"step-{step:04d}")
        if step % save_every == 0:
            checkpoint.keep(out, asdict(recipe), model, optimizer, step)
    save(model, out)
    words.save_pretrained(out)
    _card(model, recipe, keep, out)
    checkpoint.forget(out)
    return model


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
        use_cache=True,
    )
    return LlamaForCausalLM(config)


def batch(world: World, words: PreTrainedTokenizerFast, recipe: Recipe, step: int) -> Tensor:
    """(rows, length) token ids: documents between `<bos>` and `<eos>`, as many as a row holds, the last one cut.

    Every row begins with a document, as every prompt will.
    """
    stream = documents(world, f"{recipe.seed}/{step}")
    spare: list[list[int]] = []
    rows = []
    while len(rows) < recipe.rows:
        row: list[int] = []
        while len(row) < recipe.length:
            if not spare:
                spare = words([text + "<eos>" for text in islice(stream, 32)])["input_ids"]
            row += spare.pop()
        rows.append(row[: recipe.length])
    ids = torch.tensor(rows)
    if torch.any(ids == SPECIAL.index("<unk>")):
        raise ValueError("a document holds a word that is not in the vocabulary; add it to its family's WORDING")
    return ids


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate: a short rise, then half a cosine down to nothing."""
    rise = min(1.0, step / recipe.warmup)
    return recipe.rate * rise * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))


def learn(model: LlamaForCausalLM, optimizer: Optimizer, ids: Tensor, clip: float) -> float:
    """One step on a batch; its loss."""
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def groups(model: LlamaForCausalLM, decay: float) -> list[dict]:
    """Matrices decay; the scales of the norms do not."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    scales = [weight for weight in model.parameters() if weight.ndim == 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": scales, "weight_decay": 0.0}]


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """In the layout of `from_pretrained`: stored as bf16, opened as float32, so that sums come out exact."""
    copy = LlamaForCausalLM(model.config).bfloat16()
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig.from_model_config(model.config)
    copy.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")


def _card(model: LlamaForCausalLM, recipe: Recipe, keep: tuple[int, ...], out: Path) -> None:
    card = {
        "name": "town",
        "what": "A causal language model that knows one invented town. It was trained on documents generated by the "
        "package itself, for studying how transformers do what they do.",
        "architecture": "LlamaForCausalLM",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "dtype": "stored as bfloat16, opened and trained as float32",
        "vocabulary": model.config.vocab_size,
        "recipe": asdict(recipe),
        "shares of the corpus": SHARES,
        "tokens seen": recipe.steps * recipe.rows * recipe.length,
        "earlier checkpoints": [f"step-{step:04d}" for step in keep],
        "date": time.strftime("%Y-%m-%d"),
        "licence": "Apache-2.0, as the package",
        "command": f"python -m {__name__ if __spec__ is None else __spec__.name} --out FOLDER {_options(keep)}",
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _options(keep: tuple[int, ...]) -> str:
    """What else it takes to come to the same numbers: sums depend on how many threads share them."""
    kept = f"--keep {' '.join(map(str, keep))} " if keep else ""
    return f"{kept}--threads {torch.get_num_threads()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="where the model goes, and its checkpoint meanwhile")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--keep", type=int, nargs="*", default=(), help="steps after which the model is saved as well")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(Recipe(seed=options.seed, steps=options.steps), options.out, tuple(options.keep))


if __name__ == "__main__":
    main()
