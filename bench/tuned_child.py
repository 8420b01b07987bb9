"""What runs in an environment of its own: the `tuned-lens` package's training loop, on a saved model and saved batches.

    PYTHON bench/tuned_child.py FOLDER OUT STEPS THREADS [float32]
    PYTHON bench/tuned_child.py --read FOLDER LENS OUT

FOLDER holds a model and `batches.pt`, a tensor (step, row, pos) of token ids. The loop is the package's own `Train.execute`;
what surrounds it (reading a data set, workers) is left out, so that the clock runs over training alone. It computes its
lenses in bfloat16, as it is written; with `float32` its autocast is taken away. The lens goes to OUT, a line of JSON to
standard output. With `--read` the package opens a lens that lies at LENS, and writes to OUT what it reads with it.

Run with tuned-lens 0.2.0, torchdata 0.7.1 (without its dependencies; the loop imports what later ones have not) and the torch
and transformers of `constraints.txt`. Nothing here imports Patchclamp.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from transformers import AutoModelForCausalLM
from tuned_lens import TunedLens
from tuned_lens.scripts import ingredients, train_loop


class Prepared(train_loop.Train):
    """The package's training with model, lens and batches already there."""

    ready: Any
    seen: Any
    steps_of: Any

    def setup(self) -> Any:
        return self.ready

    def _log(self, opt: Any, step: int, losses: Any, tuned_lens: Any, nats_to_bpb: float) -> None:
        """Called once a step: note the loss of every translator."""
        self.seen.append([sum(losses[f"translator_{i}"]) / len(losses[f"translator_{i}"]) for i in range(len(tuned_lens))])


def main(folder: str, out: str, steps: str, threads: str, precision: str = "") -> None:
    """Train, and say what it cost."""
    torch.set_num_threads(int(threads))
    batches = torch.load(Path(folder, "batches.pt"), weights_only=True)[: int(steps)]
    module = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    lens = TunedLens.from_model(module)
    told = ingredients.Optimizer()
    optimizer = told.create_optim(list(lens.parameters()))
    state = train_loop.State(
        dataloader=[{"input_ids": ids} for ids in batches],  # type: ignore[arg-type]
        lens=lens, opt=optimizer, scheduler=told.create_scheduler(optimizer, int(steps)), wandb_id=None, nats_to_bpb=1.0,
    )  # fmt: skip
    training = Prepared(
        model=ingredients.Model(name=folder), data=ingredients.Data(), opt=told, dist=ingredients.Distributed(),
        output=Path(out), num_steps=int(steps), tokens_per_step=batches[0].numel(),
    )  # fmt: skip
    training.seen, training.ready = [], (state, module, 1)
    if precision == "float32":
        train_loop.th = SimpleNamespace(**{**vars(torch), "autocast": lambda *a, **k: contextlib.nullcontext()})  # type: ignore
    with torch.no_grad():
        module(batches[0])  # what is set up on first use is not training
    cpu, wall = time.process_time(), time.perf_counter()
    training.execute()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"cpu": cpu, "wall": wall, "loss": sum(training.seen[-1])}))


@torch.no_grad()
def read(folder: str, lens: str, out: str) -> None:
    """The logits of every layer through a lens, for the first batch; and the lens as the package saves it again."""
    module = AutoModelForCausalLM.from_pretrained(folder).eval()
    opened = TunedLens.from_model_and_pretrained(module, lens)
    ids = torch.load(Path(folder, "batches.pt"), weights_only=True)[0, :2, :64]
    hidden = module(ids, output_hidden_states=True).hidden_states[:-1]
    opened.save(out)
    torch.save(torch.stack([opened(h, i) for i, h in enumerate(hidden)]), Path(out, "logits.pt"))


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        read(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
