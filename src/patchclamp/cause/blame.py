"""Blame: which part of a model makes its answers wrong, an edit that mends them, and what the edit costs elsewhere.

Every head and every layer is given, by itself, its average over prompts that the model answers well, and the part that then
raises the right answer most is to blame (mean ablation; `by="resample"` takes values of one such prompt for each). An edit
of that part is proposed: its mean, half of the way to it, or a vector that leads there on average. What an edit does is
measured on wrong examples that were not used to find it, on controls, and beside the same edit of other parts drawn by lot.

Only single parts are tried: a fault that two parts share is found by halves or not at all, and a fault that all examples and
controls share is no fault to this method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

import torch
from torch import Tensor

from patchclamp.cause.ablate import ablate
from patchclamp.core.edit import Edit, Here, mean, patch, steer
from patchclamp.core.errors import PatchclampError, Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.metric import logit_diff
from patchclamp.core.progress import progress
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST, interval
from patchclamp.model.model import Model

PARTS = ("blocks.*.attn.z[head=*]", "blocks.*.mlp.out", "blocks.*.mixer.out")
"""What may be to blame."""
KINDS = ("mean", "half", "steer")
"""What a cure does to a part: holds it at its mean, halves its way to it, or adds a vector that leads there."""
SUSPECTS = 3
"""How many parts are tried with every edit."""
COST = 0.01
"""The loss of accuracy on controls, as a share, that an edit may have if another one is not as dear."""
Example = tuple[str | Sequence[int], int]
"""A prompt, and the token that should follow it."""


@dataclass(frozen=True, eq=False)
class Cure:
    """An edit, and what it does."""

    site: str
    kind: str
    """mean, half, or steer."""
    edit: Edit
    fixed: float
    """The share of wrong examples, not used to find it, that are answered right with it."""
    cost: float
    """The loss of accuracy on controls, none of them used to find it, as a share; not a number without controls."""
    promise: tuple[float, float]
    """The same two on what was used to find it; the cure is chosen by these."""


@dataclass(frozen=True, eq=False)
class Blame:
    """Who is to blame, what mends it, and the control."""

    grid: Grid
    """(part): how much the right answer gains over the one that was given, on average over the wrong examples."""
    cures: tuple[Cure, ...]
    """Best first: those that cost little, by what they fix."""
    lots: tuple[Cure, ...]
    """The best cure's edit at other parts, drawn by lot."""
    found: int
    """Wrong examples used to find the part."""
    held: int
    """Wrong examples used to measure what is fixed."""
    controls: int
    accuracy: float
    """On the controls, before any edit."""
    left_out: int = 0
    """Examples that the model answers right."""

    @property
    def best(self) -> Cure:
        """The cure to take."""
        return self.cures[0]


def blame(model: Model, wrong: Sequence[Example], right: Sequence[Example] = (), *, by: str = "mean", lots: int = 5,
          seed: int = 0) -> Blame:  # fmt: skip
    """Find the part that makes `wrong` examples wrong and a cure for it, with `right` ones as controls.

    Half of the wrong examples are used to find it (all, where there are fewer than eight), the others to measure it; likewise
    the average is over one half of the controls and the cost is measured on the other.

    >>> from patchclamp.cause.blame import blame
    >>> deaf = model.edit(pc.zero("blocks.3.attn.out"))
    >>> blame(deaf, [(clean, model.token(" Mary"))], [(corrupt, model.token(" John"))], lots=0).found
    1
    """
    if by not in ("mean", "resample"):
        raise ValueError(f'by is "mean" or "resample", not "{by}".')
    seen, left_out = _wrong(model, wrong)
    used, held = _halves(seen)
    known, asked = _halves(list(right))
    base = known or used
    prompts = [p for p, _, _ in used]
    patterns = [p for p in PARTS if _served(model, p)]
    source = model.run([p for p, *_ in base], [path for p in patterns for path in model.places(p)], logits=False)
    instead = _instead(source, by, len(used), seed)
    metric = logit_diff([a for _, a, _ in used], [w for _, _, w in used])
    maps = [ablate(model, prompts, pattern, metric, by=instead) for pattern in patterns]
    grid = _joined(maps, patterns, len(base), bool(known))
    suspects = [where["part"] for where, _ in grid.top(SUSPECTS)]
    trial = _Trial(model, source, model.run(prompts, source.sites, logits=False), (used, held), (known, asked))
    tried = [(site, kind) for site in suspects for kind in KINDS]
    cures = sorted((trial.cure(*one) for one in progress(tried, label="cures")), key=_order)
    others = Random(seed).sample([p for p in grid.words("part") if p != cures[0].site], min(lots, grid.shape["part"] - 1))
    drawn = tuple(trial.cure(site, cures[0].kind) for site in progress(others, label="others"))
    return Blame(grid, tuple(cures), drawn, len(used), len(held), len(asked), trial.before[1], left_out)


def _order(cure: Cure) -> tuple:
    """Those that cost little first, by what they promise to fix."""
    fixed, cost = cure.promise
    return cost > COST, -fixed, max(cost, 0.0) if cost == cost else 0.0, KINDS.index(cure.kind)


