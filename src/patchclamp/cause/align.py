"""Align: find the subspace of a place in which a variable of a causal model lives.

Distributed alignment search (DAS; Geiger et al. 2023): among all k-dimensional subspaces of a site, the one which, moved from
a source run into a base run, makes the network give the counterfactual answer; found by gradient descent over rotations. The
boundless form (Wu et al. 2023) rotates the whole site and learns how many of its leading directions to move.

A search over subspaces finds something in almost anything, so the answer comes with its controls, on pairs it was not trained
on: random subspaces of equal size, and the same search on an untrained copy of the network. And a subspace may work through a
*dormant pathway* (Makelov et al. 2023): it joins a part that follows the variable, and that nothing downstream reads, to a part
that is read and otherwise silent. So what is moved is split into what downstream reads and the rest, and each is moved alone.

What it does not know: whether a variable is spread over several sites. Pairs are held out, not inputs: a small set of inputs
can be learnt by heart, which the untrained copy shows. In a residual stream nearly everything is read by something, and there
the split says little: silence is no proof.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import orthogonal

from patchclamp.cause.abstraction import (
    Hypothesis,
    Input,
    Location,
    Rows,
    Sources,
    Trial,
    WrongHypothesis,
    chunks,
    graded,
    taken,
)
from patchclamp.core.axes import Logits, PerPrompt
from patchclamp.core.edit import Edit
from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.core.store import CARD, TENSORS
from patchclamp.model.model import Model
from patchclamp.model.untrained import untrained

Search = Callable[[Trial, str, int], Rows]
"""From the pairs to learn from, a variable and a seed to orthonormal directions."""
RANDOM = 3
"""Random subspaces whose accuracies are averaged."""


@dataclass(frozen=True)
class DAS:
    """Distributed alignment search over the subspaces of `k` dimensions (Geiger et al. 2023)."""

    k: int = 1
    steps: int = 300
    batch: int = 64
    """Pairs a step."""
    rate: float = 0.02
    """Adam's; it falls to zero on a straight line."""

    def __call__(self, trial: Trial, variable: str, seed: int) -> Rows:
        width = _width(trial, variable)
        if not 0 < self.k <= width:
            raise ShapeMismatch(
                f"{trial.hypothesis.place(variable).site} has {width} dimensions; no subspace of it has {self.k}."
            )
        turn = _rotation(width, self.k, seed, trial.model.device)

        def now(done: float) -> tuple[Rows, Rows, Tensor]:
            rows = turn.weight
            return rows, rows, rows.new_zeros(())

        _descend(trial, variable, list(turn.parameters()), now, self.steps, self.batch, self.rate, seed)
        return turn.weight.detach()


@dataclass(frozen=True)
class Boundless:
    """Boundless DAS (Wu et al. 2023): a rotation of the whole site, of which a learnt share is moved.

    Direction i is moved by sigmoid((boundary - i) / temperature). The temperature falls geometrically to a tenth of a
    dimension, so that at the end directions are moved or not; those before the boundary are the subspace.
    """

    price: float = 1.0
    """What moving the whole site adds to the loss, in nats: without a price the boundary has no reason to shrink."""
    steps: int = 600
    batch: int = 64
    rate: float = 0.02
    warm: float = 0.1
    """The first temperature, as a share of the site's dimensions."""

    def __call__(self, trial: Trial, variable: str, seed: int) -> Rows:
        width, device = _width(trial, variable), trial.model.device
        turn = _rotation(width, width, seed, device)
        boundary = nn.Parameter(torch.tensor(0.5, device=device))
        number = torch.arange(width, device=device) + 0.5
        first, last = max(self.warm * width, 0.1), 0.1

        def now(done: float) -> tuple[Rows, Rows, Tensor]:
            rows, share = turn.weight, boundary.clamp(0, 1)
            moved = torch.sigmoid((share * width - number) / (first * (last / first) ** done))
            return moved[:, None] * rows, rows, self.price * boundary.clamp(min=0)

        _descend(trial, variable, [*turn.parameters(), boundary], now, self.steps, self.batch, self.rate, seed)
        k = min(max(round(float(boundary.detach()) * width), 1), width)
        return turn.weight[:k].detach()


