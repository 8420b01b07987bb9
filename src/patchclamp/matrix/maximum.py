"""Maximum: how the specimen that names the largest token of a list came to be, and what it does.

    python -m patchclamp.matrix.maximum --out FOLDER

One layer, one head, no norm, no positions: after Hofstaetter 2023, "Explaining the Transformer Circuits Framework by
Example". It is shown lists of two, three and four of 64 numbers; of the pairs, two in five are kept back. The longer lists
matter. Networks of the same recipe that are shown pairs alone (three seeds) answer 95 to 98 % of the pairs kept back, but the
rows of their QK circuits are not in the numbers' order (mean rank correlation 0.43 to 0.64): of two tokens the last is known
by itself, and what is left to learn is whether to believe it. On lists of eight they are right about half of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from patchclamp.core import checkpoint
from patchclamp.core.agreement import rank_correlation
from patchclamp.core.progress import progress
from patchclamp.matrix.tables import Tables, accuracy, bound
from patchclamp.model.load import load
from patchclamp.model.model import Model
from patchclamp.model.specimen import Specimen, SpecimenConfig


@dataclass(frozen=True)
class Recipe:
    """All that the network depends on."""

    seed: int = 0
    vocab: int = 64
    d_model: int = 32
    d_head: int = 32
    lengths: tuple[int, ...] = (2, 3, 4)
    """Lengths of the lists, taken in turn."""
    shown: float = 0.6
    """The share of pairs that training sees."""
    steps: int = 3000
    batch: int = 256
    rate: float = 3e-3
    decay: float = 0.1

    def network(self) -> Specimen:
        """The network before training."""
        torch.manual_seed(self.seed)
        return Specimen(SpecimenConfig(vocab=self.vocab, layers=1, heads=1, d_model=self.d_model, d_head=self.d_head, d_mlp=0,
                                       norm="none", positional="none", bias=False, initializer_range=0.1))  # fmt: skip

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The pairs that are shown, and those that are kept back."""
        pairs = torch.cartesian_prod(torch.arange(self.vocab), torch.arange(self.vocab))
        mixed = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(self.seed))]
        return mixed[: int(self.shown * len(mixed))], mixed[int(self.shown * len(mixed)) :]


def train(recipe: Recipe, out: Path | None = None, save_every: int = 1000) -> Model:
    """Train, or go on training, and leave the network in `out` if there is one."""
    module, (shown, _) = recipe.network(), recipe.pairs()
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=recipe.decay)
    about = json.loads(json.dumps(asdict(recipe)))
    done = checkpoint.resume(out, about, module, optimizer) if out is not None else 0
    for step in progress(range(done, recipe.steps), recipe.steps - done, "training"):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        lists = _batch(recipe, shown, step)
        loss = F.cross_entropy(module(lists).logits[:, -1], lists.max(1).values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if out is not None and (step + 1) % save_every == 0:
            checkpoint.keep(out, about, module, optimizer, step + 1)
    module.eval()
    if out is not None:
        module.save_pretrained(out)
        checkpoint.forget(out)
    return load(module)


def _batch(recipe: Recipe, shown: Tensor, step: int) -> Tensor:
    chance = torch.Generator().manual_seed(1_000_003 * recipe.seed + step)
    length = recipe.lengths[step % len(recipe.lengths)]
    if length == 2:
        return shown[torch.randint(len(shown), (recipe.batch,), generator=chance)]
    return torch.randint(recipe.vocab, (recipe.batch, length), generator=chance)


@torch.no_grad()
def measure(recipe: Recipe, model: Model) -> dict[str, float]:
    """What the network gets right, what its circuits look like, and what can be known of it without running it."""
    tables = Tables.of(model)
    orders = [rank_correlation(row, torch.arange(tables.vocab)) for row in tables.scores]
    chance = torch.Generator().manual_seed(1)

    def right(lists: Tensor) -> float:
        return float((model.run(lists).logits[:, -1].argmax(-1) == lists.max(1).values).float().mean())

    return {
        "pairs kept back": right(recipe.pairs()[1]),
        "all pairs": accuracy(model),
        "all lists of three": accuracy(tables, 3),
        "lists of eight": right(torch.randint(tables.vocab, (20_000, 8), generator=chance)),
        "rows of OV largest on the diagonal": int((tables.values.argmax(1) == torch.arange(tables.vocab)).sum()),
        "Spearman of QK rows with the number, least": min(orders),
        "Spearman of QK rows with the number, mean": sum(orders) / len(orders),
        "known right from the weights, of pairs": bound(tables).share,
        "known right from the weights, of lists of three": bound(tables, 3).share,
        "known right from the weights, of lists of four": bound(tables, 4).share,
        "all pairs, both circuits ideal": accuracy(tables.ideal()),
    }


def main() -> None:
    """Make the shipped network: `python -m patchclamp.matrix.maximum --out FOLDER`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="where the network goes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = Recipe(seed=options.seed)
    figures = {name: round(value, 4) for name, value in measure(recipe, train(recipe, options.out)).items()}
    card = {
        "name": "maximum",
        "what": "One attention head that names the largest of a list of numbers from 0 to 63 at its last token; no norm, no "
        "positions.",
        "parameters": sum(p.numel() for p in recipe.network().parameters()),
        "recipe": asdict(recipe),
        "figures": {"how": "patchclamp.matrix.maximum.measure; shares of lists", **figures},
        "command": "python -m patchclamp.matrix.maximum --out FOLDER",
        "date": time.strftime("%Y-%m-%d"),
        "licence": "Apache-2.0, as the package",
    }
    print(json.dumps(figures, indent=2))
    (options.out / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
