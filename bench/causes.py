"""How fast causes are found: path patching beside the naive loop of plain Hugging Face hooks.

    python -m bench.causes [--rounds 3] [--wall]

Path patching asks what each of 144 heads tells one receiver, and nothing else. The naive loop runs every pair by itself, twice:
once with all attention and feed-forward outputs held as they are in the corrupt run and one head as in the clean run, to read
what the receiver then gets; once with the receiver given that. TransformerLens goes the other way, from one sender to all later
heads, a pass a pair, and is compared by the pair. As in `speed.py` contenders take turns, and what counts is the ratio within a
round.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from torch import Tensor, nn
from transformer_lens import patching

import patchclamp as pc
from bench import models, peers
from bench.clock import CPU, WALL, Clock, Spread, alternate, timing
from bench.question import Question, opened
from bench.table import Line, table
from patchclamp.cause.path import paths

LAYER, HEAD = 9, 6
"""The receiver: one head's query."""
RECEIVER = f"blocks.{LAYER}.attn.q[head={HEAD}]"


@cache
def sharp() -> nn.Module:
    """GPT-2 small whose queries and keys are long: under random ones attention is nearly uniform, and no query would matter."""
    module = copy.deepcopy(models.gpt2_small())
    for block in module.transformer.h:
        block.attn.c_attn.weight.data[:, : 2 * module.config.n_embd] *= 8
    return module


@torch.no_grad()
def naive(q: Question) -> Tensor:
    """Two passes a pair, with torch's own hooks, on GPT-2: (layer, head)."""
    layers, heads = q.module.transformer.h, q.module.config.num_attention_heads
    kept: dict[nn.Module, Tensor] = {}

    def keeping(module: nn.Module, args: tuple) -> None:
        kept[module] = args[0]

    def run(ids: Tensor, *handles: Callable) -> Tensor:
        made = [handle() for handle in handles]
        try:
            return q.measure(q.module(ids, use_cache=False).logits)[0]
        finally:
            for one in made:
                one.remove()

    places = [m for block in layers for m in (block.attn.c_proj, block.mlp.c_proj)]
    listen = [lambda m=m: m.register_forward_pre_hook(keeping) for m in places]
    run(q.clean, *listen)
    clean = dict(kept)
    base = run(q.corrupt, *listen)
    corrupt = dict(kept)
    told: list[Tensor] = []
    found = torch.zeros(len(layers), heads)
    width = q.module.config.n_embd // heads
    own = slice(HEAD * width, (HEAD + 1) * width)

    def hold(module: nn.Module, value: Tensor) -> Callable:
        return lambda: module.register_forward_pre_hook(lambda m, a: (value,))

    def hear(m: nn.Module, args: tuple, out: Tensor) -> None:
        told.append(out[..., own].clone())

    def tell(m: nn.Module, args: tuple, out: Tensor) -> Tensor:
        made = out.clone()
        made[..., own] = told[-1]
        return made

    receiver = layers[LAYER].attn.c_attn
    for layer in range(len(layers)):
        for head in range(heads):
            sender, part = layers[layer].attn.c_proj, slice(head * width, (head + 1) * width)
            mixed = corrupt[sender].clone()
            mixed[..., part] = clean[sender][..., part]
            frozen = [hold(m, mixed if m is sender else corrupt[m]) for m in places]
            run(q.corrupt, *frozen, lambda: receiver.register_forward_hook(hear))
            found[layer, head] = run(q.corrupt, lambda: receiver.register_forward_hook(tell)) - base
    return found


def ours(q: Question) -> Tensor:
    """Patchclamp's answer to the same."""
    metric = pc.logit_diff(q.up, q.down)
    return paths(opened(q.module), q.clean, q.corrupt, "blocks.*.attn.z[head=*]", RECEIVER, metric).values


def lens(q: Question) -> Tensor:
    """TransformerLens, from the last head before the receiver's layer to all 36 later ones: (layer, head)."""
    model = peers.bridge(q.module)
    with torch.no_grad():
        caches = [
            model.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_z"))[1] for ids in (q.clean, q.corrupt)
        ]
        base = q.measure(model(q.corrupt))[0]
        found = patching.get_act_patch_direct_path(model, q.corrupt, *caches, lambda logits: q.measure(logits)[0],
                                                   LAYER - 1, 11, "q", verbose=False)  # fmt: skip
    return found - base


def race(clock: Clock, rounds: int) -> Iterator[Line]:
    """The row: how many times as long the naive loop takes, and whether both say the same."""
    q = Question.on(sharp())
    answers: dict[str, Tensor] = {}
    contenders = {name: (lambda name=name, ask=ask: answers.update({name: ask(q)}))
                  for name, ask in (("Patchclamp", ours), ("naive", naive), ("TransformerLens", lens))}  # fmt: skip
    found = alternate(contenders, rounds, timing(clock), warm=0)
    what = f"path patching, 144 heads to the query of head {LAYER}.{HEAD}"
    yield Line(what, "Hugging Face, two passes a pair / Patchclamp", found.ratio("naive", "Patchclamp"), ">= 8")
    pair = Spread.of(
        [t / 36 / (u / 108) for t, u in zip(*(found.measured["seconds"][n] for n in ("TransformerLens", "Patchclamp")))]
    )
    yield Line(what, "TransformerLens, a pair / Patchclamp, a pair", pair, aside="108 heads lie before the receiver")
    largest = float(answers["naive"].abs().max())
    error = Spread.of([float((answers["Patchclamp"] - answers["naive"]).abs().max()) / largest])
    yield Line(f"{what}, greatest error", "|Patchclamp - plain hooks| / largest effect", error, "<= 1e-4", "", answer=True,
               aside=f"the largest is {largest / abs(q.gap):.1%} of the gap")  # fmt: skip
    fine = Question.on(
        copy.deepcopy(q.module).double()
    )  # in single precision so sharp a model says the same to two digits only
    told, mine = lens(fine)[LAYER, HEAD], ours(fine)[LAYER - 1, 11]
    far = Spread.of([abs(float(told - mine)) / abs(float(told))])
    yield Line(f"{what}, one pair", "|Patchclamp - TransformerLens| / effect, float64", far, "<= 1e-4", "", answer=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wall", action="store_true", help="wall time with two threads, for a quiet machine")
    said = parser.parse_args()
    lines = list(race(WALL if said.wall else CPU, said.rounds))
    Console(width=None if sys.stdout.isatty() else 170).print(table([(line, None) for line in lines]))
    sys.exit(any(line.answer and line.met is False for line in lines))


if __name__ == "__main__":
    main()