@dataclass(frozen=True, eq=False)
class Alignment:
    """A variable, the subspace it was found in, and how good that is beside the controls."""

    variable: str
    location: Location
    scores: Grid
    """Interchange accuracies on held-out pairs. `found`; `read` and `unread`: what of it downstream reads, and the rest;
    `random` subspaces of equal size; `untrained`: the same search on an untrained copy; `site`: all of it; `nothing`."""
    facts: Mapping[str, str]
    """The model, the search and its settings."""

    def __repr__(self) -> str:
        k, width = self.directions.shape
        flag = ", by a dormant pathway" if self.dormant else ""
        return f"Alignment({self.variable} in {k} of {width} dimensions of {self.location.site}, IIA {self.iia:.3f}{flag})"

    @property
    def directions(self) -> Rows:
        """The subspace, an orthonormal direction a row."""
        assert self.location.directions is not None
        return self.location.directions

    @property
    def iia(self) -> float:
        """The interchange intervention accuracy of the subspace on held-out pairs."""
        return float(self.scores.at(subspace="found").values)

    @property
    def dormant(self) -> bool:
        """Whether the subspace works through a dormant pathway."""
        return dormant(self.scores)

    def edit(self, source: Run, bases: Sequence[Any] = (), sources: Sequence[Any] = ()) -> Edit:
        """The edit that gives the variable the value it has in another run, which must have kept the site."""
        return self.location.edit(source, bases, sources)

    def show(self) -> None:
        """Draw the accuracies."""
        self.scores.show()

    def save(self, folder: str | Path) -> Path:
        """Write to a folder: the directions as safetensors, the accuracies as a grid, the rest as a readable card."""
        folder = Path(folder)
        self.scores.save(folder / "scores")
        card = {
            "noun": "Alignment", "version": 1, "variable": self.variable, "site": str(self.location.site),
            "own_token": self.location.pos is not None, "facts": dict(self.facts),
        }  # fmt: skip
        save_file({"directions": self.directions.cpu().contiguous()}, folder / TENSORS)
        (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path, pos: Callable[[Any], int] | None = None) -> Alignment:
        """Read what `save` wrote. A function that says which token is each input's own is not written down: give it again."""
        folder = Path(folder)
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            directions = load_file(folder / TENSORS)["directions"]
        except (OSError, ValueError, KeyError) as error:
            raise NotSaved(f"{folder} holds no alignment that can be read ({type(error).__name__}: {error}).") from None
        if card.get("noun") != "Alignment" or card.get("version") != 1:
            raise NotSaved(
                f"{folder} holds a {card.get('noun')} of version {card.get('version')}, not an Alignment of version 1."
            )
        if card["own_token"] != (pos is not None):
            need = "was found at a token of each input's own; give `pos`" if card["own_token"] else "has no use for `pos`"
            raise NotSaved(f"{folder}: this alignment {need}.")
        location = Location(card["site"], directions, pos)
        return cls(card["variable"], location, Grid.load(folder / "scores"), card["facts"])


def align(model: Model, hypothesis: Hypothesis, variable: str, bases: Sequence[Input], sources: Sources, search: Search, *,
          reads: Float[Tensor, "m d"] | None = None, held_out: float = 0.25, batch: int = 64,
          seed: int = 0) -> Alignment:  # fmt: skip
    """The subspace of a variable's place that carries it, found on most of the pairs and judged on the rest.

    `reads` are the directions of the place that downstream reads, where they are not to be found out (see `halves`).

    >>> inputs = [dict(first="Mary", second="John", giver=g) for g in ("Mary", "John")] * 2
    >>> from patchclamp.cause.abstraction import CausalModel, Hypothesis
    >>> from patchclamp.cause.align import DAS, align
    >>> other = CausalModel({"answer": lambda first, second, giver: second if giver == first else first})
    >>> told = "When {first} and {second} went to the store, {giver} gave a drink to".format_map
    >>> hypothesis = Hypothesis(other, {"answer": "blocks.3.out[pos=-1]"}, told, {"Mary": " Mary", "John": " John"})
    >>> align(model, hypothesis, "answer", inputs, inputs[::-1], DAS(k=1, steps=20, rate=0.2), held_out=0.5).directions.shape
    torch.Size([1, 128])
    """
    train, test = _split(bases, sources, held_out, seed)
    rows = search(Trial.of(model, hypothesis, *train, [variable], batch), variable, seed)
    asked, control = Trial.of(model, hypothesis, *test, [variable], batch), untrained(model, seed)
    theirs = search(Trial.of(control, hypothesis, *train, [variable], batch), variable, seed)
    located = asked.hypothesis.place(variable)
    location = Location(located.site, rows, located.pos)
    targets, width = asked.targets([variable]), rows.shape[1]
    found = _halved(asked, variable, location, reads)
    chance = [_rotation(width, len(rows), seed + 1 + n, model.device).weight.detach() for n in range(RANDOM)]
    found["random"] = torch.stack([asked.right(asked.swaps([variable], r, r), targets) for r in chance]).mean(0)
    again = Trial.of(control, hypothesis, *test, [variable], batch)
    found["untrained"] = again.right(again.swaps([variable], theirs, theirs), targets)
    whole = replace(asked, hypothesis=hypothesis.placed(variable, Location(located.site, None, located.pos)))
    found["site"] = whole.right(whole.swaps([variable]), targets)
    facts = {"model": model.name, "search": str(search), "pairs": f"{len(train[0])} learnt from, {len(test[0])} held out",
             "seed": str(seed)}  # fmt: skip
    return Alignment(variable, location, _scored(asked, found, seed), facts)


