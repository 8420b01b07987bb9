"""What the probes find in `town`, each with its controls: the figures that this package gives for its own probing.

    python -m bench.probing             everything, some ten minutes on one core
    python -m bench.probing erase tree  only some of: erase homograph structure tree

erase       a linear probe before and after LEACE and mean projection, and what either moves
homograph   noun or verb, the word being the same: score, control task, shuffled labels, untrained model, codelength
structure   distances in the tree against those in space; nouns only, then all words
tree        which numbers the answer needs, and which it is, from attention, in a model that finds the third smallest number
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random

import torch

import patchclamp as pc
from patchclamp.core.grid import Grid
from patchclamp.model.gather import every, gather
from patchclamp.model.untrained import untrained
from patchclamp.probe.codelength import codelengths
from patchclamp.probe.erase import inlp, leace, mean_difference, oracle, scrub
from patchclamp.probe.layers import beside, probe, selectivity
from patchclamp.probe.linear import logistic, mlp
from patchclamp.probe.smallest import LISTED, accuracy, heights, lists
from patchclamp.probe.structural import corpus, structure
from patchclamp.probe.tree import tree
from patchclamp.specimens.town import tasks
from patchclamp.specimens.town.homographs import homographs
from patchclamp.specimens.town.world import town


def written(name: str, grid: Grid) -> None:
    """A line of numbers for each row of a grid, layers across."""
    rows = grid.values if grid.values.ndim == 2 else grid.values[None]
    words = grid.words(grid.axes[0]) if grid.values.ndim == 2 else [""]
    for word, row in zip(words, rows.tolist()):
        print(f"  {name} {word:13}", "  ".join(f"{v:6.3f}" for v in row), flush=True)


def erase() -> None:
    """Is the subject singular or plural, read at the last noun before the verb, after two attractors of the other number?"""
    model = pc.load("specimen:town")
    items = tasks.draw("agreement", town(0), 6000, held_out=False, attractors=2)
    texts, labels = [i.clean for i in items], [i.kind for i in items]
    x = gather(model, "blocks.2.out", texts)
    half = len(x) // 2
    fits = {"nothing": None, "mean difference": mean_difference, "leace": leace, "inlp, 8 rounds": partial(inlp, rounds=8)}
    print(
        f"erase: {len(x)} sentences; erasers and probes fitted on one half, probes scored on the other (and on their own);\n"
        "       change is the mean squared distance by which the other rows are moved"
    )
    for name, fit in fits.items():
        eraser = None if fit is None else fit(x[:half], labels[:half])
        own, other = (x[:half], x[half:]) if eraser is None else (eraser(x[:half]), eraser(x[half:]))
        said = logistic(own, labels[:half])
        scores = [balanced(said.predict(a), b) for a, b in ((own, labels[:half]), (other, labels[half:]))]
        cost = 0.0 if eraser is None else eraser.cost(x[half:])
        curved = balanced(mlp(own, labels[:half]).predict(other), labels[half:])
        print(f"  {name:16} own rows {scores[0]:.4f}  other rows {scores[1]:.4f}  mlp {curved:.4f}  change {cost:.4f}")
    print(f"  oracle leace     change {oracle(x[:half], labels[:half]).cost(x[half:], labels[half:]):.4f}")
    scrubbing(model, leace(x[:half], labels[:half]).edit("blocks.2.out[pos=-1]"))


def scrubbing(model: pc.Model, alone: pc.Edit) -> None:
    """What the model still does: number signed at every token from the subject on, 0 elsewhere, gifts among the prompts."""
    items, gifts = tasks.draw("agreement", town(0), 800, held_out=False, attractors=2), tasks.draw("ioi", town(0), 600)
    prompts = [i.clean for i in [*items[:500], *gifts[:300]]]
    count = torch.bincount(every(model, "embed.out", prompts).prompt).tolist()
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0)).tolist()

    def signed(kinds: list[str]) -> list[list[float]]:
        starts = [i.positions["subject"] for i in items[:500]] + count[500:]
        signs = [1.0 if kind == "plural" else -1.0 for kind in kinds] + [0.0] * 300
        return [[0.0] * start + [sign] * (n - start) for start, sign, n in zip(starts, signs, count)]

    def right(one: pc.Model, asked: list) -> float:
        logits = one.run([i.clean for i in asked]).logits[:, -1]
        return sum(bool(row[model.token(i.answer)] > row[model.token(i.wrong)]) for row, i in zip(logits, asked)) / len(asked)

    kinds = [i.kind for i in items[:500]]
    real = model.edit(*scrub(model, "blocks.*.out", prompts, signed(kinds)))
    dealt = model.edit(*scrub(model, "blocks.*.out", prompts, signed([kinds[n] for n in order])))
    blunt = model.edit(*scrub(model, "blocks.*.out", prompts[:500], kinds))
    rows = {"as it is": model, "leace at block 2, last token": model.edit(alone), "scrubbed": real,
            "scrubbed, labels dealt out": dealt, "scrubbed, fitted without gifts": blunt}  # fmt: skip
    for name, one in rows.items():
        print(f"  {name:31} verb of the right number {right(one, items[500:]):.3f}  gift {right(one, gifts[300:]):.3f}")


def balanced(said: list, truth: list) -> float:
    """The mean share of each class that is named rightly."""
    kinds = sorted(set(truth))
    return sum(sum(a == b == k for a, b in zip(said, truth)) / truth.count(k) for k in kinds) / len(kinds)


def homograph() -> None:
    """Noun or verb: the words work, play, show, drink, walk, cook."""
    model, uses = pc.load("specimen:town"), homographs(town(0), 60)
    texts, labels, pairs = [u.text for u in uses], [u.kind for u in uses], [u.pair for u in uses]
    kinds = [f"{u.before} {u.word}" for u in uses]
    print(f"homograph: {len(uses)} uses, {len(set(kinds))} kinds of context; places: embedding, then after blocks 0 to 2")
    found = beside(model, "blocks.*.in", texts, labels, kinds=kinds, groups=pairs)
    written("", found)
    written("selectivity", selectivity(found))
    low, high = selectivity(found).interval().values
    print("   from", [round(v, 3) for v in low.tolist()], "to", [round(v, 3) for v in high.tolist()])
    written("the last layer", probe(model, "blocks.*.out", texts, labels, groups=pairs))
    words = [u.word for u in uses]
    written("words held out", probe(model, "blocks.*.in", texts, labels, groups=words, folds=6))
    written("the same, untrained", probe(untrained(model), "blocks.*.in", texts, labels, groups=words, folds=6))
    written("codelength", codelengths(model, "blocks.*.in", texts, labels))
    written("the same, untrained", codelengths(untrained(model), "blocks.*.in", texts, labels))


def structural() -> None:
    """Documents whose last sentence has two or three nouns between subject and verb."""
    model = pc.load("specimen:town")
    print("structure: Spearman correlation of distances with steps in the tree, after blocks 0 to 3")
    written("nouns", structure(model, "blocks.*.out", *corpus(Random(1), 1600), steps=800))
    written("all words", structure(model, "blocks.*.out", *corpus(Random(1), 500, nouns=False), steps=300))


def reasoning() -> None:
    """The third smallest of eight numbers."""
    prompts = lists(1000, 5)
    places = torch.arange(LISTED).expand(len(prompts), -1)
    print("tree: gain in macro F1 over untrained models, by the attention of the first layer, the first two, ...")
    for name in ("specimen:smallest", "specimen:smallest/by-place"):
        model = pc.load(name)
        found = tree(model, prompts, places, heights(prompts))
        print(f"  {name}, {accuracy(model.hf):.3f} right answers")  # type: ignore[arg-type]
        written("score", found)
        for more in ("untrained, least", "untrained, most"):
            written(more, Grid(found.details[more], found.axes, found.labels))


WORK: dict[str, Callable[[], None]] = {"erase": erase, "homograph": homograph, "structure": structural, "tree": reasoning}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for asked in sys.argv[1:] or WORK:
        began = time.monotonic()
        WORK[asked]()
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
