"""Probes on 100,000 activations of width 768, streamed from disk: the peak memory of the process, and agreement with memory.

    python -m bench.probes            writes the activations to a temporary folder (300 MB), fits, measures; about two minutes
    python -m bench.probes --rows 20000

Each fit runs in a process of its own, whose peak resident memory (VmHWM) includes Python, torch and scikit-learn. The fit in
memory is scikit-learn's, on the same rows. Labels are what a random direction says, with noise, in four classes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from patchclamp.probe import linear, stream

WIDTH, CLASSES, SHARD = 768, ("a", "b", "c", "d"), 10_000
TOLERANCE = 1e-6
"""Of both logistic fits: how small the gradient of the mean loss is to be."""


def drawn(rows: int, seed: int):
    """Shards of correlated activations with a large mean, and labels that are mostly readable."""
    fixed = torch.Generator().manual_seed(0)
    mix = torch.randn(WIDTH, WIDTH, generator=fixed) / WIDTH**0.5 + torch.eye(WIDTH)
    mean, means = 5 * torch.randn(WIDTH, generator=fixed), torch.randn(WIDTH, len(CLASSES), generator=fixed) / WIDTH**0.5
    chosen = torch.Generator().manual_seed(1 + seed)
    for start in range(0, rows, SHARD):
        n = min(SHARD, rows - start)
        x = torch.randn(n, WIDTH, generator=chosen)
        y = (x @ means + 0.5 * torch.randn(n, len(CLASSES), generator=chosen)).argmax(1)
        yield x @ mix + mean, [CLASSES[i] for i in y]


def child(kind: str, folder: Path) -> None:
    """One fit, and what it took."""
    torch.set_num_threads(1)
    began = time.monotonic()
    stored = stream.Shards.open(folder / "train")
    before = _peak()
    if kind.endswith("streamed"):
        probe = stream.ridge(stored) if kind.startswith("ridge") else stream.logistic(stored, tolerance=TOLERANCE)
    else:
        parts = list(stored.batches())
        x = torch.cat([x for x, _ in parts])
        labels = [stored.classes[i] for _, y in parts for i in y.tolist()]
        probe = linear.ridge(x, labels) if kind.startswith("ridge") else linear.logistic(x, labels, tolerance=TOLERANCE)
    seconds, peak = time.monotonic() - began, _peak()
    score = stream.accuracy(probe, stream.Shards.open(folder / "test"))
    probe.save(folder / kind.replace(" ", "-"))
    said = {"before": before, "peak": peak, "seconds": seconds, "accuracy": score}
    print(json.dumps({**said, "loss": penalised(probe, stored), "readings": probe.fitted.get("readings", 0)}))


def penalised(probe, stored: stream.Shards, penalty: float = 1.0) -> float:
    """What a logistic probe makes small: the mean loss, classes weighing alike, and the penalty."""
    total, count = torch.zeros(len(CLASSES), dtype=torch.float64), torch.zeros(len(CLASSES))
    for x, y in stored.batches():
        said = probe.log_probabilities(x)[range(len(y)), y].double()
        total.index_add_(0, y, said)
        count += torch.bincount(y, minlength=len(CLASSES))
    return float(-(total / count).mean() + penalty / 2 * probe.layers[0][0].double().square().sum() / len(stored))


def _peak() -> float:
    """MiB. Not `ru_maxrss`, which a child begins with its parent's."""
    said = Path("/proc/self/status").read_text()
    return int(said.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    from patchclamp.probe.fitted import Probe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stream.Shards.write(folder / "train", drawn(options.rows, 0), CLASSES)
        stream.Shards.write(folder / "test", drawn(10_000, 1), CLASSES)
        print(f"{options.rows} rows of {WIDTH} numbers, {options.rows * WIDTH >> 18} MiB on disk, {len(CLASSES)} classes")
        print(f"{'':22}peak MiB   before   seconds   balanced accuracy on 10,000 other rows")
        for kind in ("ridge streamed", "ridge in memory", "logistic streamed", "logistic in memory"):
            said = subprocess.run([sys.executable, "-m", "bench.probes", "--child", kind, name], capture_output=True, text=True)
            if said.returncode:
                sys.exit(said.stderr)
            own = json.loads(said.stdout.splitlines()[-1])
            print(f"{kind:22}{own['peak']:8.0f} {own['before']:8.0f} {own['seconds']:9.1f}   {own['accuracy']:.4f}"
                  + (f"   loss {own['loss']:.7f}" if "logistic" in kind else "")
                  + (f", {own['readings']} readings" if own["readings"] else ""), flush=True)  # fmt: skip
        test = torch.cat([x for x, _ in stream.Shards.open(folder / "test").batches()])
        for kind in ("ridge", "logistic"):
            one, other = (Probe.load(folder / f"{kind}-{how}") for how in ("streamed", "in-memory"))
            same = sum(a == b for a, b in zip(one.predict(test), other.predict(test))) / len(test)
            cosine = torch.cosine_similarity(one.direction.flatten(), other.direction.flatten(), dim=0)
            print(
                f"{kind}: streamed and in memory name the same class for {same:.2%} of other rows; cosine {float(cosine):.6f}"
            )


if __name__ == "__main__":
    main()
