"""Smallest: a small transformer that finds the third smallest of eight numbers; its attention shows the tree of the task.

Hou et al. 2023 fine-tuned GPT-2 to say the k-th smallest number of a list, a task with a known tree: first the numbers that are
small enough, then the answer among them. This one is trained from nothing on the same question, and ships as
`specimen:smallest`. A prompt is eight different numbers below `NUMBERS` and the token `ASK`; the answer is the next token.

    python -m patchclamp.probe.smallest --out FOLDER        some minutes on one core; interrupted, it goes on where it was

The control, `specimen:smallest/by-place`, has the same shape and was trained on the same lists to say the number in the
third place, whatever its size: it attends to one number as well, and knows nothing of the tree.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from patchclamp.core import checkpoint
from patchclamp.core.progress import progress
from patchclamp.model.specimen import Specimen, SpecimenConfig

NUMBERS, LISTED, RANK = 32, 8, 3
"""Numbers there are, numbers in a list, and which of them is asked for, counted from the smallest."""
ASK = NUMBERS
"""The token behind the list."""
CONTROL = "by-place"


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how."""

    asked: str = "size"
    """`size`: the third smallest. `place`: the number in the third place, the control."""
    layers: int = 4
    heads: int = 4
    d_model: int = 64
    d_head: int = 16
    d_mlp: int = 128
    steps: int = 1500
    batch: int = 256
    rate: float = 2e-3
    decay: float = 0.01
    seed: int = 0

    def network(self) -> Specimen:
        """The untrained network."""
        torch.manual_seed(self.seed)
        return Specimen(SpecimenConfig(
            vocab=NUMBERS + 1, layers=self.layers, heads=self.heads, d_model=self.d_model, d_head=self.d_head, d_mlp=self.d_mlp,
            length=LISTED + 1,
        ))  # fmt: skip


def lists(n: int, seed: int) -> Int[Tensor, "n token"]:
    """`n` prompts: eight different numbers in any order, and the question. Of 4 x 10^11 hardly one is met twice.

    >>> lists(2, 0).shape
    torch.Size([2, 9])
    """
    chance = torch.Generator().manual_seed(seed)
    numbers = torch.rand(n, NUMBERS, generator=chance).argsort(1)[:, :LISTED]
    return torch.cat([numbers, torch.full((n, 1), ASK)], 1)


def answers(prompts: Int[Tensor, "n token"], asked: str = "size") -> Int[Tensor, " n"]:
    """What is right after each prompt.

    >>> answers(torch.tensor([[7, 5, 9, 1, 30, 20, 10, 11, ASK]]))
    tensor([7])
    """
    numbers = prompts[:, :LISTED]
    return numbers.sort(1).values[:, RANK - 1] if asked == "size" else numbers[:, RANK - 1]


def heights(prompts: Int[Tensor, "n token"]) -> Int[Tensor, "n number"]:
    """The tree: 0 for a number that is not needed, 1 for the two below the answer, 2 for the answer itself.

    >>> heights(torch.tensor([[7, 5, 9, 1, 30, 20, 10, 11, ASK]]))
    tensor([[2, 1, 0, 1, 0, 0, 0, 0]])
    """
    rank = prompts[:, :LISTED].argsort(1).argsort(1)
    return (rank < RANK).long() + (rank == RANK - 1).long()


def train(recipe: Recipe, out: Path, save_every: int = 100) -> Specimen:
    """Train, or go on training, and leave the network in `out`. The batch of a step depends on seed and step alone."""
    network = recipe.network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    done = checkpoint.resume(out, asdict(recipe), network, optimizer)
    for step in progress(range(done + 1, recipe.steps + 1), label=f"the third by {recipe.asked}"):
        rate = recipe.rate * min(1.0, step / 200) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        prompts = lists(recipe.batch, 1_000_003 * (recipe.seed + 1) + step)
        loss = F.cross_entropy(network(prompts).logits[:, -1], answers(prompts, recipe.asked))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % save_every == 0:
            checkpoint.keep(out, asdict(recipe), network, optimizer, step)
            print(recipe.asked, step, f"{float(loss.detach()):.4f}", flush=True)
    network.bfloat16().save_pretrained(out)
    path = out / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text(encoding="utf-8")), "dtype": "float32"}, indent=2) + "\n", encoding="utf-8"
    )
    checkpoint.forget(out)
    return Specimen.from_pretrained(out, dtype=torch.float32)


@torch.no_grad()
def accuracy(network: Specimen, asked: str = "size", n: int = 5000, seed: int = 1) -> float:
    """The share of lists never seen in training (their seed is another) that are answered rightly."""
    prompts = lists(n, seed)
    return float((network(prompts).logits[:, -1].argmax(-1) == answers(prompts, asked)).float().mean())


def main() -> None:
    """Make the shipped network and its control."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="where the network goes, its control beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums depend on how many threads share them
    recipe = Recipe()
    figures = {"accuracy": round(accuracy(train(recipe, options.out)), 4)}
    control = replace(recipe, asked="place", steps=400)
    figures["accuracy of the control, on its own question"] = round(accuracy(train(control, options.out / CONTROL), "place"), 4)
    card = {
        "name": "smallest",
        "what": f"A small causal transformer that says the third smallest of {LISTED} different numbers below {NUMBERS}. "
        f"In {CONTROL}/ lies its control, which says the number in the third place.",
        "parameters": sum(p.numel() for p in recipe.network().parameters()),
        "dtype": "stored as bfloat16, opened and trained as float32",
        "recipe": asdict(recipe),
        "figures": figures,
        "command": "python -m patchclamp.probe.smallest --out FOLDER",
        "date": time.strftime("%Y-%m-%d"),
        "licence": "Apache-2.0, as the package",
    }  # fmt: skip
    (options.out / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
