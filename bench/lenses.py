"""How fast a lens reads: every layer at 512 tokens of a 50k vocabulary, beside the arithmetic that this needs.

    python -m bench.lenses [--rounds 5] [--wall]

GPT-2 small's shape with random weights. The floor is a plain forward and one unembedding a layer, of streams that are already
there and without their norm; the lens also has to find them, and for each of 6144 cells the top token, its probability, the
divergence from the output, the entropy, and rank and probability of the output's token, all sums over 50257 logits. Beside it
stands what somebody would write, `log_softmax` and one line for each number. Contenders take turns; what counts is the ratio
within a round. Memory is that of a process of its own, over the loaded model.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from torch import Tensor, nn

import patchclamp as pc
from bench import models
from bench.clock import CPU, WALL, Clock, Spread, alternate, process, script, timing
from bench.question import forward, opened
from bench.table import Line, table

TOKENS = 512
WHAT = f"logit lens, 12 layers x {TOKENS} tokens x 50257 words"


def streams(module: nn.Module, ids: Tensor) -> list[Tensor]:
    """The stream after each block, from plain Hugging Face; the last comes with the final norm done, and is not read here."""
    return list(forward(module, ids, output_hidden_states=True).hidden_states[1:])


@torch.no_grad()
def floor(module: nn.Module, ids: Tensor, stored: list[Tensor]) -> None:
    """The arithmetic and nothing else."""
    forward(module, ids)
    for stream in stored:
        module.lm_head(stream)


@torch.no_grad()
def plain(module: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """What somebody would write: (layer, pos) of every number."""
    out = forward(module, ids, output_hidden_states=True)
    truth, first = out.logits.log_softmax(-1), out.logits.argmax(-1, keepdim=True)
    found: dict[str, list[Tensor]] = {}
    for stream in out.hidden_states[1:-1]:
        logits = module.lm_head(module.transformer.ln_f(stream))
        said = logits.log_softmax(-1)
        for name, value in (("probability", said.max(-1).values.exp()), ("p(output)", said.gather(-1, first)[..., 0].exp()),
                            ("KL", (truth.exp() * (truth - said)).sum(-1)), ("entropy", -(said.exp() * said).sum(-1)),
                            ("rank", (logits > logits.gather(-1, first)).sum(-1).float())):  # fmt: skip
            found.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in found.items()}


def race(clock: Clock, rounds: int) -> Iterator[Line]:
    """Time, answers, memory."""
    module = models.gpt2_small()
    ids, ours = models.prompt(module, 1, TOKENS), opened(module)
    stored = streams(module, ids)
    found = alternate({"Patchclamp": lambda: pc.lens(ours, ids), "floor": lambda: floor(module, ids, stored),
                       "plain": lambda: plain(module, ids)}, rounds, timing(clock))  # fmt: skip
    yield Line(WHAT, "Patchclamp / one forward and 12 unembeddings", found.ratio("Patchclamp", "floor"), "<= 1.15")
    yield Line(WHAT, "plain Hugging Face, line by line / the same", found.ratio("plain", "floor"))
    grid, truth = pc.lens(ours, ids), plain(module, ids)
    said = {"probability": grid.values, **grid.details}
    for name, value in truth.items():
        error = Spread.of([float((said[name][:-1] - value).abs().max())])
        yield Line(f"{WHAT}, greatest error", f"|Patchclamp - plain|, {name}", error, "<= 1e-4", "", answer=True)
    last = Spread.of([float(grid.details["KL"][-1].max())])
    yield Line(f"{WHAT}, last layer", "KL from the output", last, "<= 0", "", answer=True)
    told = process(script("from bench.lenses import child; child()"))
    yield Line(f"{WHAT}, peak memory", "over the loaded model", Spread.of([told["peak"] - told["model"]]), "<= 1024", "MB")


def child() -> None:
    """What the line on memory measures, in a process of its own."""
    from bench.child import peak

    torch.set_num_threads(1)
    module = models.gpt2_small()
    ids, ours = models.prompt(module, 1, TOKENS), opened(module)
    loaded = held()
    pc.lens(ours, ids)
    print(json.dumps({"peak": peak(), "model": loaded}))


def held() -> float:
    """The memory that this process holds now, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall", action="store_true", help="wall time with two threads, for a quiet machine")
    said = parser.parse_args()
    lines = list(race(WALL if said.wall else CPU, said.rounds))
    Console(width=None if sys.stdout.isatty() else 170).print(table([(line, None) for line in lines]))
    sys.exit(any(line.answer and line.met is False for line in lines))


if __name__ == "__main__":
    main()
