"""Dose: what steering does, how much of it is needed, what it costs, and what any other push of equal length would have done.

A direction is added more and more strongly. At each dose the behaviour is measured on every prompt, with an interval over
prompts, and beside it the cost: by how many nats a token *ordinary* text is predicted worse, the logarithm of the factor by
which its perplexity grows. Both are measured again for random directions of the same length. Steering means something where
the behaviour moves, the random ones stay, and the cost is bearable; all three are in the answer.

    response = dose(model, "blocks.2.out", joy, (0, 0.5, 1, 2), prompts, measure=says(good, bad), text=documents)
    response.show()

What it does not know: whether the *manner* of what is said suffers. Read some of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import PerPrompt
from patchclamp.core.edit import Edit, steer
from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.journal import leaf, of_function
from patchclamp.core.metric import Metric, read
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST, interval, wilson
from patchclamp.model.likelihood import surprisals
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model
from patchclamp.picture import Lines, Page, Picture, Section, Series
from patchclamp.probe.direction import Direction, random_like

Behaviour = Metric | Callable[[Model, Sequence], PerPrompt]
"""What is measured: a metric of the logits, or a function of a model and prompts that gives one number a prompt."""
By = Callable[[Site, Tensor], Edit | tuple[Edit, ...]]
"""How a vector is put in at a site: `pc.steer`, or another that takes the same two."""
BATCH = 64
RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Response:
    """The answer of `dose`: the behaviour and the cost at every dose, along the direction and along random ones."""

    behaviour: Grid
    """Grid(along, dose): `steered` first, then each random direction. `each` is prompt by prompt, `details` the interval."""
    cost: Grid
    """Grid(along, dose): nats a token by which ordinary text is predicted worse; its exponential multiplies the perplexity."""
    doses: tuple[float, ...]

    @property
    def effect(self) -> Grid:
        """The behaviour along the direction itself: Grid(dose)."""
        return self.behaviour.at(along="steered")

    @property
    def chance(self) -> Grid:
        """The behaviour along random directions of equal length, their mean: Grid(dose), extremes in `details`."""
        return _others(self.behaviour)

    def picture(self) -> Picture:
        """Lines with bands: the direction with its interval, the random ones with their extremes; below it the cost."""
        said = _lines(self.doses, self.effect, self.chance, self.behaviour)
        paid = _lines(self.doses, self.cost.at(along="steered"), _others(self.cost), self.cost)
        worst = float(self.cost.at(along="steered").values.max())
        reading = f"At the costliest dose the perplexity of ordinary text is {math.exp(min(worst, 50)):.3g} times what it was."
        return Page("Dose and response", sections=(Section("What is said", self.behaviour.note, (said,)),
                                                   Section("What it costs", reading, (paid,))))  # fmt: skip

    def show(self) -> None:
        """Draw in the terminal or notebook."""
        self.picture().show()

    def html(self) -> str:
        """One self-contained HTML page."""
        return self.picture().html()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()

    def save(self, folder: str | Path) -> Path:
        """Write both grids to a folder."""
        self.behaviour.save(Path(folder) / "behaviour")
        self.cost.save(Path(folder) / "cost")
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Response:
        """Read what `save` wrote."""
        behaviour = Grid.load(Path(folder) / "behaviour")
        return cls(behaviour, Grid.load(Path(folder) / "cost"), tuple(float(dose) for dose in behaviour.words("dose")))


def dose(model: Model, site: str | Site, vector: Direction | Float[Tensor, "*rows d"], doses: Sequence[float],
         prompts: Sequence, *, measure: Behaviour, text: Sequence, by: By = steer, randoms: int = 3,
         against: Mapping[str, Direction | Tensor] | None = None, seed: int = 0) -> Response:  # fmt: skip
    """Steer with `dose` times a vector, dose by dose; the same along random directions of equal length.

    The unit of a dose is the vector's own length, or, for a direction, its gap. `measure` is a metric or one of `says` and
    `writes`; `text` is what the cost is measured on. Further directions to compare with, named by `against`, are made as long
    as the vector. Finished doses are kept where a journal is open.

    >>> from patchclamp.probe.dose import dose, says
    >>> liked, disliked = ([f"The {w} was {a}. We went home" for w in ("film", "soup")] for a in ("lovely", "dull"))
    >>> joy = pc.contrast(model, "blocks.2.out", liked, disliked)
    >>> response = dose(model, "blocks.2.out", joy, (0, 0.25, 1), disliked, text=[clean], randoms=1,
    ...                 measure=says([" happy", " pleased", " excited", " grateful", " cheerful", " delighted"]))
    >>> response.behaviour.shape, response.effect.values.tolist(), response.chance.values.tolist()
    ({'along': 2, 'dose': 3}, [0.0, 0.0, 1.0], [0.0, 0.0, 0.0])
    >>> bool(response.cost.values[0, 2] > 0)
    True
    """
    site, step = Site.parse(site), 1 * vector if isinstance(vector, Direction) else torch.as_tensor(vector)
    prompts, text, doses = list(prompts), list(text), tuple(float(d) for d in doses)
    if not (prompts and text and doses):
        raise WrongPrompt("a dose-response curve needs prompts, ordinary text for its cost, and doses.")
    lines = {"steered": step, **{f"{RANDOM} {n + 1}": random_like(step, seed=1000 * seed + n) for n in range(randoms)}}
    for name, other in (against or {}).items():
        way = 1 * other if isinstance(other, Direction) else other
        lines[name] = way * (step.norm() / way.norm().clamp(min=1e-30))
    jobs = [(line, size) for line in lines.values() for size in doses]

    def about() -> Iterator[object]:
        yield from (fingerprint(model), str(site), step, doses, seed, of_function(by))
        yield from (*lines.values(), *_called(measure), of_function(measure), repr(prompts), repr(text))

    page = leaf("doses", about)
    for n, (line, size) in enumerate(progress(jobs, len(jobs), "doses")):
        if n not in page.known:
            made = by(site, size * line)
            edited = model.edit(*(made if isinstance(made, tuple) else (made,)))
            page.write(n, torch.cat([_measured(edited, measure, prompts), nats(edited, text)]))
    found = torch.stack([page.known[n] for n in range(len(jobs))]).unflatten(0, (len(lines), len(doses)))
    said, told = found[..., : len(prompts)].movedim(-1, 0), found[..., len(prompts) :].movedim(-1, 0)
    name, unit = _called(measure)
    plain = nats(model, text)
    note = f"Interval over {len(prompts)} prompts; {randoms} random directions of equal length."
    behaviour = _grid(said, lines, doses, name, unit, note)
    cost = _grid(told - plain[:, None, None], lines, doses, "Cost on ordinary text", "nats per token", "")
    return Response(behaviour, replace(cost, baseline={"nats per token": float(plain.mean())}), doses)


def says(wanted: Sequence[str | int], name: str = "says it") -> Callable[[Model, Sequence], PerPrompt]:
    """Whether the likeliest next token, of all there are, is one of the wanted: 1 or 0 a prompt."""
    wanted = tuple(wanted)

    def measure(model: Model, prompts: Sequence) -> PerPrompt:
        ids, found = {model.token(word) for word in wanted}, []
        for begin in range(0, len(prompts), BATCH):
            run = model.run(prompts[begin : begin + BATCH])
            top = run.logits[range(len(run.last)), run.last].argmax(-1)
            found += [float(int(token) in ids) for token in top]
        return torch.tensor(found)

    return _named(measure, name)


def writes(wanted: Sequence[str | int], unwanted: Sequence[str | int], tokens: int = 12, name: str = "writes it",
           **sampling: Any) -> Callable[[Model, Sequence], PerPrompt]:  # fmt: skip
    """Of the wanted and unwanted words in a continuation of so many tokens, the share of wanted ones; 0 where there are none.

    Greedy, or by `do_sample=True` and its kin; a text without a word of either kind counts against the steering, so that
    babble does not pass for success.
    """
    wanted, unwanted, how = tuple(wanted), tuple(unwanted), tuple(sampling.items())

    def measure(model: Model, prompts: Sequence) -> PerPrompt:
        good, bad = ({model.token(word) for word in words} for words in (wanted, unwanted))
        found = []
        for begin in range(0, len(prompts), BATCH):
            run = model.generate(prompts[begin : begin + BATCH], tokens, **dict(how))
            for row in run.tokens[:, run.tokens.shape[1] - run.fresh :].tolist():
                counts = [sum(token in words for token in row) for words in (good, bad)]
                found.append(counts[0] / sum(counts) if sum(counts) else 0.0)
        return torch.tensor(found)

    return _named(measure, name)


def nats(model: Model, text: Sequence) -> PerPrompt:
    """The average surprisal of each text's tokens after its first, in nats.

    >>> from patchclamp.probe.dose import nats
    >>> bool(nats(model, [clean]) < nats(model.edit(pc.zero("blocks.*.attn.out")), [clean]))
    True
    """
    found = []
    for begin in range(0, len(text), BATCH):
        run = model.run(list(text[begin : begin + BATCH]))
        window = run.windows[""]
        for row in range(len(run.tokens)):
            if len(window.tokens(row)) < 2:
                raise WrongPrompt("a text of one token has nothing in it that could be predicted.")
            found.append(surprisals(run, row).mean())
    return torch.stack(found)


def _measured(model: Model, measure: Behaviour, prompts: Sequence) -> PerPrompt:
    if not isinstance(measure, Metric):
        return measure(model, prompts).float().cpu()
    run = model.run(prompts)
    if run.output is None:
        raise Unserved(f"{model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
    return read(model.metric(measure, run), run.logits, len(prompts))


def _grid(each: Float[Tensor, "prompt along dose"], lines: dict, doses: Sequence[float], title: str, unit: str,
          note: str) -> Grid:  # fmt: skip
    counted = bool(((each == 0) | (each == 1)).all())
    ends = () if len(each) < FEWEST else wilson(each.mean(0), len(each)) if counted else interval(each)
    details: dict[str, Tensor] = dict(zip(("low", "high"), ends))
    labels = {"along": list(lines), "dose": [f"{size:g}" for size in doses]}
    return Grid(each.mean(0), ("along", "dose"), labels, unit, title, note, scale="sequential", details=details, each=each)


def _others(grid: Grid) -> Grid:
    """The mean over random directions, their extremes as details."""
    rows = [n for n, word in enumerate(grid.words("along")) if word.startswith(RANDOM)]
    if not rows:
        raise Unserved("no random directions were tried; ask for some with randoms=.")
    rest = grid.values[rows]
    return replace(grid, values=rest.mean(0), axes=("dose",), each=None, details={"low": rest.amin(0), "high": rest.amax(0)},
                   title=f"{grid.title}, random directions")  # fmt: skip


def _lines(doses: Sequence[float], mine: Grid, others: Grid, grid: Grid) -> Lines:
    def series(name: str, one: Grid) -> Series:
        band = {end: one.details[end].numpy() for end in ("low", "high") if end in one.details}
        return Series(name, one.values.numpy(), **band)

    return Lines(np.array(doses), (series("steered", mine), series("random", others)), "dose", grid.title, grid.unit,
                 title=grid.title)  # fmt: skip


def _called(measure: Behaviour) -> tuple[str, str]:
    """What people call it, and its unit."""
    name = getattr(measure, "name", getattr(measure, "__name__", "behaviour"))
    return name, getattr(measure, "unit", "") or "fraction"


def _named(measure: Callable, name: str) -> Callable:
    named = partial(measure)
    named.__name__ = name  # type: ignore[attr-defined]
    return named
