"""What lenses that carry a stream onwards foresee on the bundled town: Jacobian lens, future lens, learned prompt, patchscope.

    python -m bench.foresight [--texts 3000] [--steps 1000] [--seeds 3]

Everything is fitted on documents of the town and judged on others. Beside each stand what it has to beat: the logit lens and
least squares for the Jacobian lens; what the token alone says, and a lens fitted on shuffled streams, for the future lens;
the untrained prompt and another text's stream for the learned one; a prompt with nothing put in for the patchscope. Takes
some minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
from itertools import islice

import torch

import patchclamp as pc
from patchclamp.lenses.affine import Affine
from patchclamp.lenses.future import FutureLens, Rows, trained
from patchclamp.lenses.jacobian import JacobianLens
from patchclamp.lenses.patchscope import Inspection
from patchclamp.lenses.soft import SoftPrompt
from patchclamp.model.gather import every
from patchclamp.specimens.town import lexicon
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town

STORE = "When Mary and John went to the store, Mary gave a drink to"


def carried(model: pc.Model, known: list[str], fresh: list[str], seeds: int) -> None:
    """KL(output || reading) in nats, layer by layer, averaged over tokens."""

    def nats(through=None) -> str:
        found = pc.lens(model, fresh[:60], through=through).details["KL"].nanmean((1, 2))
        return "  ".join(f"{float(v):6.3f}" for v in found)

    print("KL to the output, by layer")
    print(f"  logit lens           {nats()}")
    for seed in range(seeds):
        lens = JacobianLens.of(model, known[seed * 256 : (seed + 1) * 256], tokens=128, seed=seed)
        print(f"  Jacobian lens, {seed}     {nats(lens)}")
    paths = model.places("blocks.*.out")
    streams = {p: every(model, p, known[:400]).value for p in paths}
    maps = {p: Affine.fit(streams[p], streams[paths[-1]]) for p in paths}
    print(f"  least squares        {nats(lambda path, stream: maps[path](stream))}")


def future(model: pc.Model, known: list[str], fresh: list[str], steps: int) -> None:
    """How often the model's own token is foreseen."""
    lens = FutureLens.fit(model, known, ahead=4, steps=steps)
    grid = lens.accuracy(model, fresh)
    print(f"future lens, {steps} steps: {', '.join(grid.words('reader'))}")
    for ahead, row in zip(grid.words("ahead"), grid.values):
        print(f"  {ahead}  {'  '.join(f'{float(v):.3f}' for v in row)}")
    path = "blocks.1.out"
    rows = Rows.of(model, known, [path], "blocks.3.out", 4)
    mixed = torch.randperm(rows.streams.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = dataclasses.replace(rows, streams=rows.streams[:, mixed])
    control = FutureLens({f"{path}+{n}": m for n, m in enumerate(trained(model, shuffled, shuffled.maps(), steps // 4, 0))},
                         lens.bigram, (path,), 4)  # fmt: skip
    print(f"  fitted on shuffled streams  {'  '.join(f'{float(v):.3f}' for v in control.accuracy(model, fresh).values[:, 0])}")


def prompted(model: pc.Model, known: list[str], fresh: list[str], steps: int, seeds: int) -> None:
    """The same, written by the model itself from one vector."""
    for site in ("blocks.0.out", "blocks.1.out", "blocks.2.out"):
        for seed in range(seeds):
            start = SoftPrompt.untrained(model, site, ahead=4, seed=seed)
            made = start.train(model, known, steps // 2, seed)
            for name, prompt in (("untrained", start), ("trained", made)):
                found = prompt.accuracy(model, fresh, seed).values
                this, other = ("  ".join(f"{float(v):.3f}" for v in found[:, i]) for i in (0, 1))
                print(f"learned prompt, {site}, seed {seed}, {name:9}  {this}   another text's stream  {other}")


def inspected(model: pc.Model) -> None:
    """How many of the town's names the identity patchscope says again, by layer of source and target."""
    ids = [w for w in lexicon.NAMES if w not in ("Mary", "John")]
    hits = None
    for name in ids:
        grid = Inspection(model, STORE, "blocks.*.in[pos=4]").grid(model, f"Yesterday {name} came home.", "blocks.*.in[pos=2]")
        said = torch.tensor([[w.strip() == name for w in row] for row in grid.text]).float()
        hits = said if hits is None else hits + said
    assert hits is not None
    print(f"identity patchscope, {len(ids)} names: share said again, source layer by target layer")
    for row in hits / len(ids):
        print("  " + "  ".join(f"{float(v):.3f}" for v in row))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("texts", 3000), ("steps", 1000), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    said = parser.parse_args()
    model = pc.load("specimen:town")
    texts = list(islice(documents(town(0), seed="foresight"), said.texts + 300))
    known, fresh = texts[: said.texts], texts[said.texts :]
    inspected(model)
    carried(model, known, fresh, said.seeds)
    future(model, known, fresh, said.steps)
    prompted(model, known, fresh, said.steps, said.seeds)


if __name__ == "__main__":
    main()
