"""Training a tuned lens beside the `tuned-lens` package: tokens a second, the loss that is reached, and each other's files.

    python -m bench.tuned --python INTERPRETER [--only NAME]... [--wall] [--quick] [--json FILE]

INTERPRETER has the package (see `tuned_child.py`). Both train on the same batches with the same optimizer (Nesterov's, the
package's default) and schedule; the clock runs over the training loop alone, each in a process of its own, in turns, and
ratios are taken within a round. The package reads its lenses in bfloat16; ours are shown in that and in single precision, and
the package without its autocast. `town` is small: a third of a step is the model's own pass, which both make alike. `words` has
GPT-2's vocabulary, where the unembedding is what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from transformers import GPT2Config

import patchclamp as pc
from bench import models
from bench.clock import Race, Spread, alternate, process
from bench.table import VERSIONS, Line, plain, table
from patchclamp.lenses import tuned_format
from patchclamp.specimens.town.recipe import Recipe, batch
from patchclamp.specimens.town.world import town as world_of

US, PEER = "Patchclamp", "tuned-lens"
HERE = Path(__file__).parent
CONTENDERS = {f"{US} bfloat16": "bfloat16", f"{US} float32": "float32", PEER: "", f"{PEER} float32": "float32"}


@cache
def folder() -> Path:
    """Where models and batches lie while this runs."""
    made = tempfile.TemporaryDirectory(prefix="patchclamp-tuned-")
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory] = []


@cache
def town(steps: int = 24) -> tuple[Path, int]:
    """The town, 16 rows of 128 tokens a step."""
    model, at = pc.load("specimen:town"), folder() / "town"
    model.hf.save_pretrained(at)  # type: ignore[operator]
    torch.save(
        torch.stack([batch(world_of(0), model.tokenizer, Recipe(), 10_000 + s)[:16] for s in range(steps)]), at / "batches.pt"
    )
    return at, steps


@cache
def words(steps: int = 3) -> tuple[Path, int]:
    """Four layers, width 256, GPT-2's vocabulary; one row of 512 tokens a step. Untrained, with a sharpened unembedding."""
    module = models._built(GPT2Config(n_layer=4, n_embd=256, n_head=4, bos_token_id=1, eos_token_id=2))
    with torch.no_grad():
        module.get_input_embeddings().weight.mul_(3)  # tied: its answers are then not all alike
    at = folder() / "words"
    module.save_pretrained(at)  # type: ignore[operator]
    torch.save(torch.stack([models.prompt(module, 1, 512, s) for s in range(steps)]), at / "batches.pt")
    return at, steps


def race(at: Path, steps: int, python: str, rounds: int, threads: int) -> Race:
    """All contenders, in turns."""
    commands = {}
    for name, precision in CONTENDERS.items():
        if name.startswith(US):
            commands[name] = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "bench.tuned",
                "--child",
                str(at),
                str(steps),
                str(threads),
                precision,
            ]
        else:
            child = [
                python,
                "-W",
                "ignore",
                str(HERE / "tuned_child.py"),
                str(at),
                str(folder() / "peer"),
                str(steps),
                str(threads),
            ]
            commands[name] = [*child, precision] if precision else child
    return alternate(commands, rounds, process, warm=0)


def training(name: str, made: Callable[[], tuple[Path, int]], python: str, share: float, wall: bool) -> Iterator[Line]:
    """Tokens a second, and the loss after the last step."""
    at, steps = made()
    clock, threads = ("wall", 2) if wall else ("cpu", 1)
    run = race(at, steps, python, max(round(5 * share), 2), threads)
    what = f"training a lens, {name}"
    yield Line(what, f"{PEER} / {US}, both bfloat16", run.ratio(PEER, f"{US} bfloat16", clock), ">= 1.5")
    yield Line(what, f"{PEER} / {US}, both float32", run.ratio(f"{PEER} float32", f"{US} float32", clock), ">= 1.5")
    yield Line(what, f"{PEER} as it is / {US} float32", run.ratio(PEER, f"{US} float32", clock))
    for own, other in ((f"{US} bfloat16", PEER), (f"{US} float32", f"{PEER} float32")):
        apart = run.gap(own, other, "loss")
        gap = Spread.of([abs(apart.median) / run.measured["loss"][other][0]])
        yield Line(f"{what}, loss", f"|{own} - {other}| / loss", gap, "<= 0.001", "", answer=True)


def files(python: str) -> Iterator[Line]:
    """The package opens a lens of ours and reads the same with it; we open what it saves."""
    at, _ = town()
    model = pc.load(str(at))
    batches = torch.load(at / "batches.pt", weights_only=True)
    lens = pc.TunedLens.train(model, iter(batches[:4]), steps=4, batch=16)
    ours, theirs = tuned_format.write(lens, folder() / "ours", model), folder() / "theirs"
    command = [python, "-W", "ignore", str(HERE / "tuned_child.py"), "--read", str(at), str(ours), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    warned = Spread.of([float("does not match" in done.stderr)])
    said = torch.load(theirs / "logits.pt", weights_only=True)
    run = model.run(batches[0, :2, :64], keep="blocks.*.in")
    end = lambda h: model.hf.lm_head(model.hf.model.norm(h))  # noqa: E731  # type: ignore[operator]
    with torch.no_grad():
        own = torch.stack([end(lens(path, run[path])) for path in run.sites])
    again = tuned_format.read(theirs)
    back = max(float((again.weight - lens.weight).abs().max()), float((again.bias - lens.bias).abs().max()))
    apart = Spread.of([float((said - own).abs().max())])
    yield Line("files, ours in the package", "greatest difference of a logit", apart, "<= 1e-4", "", answer=True)
    yield Line("files, ours in the package", "warnings about the unembedding", warned, "<= 0", "", answer=True)
    yield Line("files, the package's in ours", "greatest difference of a weight", Spread.of([back]), "<= 0", "", answer=True)


def child(at: str, steps: str, threads: str, precision: str) -> None:
    """Our training, in a process of its own."""
    torch.set_num_threads(int(threads))
    model = pc.load(at)
    batches = torch.load(Path(at, "batches.pt"), weights_only=True)[: int(steps)]
    model.run(batches[0])
    assert model.layers  # the anatomy is read once a model; it is not training
    cpu, wall = time.process_time(), time.perf_counter()
    lens = pc.TunedLens.train(model, iter(batches), int(steps), batches.shape[1], precision=getattr(torch, precision))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert lens.history is not None
    print(json.dumps({"cpu": cpu, "wall": wall, "loss": float(lens.history[-1].sum())}))


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", required=True, help="an interpreter that has the tuned-lens package")
    parser.add_argument("--only", action="append", choices=["files", "town", "words"], metavar="NAME")
    parser.add_argument("--wall", action="store_true", help="wall time with two threads; for a quiet machine")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number to a file")
    said = parser.parse_args()
    rows: dict[str, Callable[[], Iterator[Line]]] = {
        "files": lambda: files(said.python),
        "town": lambda: training("town", town, said.python, 0.4 if said.quick else 1.0, said.wall),
        "words": lambda: training("50k words", words, said.python, 0.4 if said.quick else 1.0, said.wall),
    }
    lines = [line for name in said.only or rows for line in rows[name]()]
    Console(width=None if sys.stdout.isatty() else 170).print(table([(line, None) for line in lines]))
    if said.json:
        said.json.write_text(json.dumps({"versions": VERSIONS, "lines": [plain(line, None) for line in lines]}, indent=2))
    sys.exit(any(line.answer and line.met is False for line in lines))


if __name__ == "__main__":
    main()
