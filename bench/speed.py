"""How fast: Patchclamp beside plain Hugging Face, TransformerLens, nnsight and interpkit, row by row, with the targets.

    python -m bench.speed [--only NAME]... [--wall] [--quick] [--json FILE]

Every line is a fraction: "a / b" is the time of a over the time of b in the same round (see `clock.py`). Lines of Patchclamp
have a target; the other lines say where peers stand on the same thing. A missed target is only told, since a machine may be
to blame; an answer that is not that of the plain way is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from rich.console import Console
from torch import Tensor

import patchclamp as pc
from bench import models, peers
from bench.clock import CPU, WALL, Clock, Race, Spread, alternate, process, script, timing
from bench.question import Question, forward, opened
from bench.table import VERSIONS, Line, plain, table

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("PATCHCLAMP_SHARED", HERE.parents[1] / "shared"))
RESIDUAL = ("blocks.*.in", "blocks.*.mid", "blocks.*.out")
US, HF, TL, NN = "Patchclamp", "Hugging Face", "TransformerLens", "nnsight"
note = Console(stderr=True).print


@dataclass(frozen=True)
class Track:
    """Where contenders race: the clock, and how many rounds are run of those a row asks for."""

    clock: Clock
    share: float = 1.0

    def rounds(self, asked: int) -> int:
        return max(round(asked * self.share), 2)

    def functions(self, contenders: Mapping[str, Callable[[], Any]], rounds: int, calls: int = 1, warm: int = 1) -> Race:
        return alternate(contenders, self.rounds(rounds), timing(self.clock, calls), warm)

    def processes(self, contenders: Mapping[str, list[str]], rounds: int) -> Race:
        """Processes are clocked from outside: `cpu` or `wall` is what this track calls seconds."""
        race = alternate(contenders, self.rounds(rounds), process)
        return Race({**race.measured, "seconds": race.measured["cpu" if self.clock is CPU else "wall"]})


# ---- the rows ----------------------------------------------------------------------------------------------------


def bare(track: Track) -> Iterator[Line]:
    """A pass with nothing asked for."""
    for name, module, batch, length, rounds in (
        ("GPT-2 small 4x128", models.gpt2_small(), 4, 128, 9),
        ("Llama-like 1x128", models.llama_like(), 1, 128, 15),
    ):
        ids, ours = models.prompt(module, batch, length), opened(module)
        race = track.functions(
            {
                US: lambda ours=ours, ids=ids: ours.run(ids),
                HF: lambda module=module, ids=ids: forward(module, ids),
                "itself": lambda module=module, ids=ids: forward(module, ids),
                NN: lambda module=module, ids=ids: peers.insight_run(peers.insight(module), ids),
                TL: lambda module=module, ids=ids: quiet(peers.bridge(module), ids),
            },
            rounds,
        )
        yield Line(f"bare run, {name}", f"{US} / {HF}", race.ratio(US, HF), "<= 1.02")
        yield Line(f"bare run, {name}", f"{HF} / itself", race.ratio("itself", HF), aside="the noise of this clock")
        yield from beside(f"bare run, {name}", race, (NN, TL))


def overhead(track: Track) -> Iterator[Line]:
    """What a call costs by itself: a model so small that nothing else counts."""
    module = models.tiny()
    ids, ours = models.prompt(module, 1, 16), opened(module)
    race = track.functions(
        {
            US: lambda: ours.run(ids),
            f"{US}, residual kept": lambda: ours.run(ids, keep=RESIDUAL),
            HF: lambda: forward(module, ids),
            NN: lambda: peers.insight_run(peers.insight(module), ids),
            TL: lambda: quiet(peers.bridge(module), ids),
        },
        rounds=21,
        calls=100,
    )
    what = "bare run, tiny 1x16"
    yield Line(what, f"{US} - {HF}", race.gap(US, HF).scaled(1e3), "<= 0.15", "ms")
    yield Line(what, f"{US} / {HF}", race.ratio(US, HF))
    yield Line(f"{what}, 6 sites kept", f"{US} - {HF}", race.gap(f"{US}, residual kept", HF).scaled(1e3), unit="ms")
    for peer in (NN, TL):
        yield Line(what, f"{peer} - {HF}", race.gap(peer, HF).scaled(1e3), unit="ms")


def residual(track: Track) -> Iterator[Line]:
    """Every place of the residual stream is kept."""
    module = models.gpt2_small()
    ids, ours = models.prompt(module, 4, 128), opened(module)
    race = track.functions(
        {
            US: lambda: ours.run(ids, keep=RESIDUAL),
            HF: lambda: forward(module, ids),
            NN: lambda: peers.insight_kept(peers.insight(module), ids),
            TL: lambda: cached(peers.bridge(module), ids, lambda name: name.endswith(peers.STREAMS)),
        },
        rounds=9,
    )
    what = "36 residual sites kept, 4x128"
    yield Line(what, f"{US} / {HF}", race.ratio(US, HF), "<= 1.03")
    yield from beside(what, race, (NN, TL))


def pattern(track: Track) -> Iterator[Line]:
    """One layer's attention pattern at 1024 tokens."""
    module = models.gpt2_small()
    ids, ours = models.prompt(module, 1, 1024), opened(module)
    race = track.functions(
        {
            US: lambda: ours.run(ids, keep="blocks.6.attn.pattern"),
            HF: lambda: forward(module, ids),
            "Hugging Face eager": lambda: forward(peers.eager(module), ids, output_attentions=True),
            TL: lambda: cached(peers.bridge(module), ids, ["blocks.6.attn.hook_pattern"]),
        },
        rounds=5,
    )
    what = "one pattern of 12 layers, 1x1024"
    yield Line(what, f"{US} / {HF}", race.ratio(US, HF), "<= 1.06")
    yield from beside(what, race, ("Hugging Face eager", TL))