def halves(model: Model, hypothesis: Hypothesis, variable: str, bases: Sequence[Input], sources: Sources, *,
           reads: Float[Tensor, "m d"] | None = None, batch: int = 64, seed: int = 0) -> Grid:  # fmt: skip
    """What a subspace moves, split into what downstream reads and the rest, and each moved alone: Grid(subspace).

    `found` is the hypothesis' own subspace; with V its directions, moving it adds V'V (source - base). Of that difference
    `read` takes only what lies in the directions that downstream reads, `unread` only the rest: the two add up to `found`. An
    honest subspace works by what is read. Where `unread` does the work instead, nothing downstream would ever have seen it:
    the subspace writes it into a silent part that is read, a dormant pathway. `dormant` says whether that is so.

    Downstream reads, from neurons or a head's z, what their output matrix reads; from other places, what the gradient of the
    answer (counterfactual minus base) takes note of, in both runs, up to one hundredth of its square. Or give `reads`.
    """
    trial = Trial.of(model, hypothesis, bases, sources, [variable], batch)
    location = hypothesis.place(variable)
    if location.directions is None:
        raise WrongHypothesis(f"{location.site} stands for a whole site; name a subspace of it, Location(site, directions).")
    return _scored(trial, _halved(trial, variable, location, reads), seed)


def dormant(scores: Grid) -> bool:
    """Whether less than half of a subspace's effect (above nothing, and more than a tenth) is left to what downstream reads."""
    found, read, nothing = (float(scores.at(subspace=name).values) for name in ("found", "read", "nothing"))
    return found - nothing > 0.1 and read - nothing < (found - nothing) / 2


# ---- searching ---------------------------------------------------------------------------------------------------------


def _descend(trial: Trial, variable: str, parameters: list[nn.Parameter], now: Callable[[float], tuple[Rows, Rows, Tensor]],
             steps: int, batch: int, rate: float, seed: int) -> None:  # fmt: skip
    """Descend on the surprise at the counterfactual answer; `now` gives what is read, what is written, and a penalty."""
    n, generator = len(trial.bases), torch.Generator().manual_seed(seed)
    targets, descent = trial.targets([variable]), torch.optim.Adam(parameters, lr=rate)
    for step in progress(range(steps), label="aligning"):
        picks = torch.randperm(n, generator=generator)[:batch].tolist()
        with torch.enable_grad():
            reading, writing, penalty = now(step / steps)
            logits = trial.answers(trial.swaps([variable], reading, writing), picks, grad=True)
            loss = cross_entropy(logits, targets[picks]) + penalty
        # The network's own parameters are no business of this search, so no gradient is left in them.
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters)):
            parameter.grad = slope
        descent.param_groups[0]["lr"] = rate * (1 - step / steps)
        descent.step()


def _rotation(width: int, k: int, seed: int, device: torch.device) -> nn.Linear:
    """A module whose weight (k, width) has orthonormal rows, whatever its parameters are."""
    start = nn.init.orthogonal_(torch.empty(k, width), generator=torch.Generator().manual_seed(seed))
    made = nn.Linear(width, k, bias=False, device="meta")
    made.weight = nn.Parameter(start.to(device))
    orthogonal(made, use_trivialization=k == width)
    return made


def _width(trial: Trial, variable: str) -> int:
    """The dimensions that a place has subspaces of."""
    parts = trial.parts[variable]
    if parts.ndim < 2:
        raise ShapeMismatch(f"{trial.hypothesis.place(variable).site} is a single number, which has no subspaces.")
    return parts.shape[-1]


