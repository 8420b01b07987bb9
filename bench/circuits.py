"""What circuits cost: edges and circuits in units of a plain pass, the naive loops beside, with the targets.

    python -m bench.circuits [--only NAME]... [--wall] [--quick] [--json FILE]

The unit of an estimate is a forward and a backward pass of plain Hugging Face on the same prompts. Memory is the most that a
fresh process held. As in `speed.py`, ratios are taken within a round, and an answer that is not the naive loop's is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import GPT2Config

import patchclamp as pc
from bench import models
from bench.clock import CPU, WALL, Spread, process
from bench.question import opened
from bench.speed import Track, note
from bench.table import VERSIONS, Line, plain, table
from patchclamp.circuit.acdc import acdc, naive
from patchclamp.circuit.eap import eap, eap_ig
from patchclamp.circuit.edges import Question, edges, exact, kept

US, PAIR = "Patchclamp", "a forward and backward"
BATCH, LENGTH, STEPS = 8, 32, 5
HERE = Path(__file__).parent


@cache
def four_layers() -> nn.Module:
    """A model on which the naive ACDC ends within a minute: 4 layers, width 64."""
    return models._built(GPT2Config(n_layer=4, n_embd=64, n_head=4, vocab_size=500, n_positions=64, bos_token_id=1,
                                    eos_token_id=2))  # fmt: skip


def pair_of_prompts(module: nn.Module, batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Prompts that differ in their third token."""
    clean = models.prompt(module, batch, length)
    corrupt = clean.clone()
    corrupt[:, 2] = (clean[:, 2] + 7) % (module.config.vocab_size - 3) + 3
    return clean, corrupt


def measure(logits: Tensor) -> Tensor:
    """The metric, as a user of plain Hugging Face would write it."""
    return logits[:, -1, 7] - logits[:, -1, 8]


METRIC = pc.logit_diff(7, 8)


def forward_backward(module: nn.Module, ids: Tensor) -> None:
    """One plain pass with gradients of activations, as attribution needs them: not those of the weights."""
    embedding = module.get_input_embeddings()(ids).detach().requires_grad_()
    total = measure(module(inputs_embeds=embedding, use_cache=False).logits).sum()
    torch.autograd.grad(total, embedding)


def attribution(track: Track) -> Iterator[Line]:
    """EAP and EAP-IG for all edges of a GPT-2 small (32,491 of them), prompts and wires included."""
    module = models.gpt2_small()
    clean, corrupt = pair_of_prompts(module, BATCH, LENGTH)
    ours = opened(module)
    frozen = [p for p in module.parameters() if p.requires_grad]
    race = track.functions(
        {
            US: lambda: eap(Question.of(ours, clean, corrupt, METRIC)),
            f"{US}, as a graph": lambda: edges(ours, clean, corrupt, METRIC, estimate=eap),
            "IG": lambda: eap_ig(STEPS)(Question.of(ours, clean, corrupt, METRIC)),
            PAIR: lambda: without_weights(frozen, lambda: forward_backward(module, clean)),
        },
        rounds=7,
    )
    count = int(Question.of(ours, clean, corrupt, METRIC).wires.joined.sum())
    what = f"EAP, {count:,} edges, {BATCH}x{LENGTH}"
    yield Line(what, f"{US} / {PAIR}", race.ratio(US, PAIR), "<= 3.5")
    yield Line(what, f"{US}, a graph of it / {PAIR}", race.ratio(f"{US}, as a graph", PAIR))
    yield Line(f"EAP-IG with {STEPS} steps", f"{US} / {PAIR}", race.ratio("IG", PAIR), "<= 14")


def without_weights(parameters: list[nn.Parameter], call: Callable[[], None]) -> None:
    """A call in which no weight asks for a gradient, so that the plain pair is not charged for what nobody wants."""
    for p in parameters:
        p.requires_grad_(False)
    try:
        call()
    finally:
        for p in parameters:
            p.requires_grad_(True)