def load(track: Track) -> Iterator[Line]:
    """Opening a saved GPT-2 small (498 MB) in a fresh process."""
    folder, child = str(models.saved_gpt2_small()), [sys.executable, str(HERE / "child.py")]
    who = {US: "patchclamp", HF: "hugging-face", TL: "transformer-lens"}
    for how, what, target in (("open", "load", "<= 1.1"), ("look", "load and a first look", "")):
        race = track.processes({name: [*child, own, folder, how] for name, own in who.items()}, rounds=5)
        yield Line(f"{what}, the call", f"{US} / {HF}", race.ratio(US, HF, "call"), target)
        yield Line(f"{what}, whole process", f"{US} / {HF}", race.ratio(US, HF), target)
        yield Line(f"{what}, peak memory", f"{US} / {HF}", race.ratio(US, HF, "peak"), target)
        yield Line(f"{what}, the call", f"{US} - {HF}", race.gap(US, HF, "call").scaled(1e3), unit="ms")
        yield Line(f"{what}, the call", f"{TL} / {HF}", race.ratio(TL, HF, "call"))
        yield Line(f"{what}, peak memory", f"{TL} / {HF}", race.ratio(TL, HF, "peak"))


def streams(track: Track) -> Iterator[Line]:
    """Exact patching of every block's output at every position, 12 x 15 cells."""
    q = Question.on(models.gpt2_small())
    lens, insight, rest = peers.bridge(q.module), peers.insight(q.module), (q.clean, q.corrupt, q.measure)
    contenders = {
        US: lambda: q.effects("blocks.*.out[pos=*]"),
        TL: lambda: peers.lens_streams(lens, *rest),
        NN: lambda: peers.insight_streams(insight, *rest),
        "nnsight, lean": lambda: peers.insight_streams(insight, *rest, first=q.first, lean=True),
    }
    race, answers = answered(track, contenders, rounds=3)
    what = "residual sweep 12x15"
    yield Line(what, f"{TL} / {US}", race.ratio(TL, US), ">= 15")
    yield Line(what, f"nnsight, 15 rows a layer / {US}", race.ratio(NN, US), ">= 3.5")
    yield Line(what, f"nnsight, 11 rows, last logits only / {US}", race.ratio("nnsight, lean", US),
               aside="no-op rows and logits left out by hand")  # fmt: skip
    yield from q.agreement(what, answers, peers.patch_streams_one_by_one(q.module, *rest))


def streams_llama(track: Track) -> Iterator[Line]:
    """The same on rotary positions, grouped queries and a gated MLP."""
    q = Question.on(models.llama_like())
    rest = (q.clean, q.corrupt, q.measure)
    contenders = {
        US: lambda: q.effects("blocks.*.out[pos=*]"),
        NN: lambda: peers.insight_streams(peers.insight(q.module), *rest),
    }
    race, answers = answered(track, contenders, rounds=3)
    what = "residual sweep 12x15, Llama-like"
    yield Line(what, f"nnsight, 15 rows a layer / {US}", race.ratio(NN, US))
    yield from q.agreement(what, answers, peers.patch_streams_one_by_one(q.module, *rest))