def accuracy(model: Model, examples: Sequence[tuple]) -> float:
    """The share of examples whose answer is the model's first choice; not a number where there are none."""
    if not examples:
        return float("nan")
    run = model.run([p for p, *_ in examples])
    said = run.logits[range(len(run.last)), run.last].argmax(-1).tolist()
    return sum(s == example[1] for s, example in zip(said, examples)) / len(examples)


def _wrong(model: Model, examples: Sequence[Example]) -> tuple[list[tuple], int]:
    """The examples that the model gets wrong, each with what it says instead; and how many it gets right."""
    if not examples:
        raise WrongPrompt("there are no wrong examples; give prompts with the answers that they should have.")
    run = model.run([p for p, _ in examples])
    if run.output is None:
        raise Unserved(f"{model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
    said = run.logits[range(len(run.last)), run.last].argmax(-1).tolist()
    found = [(p, answer, s) for (p, answer), s in zip(examples, said) if s != answer]
    if not found:
        raise WrongPrompt(f"{model.name} answers all {len(examples)} examples right; there is nothing to blame anybody for.")
    return found, len(examples) - len(found)


def _halves(examples: list) -> tuple[list, list]:
    """Every other one; both times all of them where there are few."""
    return (examples, examples) if len(examples) < 8 else (examples[::2], examples[1::2])


def _served(model: Model, pattern: str) -> bool:
    try:
        return bool(model.places(pattern))
    except PatchclampError:  # what a model lacks cannot be to blame
        return False


def _instead(source: Run, by: str, rows: int, seed: int):
    """An edit that gives a place what it holds on prompts that are answered well."""
    if by == "mean":
        return lambda site: mean(site, source)
    rng = Random(seed)
    picks = [rng.randrange(source.tokens.shape[0]) for _ in range(rows)]
    return lambda site: patch(site, _last(source, site)[picks][:, None])


def _last(run: Run, site: Site) -> Tensor:
    """What a place holds at the last token of every prompt."""
    stored, _, windows = run.stored(site.bare())
    rows = list(range(stored.shape[0]))
    return _own(site, stored[rows, list(windows["pos"].columns(-1, len(rows)))])


def _mean(run: Run, site: Site) -> Tensor:
    """What a place holds on average over prompts and tokens."""
    stored, _, windows = run.stored(site.bare())
    tokens = torch.cat([stored[r, list(windows["pos"].tokens(r))] for r in range(stored.shape[0])])
    return _own(site, tokens).mean(0)


def _own(site: Site, values: Tensor) -> Tensor:
    """A head's part of what all heads hold."""
    head = dict(site.index).get("head")
    return values[:, head] if isinstance(head, int) else values


def _joined(maps: Sequence[Grid], patterns: Sequence[str], prompts: int, controlled: bool) -> Grid:
    """All parts along one axis, each under the name of its site."""
    names, each = [], []
    for grid, pattern in zip(maps, patterns):
        site = Site.parse(pattern)
        assert grid.each is not None
        places = [Site.parse(pattern.split("[")[0].replace("*", layer)) for layer in grid.words("layer")]
        names += [str(p.at(head=h)) if site.index else str(p) for p in places
                  for h in (range(grid.shape["head"]) if site.index else [0])]  # fmt: skip
        each.append(grid.each.flatten(1))
    values = torch.cat(each, 1)
    bounds = interval(values) if values.shape[0] >= FEWEST else ()
    details: dict[str, Tensor] = dict(zip(("low", "high"), bounds))
    over = f"{prompts} {'controls' if controlled else 'of the wrong examples themselves, as there are no controls'}"
    return Grid(values.mean(0), ("part",), {"part": names}, unit="logits", each=values, details=details,
                baseline={"metric": maps[0].baseline["metric"]}, title="What the right answer gains without each part",
                note=f"Each part holds what it holds over {over}.")  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Trial:
    """Everything a cure is tried on: twice, on what was used to find it and on the rest."""

    model: Model
    source: Run
    own: Run
    wrong: tuple[list, list]
    right: tuple[list, list]

    @cached_property
    def before(self) -> tuple[float, float]:
        """The accuracy on both parts of the controls."""
        return accuracy(self.model, self.right[0]), accuracy(self.model, self.right[1])

    def cure(self, part: str, kind: str) -> Cure:
        site, source = Site.parse(part), self.source
        if kind == "mean":
            edit = mean(site, source)
        elif kind == "half":
            edit = _half(site, _mean(source, site))
        else:
            edit = steer(site, _last(source, site).mean(0) - _last(self.own, site).mean(0))
        cured = self.model.edit(edit)
        promise, measured = (
            (accuracy(cured, wrong), before - accuracy(cured, right))
            for wrong, right, before in zip(self.wrong, self.right, self.before)
        )
        return Cure(part, kind, edit, *measured, promise)


def _half(site: Site, middle: Tensor) -> Edit:
    """Half of the way to a value."""
    return Edit(site, _halved, "half", {"middle": middle})


def _halved(value: Tensor, here: Here, middle: Tensor) -> Tensor:
    return (value + middle.to(value)) / 2
