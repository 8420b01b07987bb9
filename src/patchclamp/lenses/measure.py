"""What tuned lenses do on small models, with their controls, seed by seed.

python -m patchclamp.lenses.measure [--steps 250] [--seeds 3] [--stories FOLDER] [--only PART]...

town       every layer's distance from the output in bits, the logit lens beside; the same for a model that writes its own
           text (`--stories`, a folder of any small model)
transfer   a lens of an earlier checkpoint, and one of the shipped model, on each of the town's checkpoints
basis      do directions that matter to the lens matter to the model; random directions beside
orders     an order slipped into a question, told by the trajectory, by the output alone; innocent sentences beside
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import patchclamp as pc
from patchclamp.core.grid import Grid
from patchclamp.lenses.anomaly import detect, trajectory
from patchclamp.lenses.causal_basis import alignment, causal_basis, faithfulness, influences, random_basis
from patchclamp.lenses.translator import Translator
from patchclamp.lenses.tuned import TunedLens
from patchclamp.lenses.tuning import adam
from patchclamp.model.model import Model
from patchclamp.specimens.town import orders
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as world_of

FAST = partial(adam, rate=1e-2)
show = Console(width=150).print


def texts(name: str, count: int) -> list[str]:
    """Some documents of the town."""
    return list(islice(documents(world_of(0), name), count))


def trained(model: Model, steps: int, seed: int = 0) -> TunedLens:
    """A lens trained on documents that no other part of this file reads."""
    return TunedLens.train(model, documents(world_of(0), f"lens {seed}"), steps, 16, FAST, 0.1)


def rows(title: str, grid: Grid, more: str = "") -> None:
    """One line a lens."""
    made = Table("", *grid.words("layer"), title=title, caption=more)
    for lens in grid.words("lens"):
        made.add_row(f"{lens} lens, bits", *(f"{v:.3f}" for v in grid.at(lens=lens).values))
        made.add_row("  bias", *(f"{v:.3f}" for v in grid.at(lens=lens).details["bias"]), style="dim")
    show(made)


def line(title: str, name: str, values: list[float]) -> None:
    """One number a layer."""
    show(f"{title:34} {name:28} " + "  ".join(f"{v:7.3f}" for v in values))


def town(steps: int, seeds: int, stories: Path | None) -> None:
    """Distances, layer by layer."""
    model, held = pc.load("specimen:town"), texts("held out", 100)
    for seed in range(seeds):
        grid = trained(model, steps, seed).evaluate(model, held)
        own = grid.at(lens="tuned").values
        ends = {k: torch.quantile(grid.interval().values[i, 1] / own, 0.5) for i, k in enumerate(("low", "high"))}
        rows(f"town, seed {seed}", grid, f"intervals reach from {ends['low']:.0%} to {ends['high']:.0%} of each figure")
    if stories is None:
        return
    writer = pc.load(str(stories))
    for seed in range(seeds):
        torch.manual_seed(seed)
        start = torch.full((192, 1), writer.tokenizer.bos_token_id)
        written = writer.generate(start, 100, do_sample=True, eos_token_id=None).tokens
        lens = TunedLens.train(writer, written[:128], steps, 16, FAST, 0.1)
        rows(f"{writer.name}, on its own text, seed {seed}", lens.evaluate(writer, written[128:]))


def transfer(steps: int, seeds: int, stories: Path | None) -> None:
    """A lens on a model that was trained less, or further."""
    names = ("specimen:town/step-0600", "specimen:town/step-1600", "specimen:town")
    models, held = [pc.load(n) for n in names], texts("held out", 60)
    lenses = [trained(m, steps) for m in models]
    for name, model in zip(names, models):
        line(f"on {name}", "logit lens", TunedLens.untrained(model).evaluate(model, held).values[0].tolist())
        for other, lens in zip(names, lenses):
            line(f"on {name}", f"of {other}", lens.evaluate(model, held).values[1].tolist())


def basis(steps: int, seeds: int, stories: Path | None) -> None:
    """Causal basis extraction."""
    model = pc.load("specimen:town")
    lenses: dict[str, Translator | None] = {"tuned": trained(model, steps), "logit": None}
    for seed in range(seeds):
        seen, fresh = texts(f"basis {seed}", 16), texts(f"basis, fresh {seed}", 16)
        for name, lens in lenses.items():
            found, random = causal_basis(model, seen, 12, lens), random_basis(model, 12, seed)
            for which, some in ((f"{name} lens's directions", found), ("random directions", random)):
                grid = influences(model, fresh, some, lens)
                line(f"seed {seed}, influence on lens", which, grid.at(on="lens").values.mean(-1).tolist())
                line(f"seed {seed}, influence on model", which, grid.at(on="model").values.mean(-1).tolist())
                line(f"seed {seed}, Spearman", which, faithfulness(grid).values.tolist())
                line(f"seed {seed}, alignment", which, alignment(model, fresh, some, lens).values.tolist())


def injections(steps: int, seeds: int, stories: Path | None) -> None:
    """Orders, foreign passages and innocent sentences."""
    model, world = pc.load("specimen:town"), world_of(0)
    lenses: dict[str, Translator | None] = {"tuned": trained(model, steps), "logit": None}
    for seed in range(seeds):
        items = orders.questions(world, 300, seed)
        calm, rest = items[:200], items[200:]
        suspects = {"order": orders.ordered(rest, seed), "foreign passage": orders.foreign(rest, seed),
                    "innocent sentence": orders.innocent(world, rest, seed)}  # fmt: skip
        for kind, prompts in suspects.items():
            said = model.run(prompts).next().values.argmax(-1).tolist()
            right = sum(a == model.token(item.answer) for a, item in zip(said, rest))
            for name, lens in lenses.items():
                grid = detect(trajectory(model, orders.ordinary(calm, seed), lens), trajectory(model, prompts, lens))
                for detector in grid.words("detector"):
                    at = grid.at(detector=detector)
                    cells = [f"{f} {v:.3f} ({low:.3f}-{high:.3f})" for f, v, low, high in
                             zip(at.words("features"), at.values, at.details["low"], at.details["high"])]  # fmt: skip
                    show(f"seed {seed}  {kind} ({right} of {len(rest)} right)  {name} lens, {detector}: {'; '.join(cells)}")


PARTS: dict[str, Callable[[int, int, Path | None], None]] = {
    "town": town, "transfer": transfer, "basis": basis, "orders": injections,
}  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stories", type=Path, help="a folder of a small model that is to write its own text")
    parser.add_argument("--only", action="append", choices=list(PARTS))
    said = parser.parse_args()
    for part in said.only or PARTS:
        PARTS[part](said.steps, said.seeds, said.stories)


if __name__ == "__main__":
    main()