def heads(track: Track) -> Iterator[Line]:
    """Exact patching of every head's output, 12 x 12 cells."""
    q = Question.on(models.gpt2_small())
    lens, insight, rest = peers.bridge(q.module), peers.insight(q.module), (q.clean, q.corrupt, q.measure)
    contenders = {
        US: lambda: q.effects("blocks.*.attn.z[head=*]"),
        TL: lambda: peers.lens_heads(lens, *rest),
        NN: lambda: peers.insight_heads(insight, *rest, heads=12),
    }
    race, answers = answered(track, contenders, rounds=3)
    what = "head sweep, 144 cells"
    yield Line(what, f"{TL} / {US}", race.ratio(TL, US), ">= 9")
    yield Line(what, f"nnsight, 12 rows a layer / {US}", race.ratio(NN, US))
    yield from q.agreement(what, answers, peers.patch_heads_one_by_one(q.module, *rest))


def attribution(track: Track) -> Iterator[Line]:
    """Every cell at once, to first order, in units of one plain forward."""
    q = Question.on(models.gpt2_small())
    lens, rest, hand = peers.bridge(q.module), (q.clean, q.corrupt, q.measure), "by hand"
    contenders = {
        US: lambda: q.effects("blocks.*.out[pos=*]", estimate=pc.gradient),
        "forward": lambda: forward(q.module, q.corrupt),
        hand: lambda: peers.attribute_by_hand(q.module, *rest),
        TL: lambda: peers.lens_attribution(lens, *rest),
    }
    race = track.functions(contenders, rounds=15)
    what = "attribution patching 12x15"
    yield Line(what, f"{US} / a {HF} forward", race.ratio(US, "forward"), "<= 3.2")
    yield Line(what, f"{HF} by hand / a {HF} forward", race.ratio(hand, "forward"), aside="two forwards, one backward")
    yield Line(what, f"{TL} / a {HF} forward", race.ratio(TL, "forward"))
    yield from q.agreement(what, {name: contenders[name]() for name in (US, TL)}, contenders[hand]())


def generation(track: Track) -> Iterator[Line]:
    """Greedy generation of 32 tokens with a vector added to a block at every one."""
    module, layer, tokens = models.gpt2_small(), 6, 32
    ids, vector = models.prompt(module, 1, 16), torch.randn(768, generator=torch.Generator().manual_seed(1))
    steered, lens, insight = opened(module).edit(pc.steer("blocks.6.out", vector)), peers.bridge(module), peers.insight(module)

    @torch.no_grad()
    def plain() -> Tensor:
        return module.generate(ids, max_new_tokens=tokens, do_sample=False)

    contenders = {
        US: lambda: steered.generate(ids, tokens).tokens,
        HF: plain,
        "hook": lambda: peers.steered_by_hand(module, layer, vector, plain),
        NN: lambda: peers.insight_generation(insight, ids, tokens, layer, vector),
        TL: lambda: peers.lens_generation(lens, ids, tokens, layer, vector),
    }
    race = track.functions(contenders, rounds=5)
    what = "steered generation, 16 + 32 tokens"
    yield Line(what, f"{US} / {HF}, not steered", race.ratio(US, HF), "<= 1.05")
    yield Line(what, f"{HF} with a hook / {HF}, not steered", race.ratio("hook", HF))
    yield from beside(what, race, (NN, TL))
    truth = contenders["hook"]()
    for name in (US, NN, TL):
        differ = Spread.of([float((contenders[name]() != truth).sum())])
        target = "<= 0" if name == US else ""
        yield Line(f"{what}, tokens that differ", f"{name} beside a plain hook", differ, target, "", answer=True)


def imports(track: Track) -> Iterator[Line]:
    """What importing costs, in fresh interpreters; `pass` is Python itself."""
    told = "; import sys, json; print(json.dumps({'torch': 'torch' in sys.modules}))"
    code = {
        "pass": "pass",
        US: "import patchclamp",
        "pc.load": "import patchclamp as pc; pc.load",
        "torch": "import torch",
        "torch and transformers": "import torch, transformers",
        NN: "import nnsight",
        TL: "from transformer_lens.model_bridge import TransformerBridge",
    }
    race = track.processes({name: script(said + told) for name, said in code.items()}, rounds=5)
    loaded = max(race.measured["torch"][US])
    yield Line("import patchclamp", f"{US} - Python itself", race.gap(US, "pass").scaled(1e3), unit="ms",
               aside="loads torch" if loaded else "loads no torch")  # fmt: skip
    yield Line("import patchclamp", "modules of torch loaded", Spread.of([loaded]), "<= 0", unit="")
    yield Line("the name pc.load", "pc.load - import torch", race.gap("pc.load", "torch").scaled(1e3), "<= 150", "ms")
    yield Line("the name pc.load", "pc.load - import torch, transformers",
               race.gap("pc.load", "torch and transformers").scaled(1e3), unit="ms")  # fmt: skip
    for name, said in ((NN, "import nnsight"), (TL, "import TransformerBridge")):
        yield Line(said, f"{name} - import torch", race.gap(name, "torch").scaled(1e3), unit="ms")