def _split(bases: Sequence[Input], sources: Sources, held_out: float, seed: int):
    """((bases, sources) to learn from, (bases, sources) to judge by)."""
    n = len(bases)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = round(n * (1 - held_out))
    if not 0 < cut < n:
        raise WrongPrompt(
            f"{n} pairs with {held_out:g} of them held out leave nothing to {'learn from' if cut < 1 else 'judge by'}."
        )

    def some(picks: list[int]):
        if isinstance(sources, Mapping):
            return [bases[i] for i in picks], {name: [given[i] for i in picks] for name, given in sources.items()}
        return [bases[i] for i in picks], [sources[i] for i in picks]

    if not isinstance(sources, Mapping) and len(sources) != n:
        raise WrongPrompt(f"every base needs a source: there are {n} bases and {len(sources)} sources.")
    return some(order[:cut]), some(order[cut:])


# ---- judging -----------------------------------------------------------------------------------------------------------


def _halved(trial: Trial, variable: str, location: Location, reads: Tensor | None) -> dict[str, PerPrompt]:
    """For each pair whether the subspace, what of it is read, and the rest, move the answer as they should."""
    rows, targets = location.directions, trial.targets([variable])
    assert rows is not None
    found = trial.right(trial.swaps([variable], rows, rows), targets)
    basis = _spanned(reads, 1e-6) if reads is not None else _downstream(trial, variable, rows)
    if basis.shape[1] != rows.shape[1]:
        raise ShapeMismatch(f"`reads` are directions of {basis.shape[1]} numbers; {location.site} has {rows.shape[1]}.")
    seen = rows @ basis.T.to(rows) @ basis.to(rows)
    parts = {"read": seen, "unread": rows - seen}
    halves = {name: trial.right(trial.swaps([variable], part, rows), targets) for name, part in parts.items()}
    return {"found": found, **halves}


def _scored(trial: Trial, found: Mapping[str, PerPrompt], seed: int) -> Grid:
    (variable,) = trial.parts
    found = {**found, "nothing": trial.right(lambda rows: (), trial.targets([variable]))}
    own = float(trial.right(lambda rows: (), trial.targets(())).mean())
    grid = graded(torch.stack(list(found.values()), dim=1), "subspace", list(found), {}, {"model": own}, seed)
    warning = "The effect is not owed to what downstream reads: a dormant pathway." if dormant(grid) else ""
    return replace(grid, title=f"{grid.title} of {variable} in {trial.hypothesis.place(variable).site}", note=warning)


def _downstream(trial: Trial, variable: str, rows: Rows) -> Rows:
    """An orthonormal basis of the directions of a place that downstream reads."""
    matrix = _output_matrix(trial.model, trial.hypothesis.place(variable).site)
    return _spanned(_slopes(trial, variable, rows), 1e-2) if matrix is None else _spanned(matrix, 1e-6)


def _output_matrix(model: Model, site: Site) -> Float[Tensor, "d_model d"] | None:
    """What reads the neurons of a feed-forward layer, or one head's z, where nothing else does."""
    block, _, name = model.places(site)[0].rpartition(".")
    if name == "act" and f"{block}.W_out" in model.weights and not dict(site.index).keys() & {"neuron"}:
        return model.weights[f"{block}.W_out"].T.float()
    if name == "z" and f"{block}.W_O" in model.weights and "head" in dict(site.index):
        return model.weights[f"{block}.W_O[head={dict(site.index)['head']}]"].T.float()
    return None


def _slopes(trial: Trial, variable: str, rows: Rows) -> Float[Tensor, "n d"]:
    """The gradients of the counterfactual answer minus the base's own, before and after the interchange, at every pair."""
    place = trial.hypothesis.place(variable)
    there, own = trial.targets([variable]), trial.targets(())
    if trial.choices is not None:
        there, own = trial.choices[there], trial.choices[own]
    found, swaps = [], trial.swaps([variable], rows, rows)
    for picks in chunks(len(trial.bases), trial.batch):
        for edits in ((), swaps(picks)):
            run = trial.model.edit(*edits).run(taken(trial.inputs, picks), place.site.bare(), grad=True)

            def difference(logits: Logits, at: list[int] = run.last, picks: range = picks) -> PerPrompt:
                n, chosen = range(len(at)), list(picks)
                return logits[n, at, there[chosen]] - logits[n, at, own[chosen]]

            slope = place.parts(run.gradient(difference), [trial.bases[row] for row in picks])
            found.append(slope.flatten(0, -2).float())
    return torch.cat(found)


def _spanned(rows: Float[Tensor, "n d"], tail: float) -> Rows:
    """The fewest orthonormal directions that hold all but `tail` of the rows' square."""
    _, sizes, directions = torch.linalg.svd(rows.float(), full_matrices=False)
    energy = sizes.square().flip(0).cumsum(0).flip(0)
    return directions[energy > tail * energy[0].clamp(min=1e-30)]