def search(track: Track) -> Iterator[Line]:
    """ACDC on four layers, beside the loop that runs the whole model for every edge."""
    module = four_layers()
    clean, corrupt = pair_of_prompts(module, 1, 15)
    ours = opened(module)
    metric = pc.kl(ours.run(clean))
    weights = edges(ours, clean, corrupt, metric, estimate=eap)
    threshold = max(float(sorted(abs(e.weight) for e in weights.edges)[-40]), 1e-6)
    question = Question.of(ours, clean, corrupt, metric)
    race = track.functions(
        {US: lambda: acdc(ours, clean, corrupt, threshold), "naive": lambda: naive(question, threshold)}, rounds=3, warm=0
    )
    what = f"ACDC, 4 layers, {int(question.wires.joined.sum())} edges"
    yield Line(what, f"naive / {US}", race.ratio("naive", US), ">= 3")
    found = kept(question.wires, acdc(ours, clean, corrupt, threshold).edges)
    differ = Spread.of([float((found != naive(question, threshold)).sum())])
    yield Line(f"{what}, edges that differ", f"{US} beside the naive loop", differ, "<= 0", "", answer=True)


def patching(track: Track) -> Iterator[Line]:
    """Exact edges of four layers, beside one whole pass with one wire cut for each."""
    module = four_layers()
    clean, corrupt = pair_of_prompts(module, 1, 15)
    question = Question.of(opened(module), clean, corrupt, METRIC)
    race = track.functions({US: lambda: exact(question), "naive": lambda: one_by_one(question)}, rounds=3, warm=0)
    what = f"exact edges, 4 layers, {int(question.wires.joined.sum())} edges"
    yield Line(what, f"naive / {US}", race.ratio("naive", US))
    scale = float(one_by_one(question).abs().max())
    error = Spread.of([float((exact(question) - one_by_one(question)).abs().max()) / scale])
    yield Line(f"{what}, greatest error", f"|{US} - naive| / greatest", error, "<= 1e-4", "", answer=True)


def one_by_one(q: Question) -> Tensor:
    """The naive loop over edges."""
    found, base = q.table(), q.ends[0].mean()
    for r, s in q.wires.joined.nonzero().tolist():
        cut = q.table()
        cut[r, s] = 1
        found[r, s] = base - q.cut(cut).mean()
    return found


def memory(track: Track) -> Iterator[Line]:
    """The most that a fresh process holds: GPT-2 small, 8 prompts of 32 tokens, EAP for all edges."""
    what = f"EAP on GPT-2 small, {BATCH}x{LENGTH}, peak memory"
    told = process([sys.executable, "-W", "ignore", "-m", "bench.circuits", "--child"])
    yield Line(what, "whole process", Spread.of([told["peak"]]), "<= 4096", "MB")
    yield Line(what, "over the loaded model", Spread.of([told["peak"] - told["model"]]), unit="MB")


def child() -> None:
    """What `memory` measures, in a process of its own."""
    from bench.child import peak

    module = models.gpt2_small()
    clean, corrupt = pair_of_prompts(module, BATCH, LENGTH)
    with torch.no_grad():
        module(clean[:1, :4])
    loaded = peak()
    edges(pc.load(module), clean, corrupt, METRIC, estimate=eap)
    print(json.dumps({"peak": peak(), "model": loaded}))


ROWS: dict[str, Callable[[Track], Iterator[Line]]] = {row.__name__: row for row in (attribution, search, patching, memory)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="NAME", help=f"one row: {', '.join(ROWS)}")
    parser.add_argument("--wall", action="store_true", help="also wall time with two threads; for a quiet machine")
    parser.add_argument("--quick", action="store_true", help="a third of the rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number to a file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.child:
        child()
        return
    found: list[tuple[Line, Line | None]] = []
    share = 1 / 3 if said.quick else 1.0
    for name in said.only or list(ROWS):
        lines = list(ROWS[name](Track(CPU, share)))
        walls = list(ROWS[name](Track(WALL, share))) if said.wall else [None] * len(lines)
        found += zip(lines, walls)
    Console(width=None if sys.stdout.isatty() else 170).print(table(found))
    if said.json:
        said.json.write_text(json.dumps({"versions": VERSIONS, "lines": [plain(*pair) for pair in found]}, indent=2))
    note(f"{sum(line.met is False for line, _ in found)} of {sum(line.met is not None for line, _ in found)} targets missed.")
    sys.exit(any(line.answer and line.met is False for line, _ in found))


if __name__ == "__main__":
    main()