def examine(track: Track) -> Iterator[Line]:
    """A whole report on a real model, from the shell."""
    model, text = SHARED / "models" / "stories260K", "Once upon a time, there was a little girl named"
    if not model.is_dir():
        note(f"[bold red]skipped: no checkpoint at {model}; set PATCHCLAMP_SHARED to the folder that holds models/[/]")
        return
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "patchclamp.html"), Path(folder, "interpkit.html")
        race = track.processes(
            {
                US: [str(scripts / "patchclamp"), "examine", str(model), text, "--out", str(ours)],
                "interpkit": [str(scripts / "interpkit"), "report", str(model), text, "--save", str(theirs)],
            },
            rounds=5,
        )
        sizes = f"pages of {ours.stat().st_size // 1000} and {theirs.stat().st_size // 1000} kB"
    yield Line("report on stories260K, whole process", f"{US} / interpkit", race.ratio(US, "interpkit"), "<= 1.2", aside=sizes)


ROWS: dict[str, Callable[[Track], Iterator[Line]]] = {
    row.__name__: row
    for row in (
        bare, overhead, residual, pattern, load, streams, streams_llama, heads, attribution, generation, imports, examine,
    )
}  # fmt: skip


# ---- what they share ---------------------------------------------------------------------------------------------


@torch.no_grad()
def quiet(model: Any, ids: Tensor) -> Tensor:
    """TransformerLens with nothing asked for."""
    return model(ids)


@torch.no_grad()
def cached(model: Any, ids: Tensor, names: Any) -> Any:
    """TransformerLens with some hooks kept."""
    return model.run_with_cache(ids, names_filter=names)


def beside(what: str, race: Race, names: tuple[str, ...]) -> Iterator[Line]:
    """Where peers stand on the same thing."""
    for name in names:
        yield Line(what, f"{name} / {HF}", race.ratio(name, HF))


def answered(track: Track, contenders: Mapping[str, Callable[[], Tensor]], rounds: int) -> tuple[Race, dict[str, Tensor]]:
    """A race of contenders that answer, and their last answers."""
    answers: dict[str, Tensor] = {}

    def keeping(name: str, ask: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: answers.update({name: ask()})

    race = track.functions({name: keeping(name, ask) for name, ask in contenders.items()}, rounds, warm=0)
    return race, answers


# ---- the command line --------------------------------------------------------------------------------------------


def run(names: list[str], wall: bool, share: float) -> list[tuple[Line, Line | None]]:
    """The rows asked for: each line by CPU time and, where asked, by wall time."""
    found: list[tuple[Line, Line | None]] = []
    for n, name in enumerate(names, 1):
        started = time.perf_counter()
        lines = list(ROWS[name](Track(CPU, share)))
        walls = list(ROWS[name](Track(WALL, share))) if wall else [None] * len(lines)
        found += zip(lines, walls)
        took, load = time.perf_counter() - started, os.getloadavg()[0]
        note(f"[dim]{n}/{len(names)} {name}: {took:.0f} s, load average {load:.1f}[/]")
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="NAME", help=f"one row: {', '.join(ROWS)}")
    parser.add_argument("--wall", action="store_true", help="also wall time with two threads; for a quiet machine")
    parser.add_argument("--quick", action="store_true", help="a third of the rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number to a file")
    said = parser.parse_args()
    pairs = run(said.only or list(ROWS), said.wall, 1 / 3 if said.quick else 1.0)
    Console(width=None if sys.stdout.isatty() else 170).print(table(pairs))
    if said.json:
        said.json.write_text(json.dumps({"versions": VERSIONS, "lines": [plain(*pair) for pair in pairs]}, indent=2))
    missed = sum(line.met is False for line, _ in pairs)
    note(f"{missed} of {sum(line.met is not None for line, _ in pairs)} targets missed.")
    wrong = [line for line, _ in pairs if line.answer and line.met is False]
    if wrong:
        note(f"[bold red]Answers disagree: {', '.join(line.what for line in wrong)}.[/]")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
