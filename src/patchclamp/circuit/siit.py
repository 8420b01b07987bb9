"""Trained models with a known circuit: each edge of a program's plan is taught to carry what it stands for, no other to matter.

Where `compile.py` writes weights, here they are learnt, by interchange-intervention training (IIT; Geiger et al. 2022): some
wires of the circuit carry what they carry on a second, unrelated sequence, and the answer must be the one that the *program*
gives when the variables on those wires come from that sequence. Meanwhile any of the other wires may carry the second
sequence too, and must change nothing (the strict loss of SIIT: Gupta et al. 2024, "InterpBench"). There both are asked of
nodes, so that the edges between them remain a guess; here of edges, heads' queries, keys and values told apart.

So the circuit is true of trained weights: norms, smooth nonlinearities, parts in superposition, idle heads that do something
harmless. `measure` says how true, on sequences that training never saw; `Recipe.behaviour` makes the control, the same
network trained to answer and nothing else.

Not known here: the circuit that a network would choose by itself. These are prompted to be clean, and of one length only.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from patchclamp.circuit import programs
from patchclamp.circuit.compile import POSITIONS, Compiled
from patchclamp.circuit.lessons import Lessons
from patchclamp.circuit.plan import EMBEDDING, Plan
from patchclamp.circuit.rasp import is_number
from patchclamp.core import checkpoint
from patchclamp.core.errors import NotAModel, Unserved, did_you_mean
from patchclamp.core.progress import progress
from patchclamp.core.store import CARD
from patchclamp.model.load import SPECIMENS, load
from patchclamp.model.specimen import Specimen, SpecimenConfig
from patchclamp.model.wires import Wires


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how. The network has more heads, neurons and perhaps blocks than its circuit needs."""

    program: str
    vocab: str
    length: int
    """Of every sequence: training sees no others."""
    layers: int = 2
    heads: int = 4
    d_model: int = 32
    d_head: int = 8
    d_mlp: int = 64
    steps: int = 2000
    batch: int = 128
    rate: float = 3e-3
    pool: int = 12_000
    """Interchanges that batches are drawn from."""
    interchange: float = 0.8
    """In what share of them wires of the circuit are swapped."""
    strict: float = 0.8
    """In what share of the batch other wires are."""
    seed: int = 0

    @property
    def behaviour(self) -> Recipe:
        """The control: the same training without interchanges, on the program's answers alone."""
        return replace(self, interchange=0.0, strict=0.0)

    @property
    def plan(self) -> Plan:
        """The program's plan: which head or feed-forward layer is to hold which variable."""
        made = getattr(programs, self.program)(self.vocab, length=self.length)
        if is_number(made.output):
            raise Unserved(f"{made.name} gives a number, and interchanges are scored by right answers; take another program.")
        return Plan(made, 0, random.Random(self.seed))

    def network(self) -> Specimen:
        """The untrained network."""
        plan = self.plan
        config = SpecimenConfig(
            vocab=len(self.vocab) + 1, classes=len(plan.answers), length=max(self.length + 1, POSITIONS), causal=False,
            layers=max(self.layers, plan.layers), heads=self.heads, d_model=self.d_model, d_head=self.d_head,
            d_mlp=self.d_mlp, initializer_range=0.15,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Specimen(config).eval()


RECIPES = {
    "histogram": Recipe("histogram", "abcd", 6),
    "deduplicate": Recipe("deduplicate", "abcd", 6),
    "most_frequent": Recipe("most_frequent", "abc", 5, steps=3000),
}
"""Those that ship, as `pc.load("specimen:histogram")`; each with its control, as `"specimen:histogram/behaviour"`."""


def opened(name: str, control: bool = False) -> Compiled:
    """A shipped network with its circuit, in the form that `compile` gives; or its control.

    >>> from patchclamp.circuit.siit import opened
    >>> made = opened("histogram")
    >>> made("abcabd"), len(made.graph.edges)
    ([2, 2, 1, 2, 2, 1], 4)
    """
    if name not in RECIPES:
        raise NotAModel(f'no trained circuit "{name}" is shipped; there is {", ".join(RECIPES)}.{did_you_mean(name, RECIPES)}')
    card = json.loads((SPECIMENS / name / CARD).read_text(encoding="utf-8"))
    hf: Any = load(f"specimen:{name}{'/behaviour' if control else ''}").hf
    return _made(Recipe(**card["recipe"]), hf)


def train(recipe: Recipe, out: Path | None = None, save_every: int = 250) -> Compiled:
    """Train, or go on training from the checkpoint in `out`, and leave network, circuit and card there."""
    hf, plan = recipe.network(), recipe.plan
    lessons = Lessons.of(plan, Wires.of(load(hf)), recipe.pool, recipe.seed, share=recipe.interchange)
    optimizer = torch.optim.AdamW(hf.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
    done = 0 if out is None else checkpoint.resume(out, asdict(recipe), hf, optimizer)
    for step in progress(range(done + 1, recipe.steps + 1), label=f"training {plan.program.name}"):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1, step / 100) * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        logits, answers = _batch(lessons, hf, recipe, step)
        loss = cross_entropy(logits[:, 1:].flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
        optimizer.step()
        if out is not None and step % save_every == 0:
            checkpoint.keep(out, asdict(recipe), hf, optimizer, step)
    for parameter in hf.parameters():
        parameter.grad = None
    made = _made(recipe, hf)
    if out is not None:
        hf.save_pretrained(out)
        made.graph.save(out / "circuit")
        checkpoint.forget(out)
    return made


def _made(recipe: Recipe, hf: Specimen) -> Compiled:
    plan = recipe.plan
    graph = plan.graph(varying=True)
    return Compiled(plan.program, hf, graph, graph, plan.answers)


def _batch(lessons: Lessons, hf: Specimen, recipe: Recipe, step: int) -> tuple[Tensor, Tensor]:
    """The logits of the batch of one step, sources behind bases, and the answers they should give."""
    chance = torch.Generator().manual_seed(1_000_003 * recipe.seed + step)
    rows = torch.randint(len(lessons.bases), (recipe.batch,), generator=chance)
    rate = torch.rand(recipe.batch, generator=chance)
    rate[torch.rand(recipe.batch, generator=chance) < 0.5] = 1.0  # all of them in half of the cases
    rate[torch.rand(recipe.batch, generator=chance) >= recipe.strict] = 0.0
    outside = lessons.outside
    loose = (torch.rand((recipe.batch, *outside.shape), generator=chance) < rate[:, None, None]).float() * outside
    logits = flow(hf, lessons.bases[rows], lessons.sources[rows], lessons.swapped[rows] + loose)
    return logits, torch.cat([lessons.answers[rows], lessons.source_answers[rows]])


# ---- the network -------------------------------------------------------------------------------------------------------


def flow(hf: Specimen, bases: Int[Tensor, "n pos"], sources: Int[Tensor, "n pos"],
         cut: Float[Tensor, "n receiver sender"]) -> Float[Tensor, "two_n pos classes"]:  # fmt: skip
    """Logits of bases, in which wires carry `cut` of what they carry in the sources; and behind them, of the sources.

    The same pass as `Wires.run`, which serves every model and takes what it puts in as given: here gradients go into both.
    """
    ids, n, d_head = torch.cat([bases, sources]), len(bases), hf.config.d_head
    assert hf.positions is not None
    x = hf.embed(ids) + hf.positions.weight[: ids.shape[1]]
    wrote, row = [x], 0

    def heard(rows: int) -> Float[Tensor, "row two_n pos d_model"]:
        changes = torch.stack([w[n:] - w[:n] for w in wrote])
        mixed = torch.einsum("brs,sbpd->rbpd", cut[:, row : row + rows, : len(wrote)], changes)
        return torch.cat([x[:n] + mixed, x[n:].expand(rows, -1, -1, -1)], dim=1)

    for block in hf.blocks:
        made: Any = block
        attention, heads = made.attn, made.attn.q.out_features // d_head
        read = made.norm1(heard(3 * heads)).unflatten(0, (3, heads))
        q, k, v = (
            torch.einsum("hbpd,hed->hbpe", read[i], m.weight.unflatten(0, (heads, -1))) + m.bias.view(heads, 1, 1, -1)
            for i, m in enumerate((attention.q, attention.k, attention.v))
        )
        z = (q @ k.transpose(-1, -2) * attention.scaling).softmax(-1) @ v
        written = torch.einsum("hbpe,dhe->hbpd", z, attention.o.weight.unflatten(1, (heads, -1)))
        x, row = x + written.sum(0) + attention.o.bias, row + 3 * heads
        wrote += list(written)
        added = made.mlp(made.norm2(heard(1)[0]))
        x, row = x + added, row + 1
        wrote.append(added)
    normed: Any = hf.norm
    return hf.unembed(normed(heard(1)[0]))


@torch.no_grad()
def measure(recipe: Recipe, hf: Specimen, n: int = 500) -> dict[str, float]:
    """How true the circuit is, on sequences that were held out of training: shares of right answers, token by token.

    `accuracy` of the network as it is; `circuit alone`, every other wire carrying another sequence; `interchange of a node`
    and `of an edge`, against the program's answers, beside what leaving the network as it is would score; `outside` is the
    largest share of answers that change when one part outside the circuit carries another sequence.
    """
    model, plan = load(hf), recipe.plan
    wires = Wires.of(model)

    def drawn(*kinds: str) -> tuple[Lessons, Any, Tensor]:
        lessons = Lessons.of(plan, wires, n, recipe.seed, share=float(bool(kinds)), kinds=kinds, held_out=True)
        return lessons, model.inputs(lessons.bases), wires.written(model.run(lessons.sources, wires.sites))

    def right(logits: Tensor, lessons: Lessons) -> float:
        return float((logits[:, 1:].argmax(-1) == lessons.answers).float().mean())

    found = {}
    for kind in ("node", "edge"):
        lessons, inputs, theirs = drawn(kind)
        said = wires.run(inputs, theirs, lessons.swapped.permute(1, 2, 0)[..., None])
        found[f"interchange of {'a node' if kind == 'node' else 'an edge'}"] = right(said, lessons)
        found[f"{kind} left alone"] = right(hf(lessons.bases).logits, lessons)
    lessons, inputs, theirs = drawn()
    plain = hf(lessons.bases).logits
    inside, moved = {e.sender for e in plan.graph().edges} | {EMBEDDING}, [0.0]
    for seat, sender in enumerate(wires.senders):
        if sender not in inside:
            cut = torch.zeros(wires.joined.shape)
            cut[wires.joined[:, seat], seat] = 1
            changed = wires.run(inputs, theirs, cut).argmax(-1) != plain.argmax(-1)
            moved.append(float(changed[:, 1:].float().mean()))
    alone = right(wires.run(inputs, theirs, lessons.outside), lessons)
    return {"accuracy": right(plain, lessons), "circuit alone": alone, **found, "outside": max(moved)}


# ---- keeping it --------------------------------------------------------------------------------------------------------


def main() -> None:
    """Make a shipped network and its control: `python -m patchclamp.circuit.siit histogram --out FOLDER`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="where the network goes, its control beside it")
    options = parser.parse_args()
    recipe, figures = RECIPES[options.name], {}
    for kind, mine, folder in (("taught", recipe, options.out), ("control", recipe.behaviour, options.out / "behaviour")):
        found = measure(recipe, train(mine, folder).hf)
        figures[kind] = {name: round(value, 4) for name, value in found.items()}
        print(kind, figures[kind], flush=True)
    card = {
        "name": options.name,
        "what": f"A small bidirectional transformer that computes {recipe.program} by a circuit that is known edge by edge (in "
        "circuit/), taught by interchange interventions. In behaviour/ lies the control, taught the answers alone.",
        "parameters": sum(p.numel() for p in recipe.network().parameters()),
        "recipe": asdict(recipe),
        "figures": {"how": "patchclamp.circuit.siit.measure, on sequences held out of training; shares of tokens", **figures},
        "command": f"python -m patchclamp.circuit.siit {options.name} --out FOLDER",
        "date": time.strftime("%Y-%m-%d"),
        "licence": "Apache-2.0, as the package",
    }
    (options.out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
