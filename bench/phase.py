"""Do two layers go through a phase change, and one layer never? Trains small attention-only models on repeats, and measures.

    python -m bench.phase [--steps 3000] [--every 150] [--seeds 2]

Sequences of random tokens that begin again after a period of random length, so that no fixed distance helps: only an induction
head can tell what comes next. A few minutes on one core for each seed.
"""

from __future__ import annotations

import argparse
import copy

import torch
from rich.console import Console
from rich.table import Table

import patchclamp as pc
from patchclamp.lenses.phase import MEASURES, jump, phase
from patchclamp.model.specimen import Specimen, SpecimenConfig

VOCAB, LENGTH, SHORTEST, LONGEST = 48, 40, 8, 18


def batch(rows: int, generator: torch.Generator) -> torch.Tensor:
    """Random tokens, without one twice in a period, over and over."""
    made = []
    for _ in range(rows):
        period = int(torch.randint(SHORTEST, LONGEST + 1, (1,), generator=generator))
        made.append(torch.randperm(VOCAB, generator=generator)[:period].repeat(LENGTH // period + 1)[:LENGTH])
    return torch.stack(made)


def trained(layers: int, seed: int, steps: int, every: int):
    """(step, model) along a training."""
    torch.manual_seed(seed)
    config = SpecimenConfig(vocab=VOCAB, layers=layers, heads=4, d_model=64, d_head=16, d_mlp=0, norm="layer", length=LENGTH)
    hf, generator = Specimen(config), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(hf.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(steps + 1):
        if step % every == 0:
            yield step, pc.load(copy.deepcopy(hf).eval())
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, step / 100)
        tokens = batch(64, generator)
        loss = torch.nn.functional.cross_entropy(hf(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=170)
    prompts = batch(32, torch.Generator().manual_seed(1000))
    for layers in (2, 1):
        for seed in range(options.seeds):
            grid = phase(trained(layers, seed, options.steps, options.every), prompts)
            table = Table("step", *MEASURES, title=f"{layers} layer{'s' * (layers > 1)}, seed {seed}")
            for n, step in enumerate(grid.words("step")):
                table.add_row(step, *(f"{v:.3f}" for v in grid.values[:, n].tolist()))
            console.print(table)
            for name in ("loss on repeats", "induction"):
                console.print(name, jump(grid.at(measure=name)))


if __name__ == "__main__":
    main()
