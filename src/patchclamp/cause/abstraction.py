"""Causal abstraction: does a network work as a small causal model says, and does each variable live where one says?

A *causal model* is a handful of variables, each computed from others by a Python function. A *hypothesis* adds where in the
network each variable lives: a site, or a subspace of one. It is tested by interchange: take the variable's value from another
input, once in the causal model and once in the network, and ask whether both change their answer alike. The share of pairs in
which they do is the interchange intervention accuracy, IIA (Geiger et al. 2021, 2023).

What it does not know: whether another causal model would fit as well, and what happens at inputs that were not tried. An
interchange that leaves the answer as it is is passed by a place that does nothing, so read the accuracy beside `nothing`, the
share of pairs in which no change is the right one. Answers are compared where a prompt is answered, as one token.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.axes import Answers, Cells, Part, PerPrompt
from patchclamp.core.edit import Edit, Here
from patchclamp.core.errors import PatchclampError, ShapeMismatch, Unserved, WrongAxis, WrongPrompt, did_you_mean
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.core.window import Window
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model

Input = Mapping[str, Any]
"""What a causal model is run on: a value for each name that no variable has."""
Word = str | int
Rows = Float[Tensor, "k d"]
"""Directions, one a row."""


class WrongHypothesis(PatchclampError):
    """A causal model that cannot be computed, or a hypothesis that does not fit the network or the inputs."""


@dataclass(frozen=True, eq=False)
class CausalModel:
    """Variables, each a function of inputs and other variables, which it names as its arguments.

    >>> from patchclamp.cause.abstraction import CausalModel
    >>> product = CausalModel({"sum": lambda a, b: a + b, "answer": lambda sum, c: sum * c})
    >>> product.run({"a": 1, "b": 2, "c": 3})["answer"]
    9
    >>> product.interchange({"a": 1, "b": 2, "c": 3}, {"sum": {"a": 4, "b": 4, "c": 0}})["answer"]
    24
    """

    variables: Mapping[str, Callable[..., Any]]
    output: str = "answer"
    """The variable that the network is to say."""

    def __post_init__(self) -> None:
        if self.output not in self.variables:
            near = did_you_mean(self.output, self.variables)
            raise WrongHypothesis(f'the output "{self.output}" is no variable of this causal model.{near}')
        self._order  # noqa: B018  a cycle is found now, not when the model is first run

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """What each variable is computed from."""
        return {name: tuple(inspect.signature(f).parameters) for name, f in self.variables.items()}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names that an input must give a value for."""
        named = dict.fromkeys(p for parents in self.parents.values() for p in parents)
        return tuple(p for p in named if p not in self.variables)

    def run(self, given: Input, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The value of every input and variable; those in `held` keep the value they have there."""
        if missing := [name for name in self.inputs if name not in given]:
            raise WrongHypothesis(
                f'this input gives no value for "{missing[0]}"; it has {", ".join(map(str, given)) or "none"}.'
            )
        values = {**given, **(held or {})}
        for name in self._order:
            if name in self.variables and name not in (held or {}):
                values[name] = self.variables[name](**{p: values[p] for p in self.parents[name]})
        return values

    def interchange(self, base: Input, sources: Mapping[str, Input]) -> dict[str, Any]:
        """The values of a run on `base` in which some variables keep the value that they have on another input."""
        return self.run(base, {name: self._named(self.run(given), name) for name, given in sources.items()})

    def _named(self, values: Mapping[str, Any], name: str) -> Any:
        if name not in values:
            raise WrongHypothesis(f'this causal model has no variable "{name}".{did_you_mean(name, values)}')
        return values[name]

    @cached_property
    def _order(self) -> tuple[str, ...]:
        try:
            return tuple(TopologicalSorter(self.parents).static_order())
        except CycleError as error:
            raise WrongHypothesis(f"these variables are computed from each other: {' <- '.join(error.args[1])}.") from None


@dataclass(frozen=True, eq=False, init=False)
class Location:
    """A place of the network: a site, a subspace of it where `directions` are given, a token of each prompt's own with `pos`.

    Directions act on the site's last axis and are made orthonormal. `pos` is a function of the input; a token that is the
    same in all prompts is written in the site, as in `"blocks.3.out[pos=-1]"`.
    """

    site: Site
    directions: Rows | None
    pos: Callable[[Any], int] | None

    def __init__(
        self, site: str | Site, directions: Rows | None = None, pos: Callable[[Any], int] | None = None
    ) -> None:  # fmt: skip
        site = Site.parse(site)
        if site.stars:
            raise WrongHypothesis(f"{site} is a pattern; a variable lives at one place, so write numbers for its stars.")
        if pos is not None and "pos" in dict(site.index):
            raise WrongHypothesis(f"{site} already says which token; leave it out of the site, or leave out `pos`.")
        for name, value in (("site", site), ("directions", _orthonormal(directions)), ("pos", pos)):
            object.__setattr__(self, name, value)

    def parts(self, run: Run, inputs: Sequence[Any] = ()) -> Part:
        """What stands here in a run that kept the site, prompt by prompt. `inputs` are asked for their `pos`."""
        value = run[self.site]
        if self.pos is None:
            return value
        _, axes, windows = run.stored(self.site.bare())
        rows, columns = _columns(self.site, axes, windows, self._positions(inputs))
        return value[rows, columns]

    def edit(self, source: Run, bases: Sequence[Any] = (), sources: Sequence[Any] = ()) -> Edit:
        """The edit that puts here what stands here in another run, and leaves what is outside the subspace as it is.

        >>> from patchclamp.cause.abstraction import Location
        >>> mary = model.run(clean, keep="blocks.3.out")
        >>> model.edit(Location("blocks.3.out[pos=-1]").edit(mary)).run(corrupt).next().top(1)[0][0]
        {'vocab': ' Mary'}
        """
        return self.swap(self.parts(source, sources), bases)

    def swap(self, parts: Part, bases: Sequence[Any] = (), read: Rows | None = None, write: Rows | None = None) -> Edit:
        """The same from values taken before. What is moved is read along `read` and written along `write`."""
        rows = (self.directions if read is None else read), (self.directions if write is None else write)
        positions = None if self.pos is None else self._positions(bases)
        return Edit(self.site, _swapped, "interchange", {"parts": parts, "rows": rows, "positions": positions})

    def _positions(self, inputs: Sequence[Any]) -> list[int]:
        assert self.pos is not None
        if not len(inputs):
            raise WrongHypothesis(f"{self.site} lies at a token of each input's own; give the inputs as well.")
        return [self.pos(each) for each in inputs]


@dataclass(frozen=True, eq=False, init=False)
class Hypothesis:
    """A causal model, and where in the network each of its variables lives.

    >>> from patchclamp.cause.abstraction import CausalModel, Hypothesis
    >>> other = CausalModel({"answer": lambda first, second, giver: second if giver == first else first})
    >>> told = "When {first} and {second} went to the store, {giver} gave a drink to".format_map
    >>> hypothesis = Hypothesis(other, {"answer": "blocks.3.out[pos=-1]"}, told, {"Mary": " Mary", "John": " John"})
    """

    causal: CausalModel
    places: Mapping[str, Location]
    prompt: Callable[[Any], Prompt]
    """An input as the network reads it: text or token ids."""
    answers: Mapping[Hashable, Word] | None
    """The word for each value of the output, and the network chooses among these. Without it the values are words or token
    ids, and the network chooses from its whole vocabulary."""

    def __init__(self, causal: CausalModel, places: Mapping[str, Location | Site | str], prompt: Callable[[Any], Prompt],
                 answers: Mapping[Hashable, Word] | None = None) -> None:  # fmt: skip
        known = {*causal.inputs, *causal.variables}
        for name in places:
            if name not in known:
                raise WrongHypothesis(f'this causal model has no variable "{name}".{did_you_mean(name, known)}')
        made = {name: place if isinstance(place, Location) else Location(place) for name, place in places.items()}
        for name, value in (("causal", causal), ("places", made), ("prompt", prompt), ("answers", answers)):
            object.__setattr__(self, name, value)

    def place(self, variable: str) -> Location:
        """Where a variable lives."""
        if variable not in self.places:
            near = did_you_mean(variable, self.places)
            raise WrongHypothesis(f'this hypothesis does not say where "{variable}" lives.{near}')
        return self.places[variable]

    def placed(self, variable: str, location: Location | Site | str) -> Hypothesis:
        """The same hypothesis with a variable at another place."""
        return Hypothesis(self.causal, {**self.places, variable: location}, self.prompt, self.answers)


Sources = Sequence[Input] | Mapping[str, Sequence[Input]]
"""One source a base; or, for each variable, sources of its own."""


def interchange_accuracy(model: Model, hypothesis: Hypothesis, bases: Sequence[Input], sources: Sources, *,
                         groups: Iterable[Sequence[str]] = (), batch: int = 64, seed: int = 0) -> Grid:  # fmt: skip
    """In how many pairs the network, with a variable taken from the source, answers as the causal model does: Grid(variable).

    Each variable is tried alone, or each of `groups` together. `Grid.details` has the ends of a 95 % bootstrap interval over
    pairs (it has no width where every pair comes out the same), and `nothing`, what a place that does nothing would score.
    `Grid.baseline["model"]` is how often the network, left alone, answers as the causal model does.

    >>> inputs = [dict(first="Mary", second="John", giver=g) for g in ("Mary", "John")]
    >>> from patchclamp.cause.abstraction import CausalModel, Hypothesis, interchange_accuracy
    >>> other = CausalModel({"answer": lambda first, second, giver: second if giver == first else first})
    >>> told = "When {first} and {second} went to the store, {giver} gave a drink to".format_map
    >>> hypothesis = Hypothesis(other, {"answer": "blocks.3.out[pos=-1]"}, told, {"Mary": " Mary", "John": " John"})
    >>> interchange_accuracy(model, hypothesis, inputs, inputs[::-1]).top(1)
    [({'variable': 'answer'}, 1.0)]
    """
    chosen = [tuple(group) for group in groups] or [(name,) for name in hypothesis.places]
    trial = Trial.of(model, hypothesis, bases, sources, dict.fromkeys(name for group in chosen for name in group), batch)
    rounds = progress(chosen, label="interchanging")
    each = torch.stack([trial.right(trial.swaps(group), trial.targets(group)) for group in rounds], dim=1)
    own = trial.targets(())
    nothing = torch.stack([(trial.targets(group) == own).float().mean() for group in chosen])
    return graded(
        each, "variable", [" + ".join(group) for group in chosen], {"nothing": nothing.cpu()},
        {"model": float(trial.right(lambda rows: (), own).mean())}, seed,
    )  # fmt: skip


Swaps = Callable[[Sequence[int]], Sequence[Edit]]
"""The edits for some of the pairs, by number."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A hypothesis ready to be asked: pairs of inputs, and what each place holds in the runs of the sources."""

    model: Model
    hypothesis: Hypothesis
    bases: Sequence[Input]
    sources: Mapping[str, Sequence[Input]]
    inputs: Inputs
    """The bases as the network reads them."""
    parts: Mapping[str, Part]
    batch: int

    @classmethod
    def of(cls, model: Model, hypothesis: Hypothesis, bases: Sequence[Input], sources: Sources, variables: Iterable[str],
           batch: int = 64) -> Trial:  # fmt: skip
        variables = list(variables)
        mine = {name: sources[name] if isinstance(sources, Mapping) else sources for name in variables}
        for name, given in mine.items():
            if len(given) != len(bases) or not len(bases):
                raise WrongPrompt(f'every base needs a source: there are {len(bases)} bases and {len(given)} for "{name}".')
        parts: dict[str, Part] = {}
        for given in {id(each): each for each in mine.values()}.values():
            shared = [name for name in variables if mine[name] is given]
            parts.update(_held(model, hypothesis, given, shared, batch))
        return cls(model, hypothesis, bases, mine, read(model, hypothesis.prompt, bases), parts, batch)

    @cached_property
    def choices(self) -> Int[Tensor, " choice"] | None:
        """The tokens that the network chooses among; None for all there are."""
        if self.hypothesis.answers is None:
            return None
        return torch.tensor([self.model.token(word) for word in self.hypothesis.answers.values()], device=self.model.device)

    def targets(self, group: Sequence[str]) -> Int[Tensor, " pair"]:
        """What the causal model answers when these variables come from the source: numbers of choices, or tokens."""
        causal, known = self.hypothesis.causal, list(self.hypothesis.answers or ())
        found = []
        for n, base in enumerate(self.bases):
            said = causal.interchange(base, {name: self.sources[name][n] for name in group})[causal.output]
            if self.hypothesis.answers is None:
                found.append(self.model.token(said))
            elif said in known:
                found.append(known.index(said))
            else:
                raise WrongHypothesis(f"the causal model answers {said!r}, for which `answers` has no word; it has {known}.")
        return torch.tensor(found, device=self.model.device)

    def swaps(self, group: Sequence[str], read: Rows | None = None, write: Rows | None = None) -> Swaps:
        """The interchange of some variables; along given directions, where these are not the hypothesis' own."""

        def edits(rows: Sequence[int]) -> list[Edit]:
            bases = [self.bases[row] for row in rows]
            places = ((self.hypothesis.place(name), self.parts[name][list(rows)]) for name in group)
            return [place.swap(parts, bases, read, write) for place, parts in places]

        return edits

    def answers(self, swaps: Swaps, rows: Sequence[int], grad: bool = False) -> Answers:
        """The logits of the choices where some of the bases are answered."""
        run = self.model.edit(*swaps(rows)).run(taken(self.inputs, rows), grad=grad)
        at = answered(run)
        return at if self.choices is None else at[:, self.choices]

    def right(self, swaps: Swaps, targets: Int[Tensor, " pair"]) -> PerPrompt:
        """1 for each pair that is answered with its target, 0 for the others."""
        with torch.no_grad():
            said = torch.cat([self.answers(swaps, rows).argmax(-1) for rows in chunks(len(self.bases), self.batch)])
        return (said == targets).float().cpu()


def graded(each: Float[Tensor, "pair entry"], axis: str, words: Sequence[str], details: Mapping[str, Tensor],
           baseline: Mapping[str, float], seed: int, note: str = "") -> Grid:  # fmt: skip
    """Accuracies with their intervals."""
    low, high = resampled(each, seed=seed).quantile(torch.tensor([0.025, 0.975]), dim=0)
    return Grid(
        each.mean(0), (axis,), {axis: words}, unit="fraction", each=each, title="Interchange intervention accuracy",
        scale="sequential", details={"low": low, "high": high, **details}, baseline=baseline, note=note,
    )  # fmt: skip


def resampled(each: Cells, draws: int = 1000, seed: int = 0) -> Float[Tensor, "draw *cells"]:
    """Bootstrap: means over as many prompts as there are, drawn from them with replacement."""
    n = each.shape[0]
    picks = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(draws, n).scatter_add_(1, picks, torch.ones(draws, n))
    return (counts @ each.reshape(each.shape[0], -1).cpu().float() / n).reshape(draws, *each.shape[1:])


def read(model: Model, prompt: Callable[[Any], Prompt], inputs: Sequence[Any]) -> Inputs:
    """Inputs as the network reads them, in one batch."""
    prompts = [prompt(each) for each in inputs]
    return model.inputs([p.tolist() if isinstance(p, Tensor) else p for p in prompts])


def taken(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """Some prompts of a batch, by number."""
    picks = torch.tensor(list(rows), device=inputs.tokens.device)
    arguments = {k: v[picks] if isinstance(v, Tensor) else v for k, v in inputs.arguments.items()}
    windows = {k: replace(w, first=_some(w.first, rows), end=_some(w.end, rows)) for k, w in inputs.windows.items()}
    return Inputs(arguments, inputs.tokens[picks], windows)


def answered(run: Run) -> Answers:
    """The logits where each prompt is answered."""
    if run.output is None:
        raise Unserved(f"{run.model} returns no logits, so nothing can be asked of its answer; load it with its head.")
    at = run.output[range(len(run.last)), run.last]
    return at.to(torch.promote_types(at.dtype, torch.float32))


def chunks(n: int, size: int) -> list[range]:
    """The numbers below n, some at a time."""
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _some(numbers: tuple[int, ...] | None, rows: Sequence[int]) -> tuple[int, ...] | None:
    return None if numbers is None else tuple(numbers[row] for row in rows)


def _held(model: Model, hypothesis: Hypothesis, inputs: Sequence[Input], variables: Sequence[str], batch: int):
    """What the places of some variables hold, input by input."""
    places = {name: hypothesis.place(name) for name in variables}
    prompts, found = read(model, hypothesis.prompt, inputs), {name: [] for name in variables}
    for rows in chunks(len(inputs), batch):
        run = model.run(taken(prompts, rows), [place.site.bare() for place in places.values()], logits=False)
        for name, place in places.items():
            found[name].append(place.parts(run, [inputs[row] for row in rows]))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _swapped(value: Part, here: Here, parts: Part, rows: tuple[Rows | None, Rows | None], positions: list[int] | None) -> Part:
    """The change of an interchange; where each prompt has a token of its own, at that token only."""
    if here.rows is not None:
        parts = parts[list(here.rows)] if len(parts) > 1 else parts
        positions = None if positions is None else [positions[row] for row in here.rows]
    if positions is None:
        return _moved(value, parts, rows, here)
    prompts, columns = _columns(here.site, here.axes, here.windows, positions, here.late)
    made = value.clone()
    if prompts:
        chosen = parts[prompts] if len(parts) > 1 else parts
        made[prompts, columns] = _moved(value[prompts, columns], chosen, rows, here)
    return made


def _moved(base: Part, source: Part, rows: tuple[Rows | None, Rows | None], here: Here) -> Part:
    """base + (source - base) along the directions."""
    try:
        source = source.to(base.device).expand_as(base)
    except RuntimeError:
        raise ShapeMismatch(
            f"interchange at {here.site}: the base holds {list(base.shape)} and the source {list(source.shape)}. Prompts of "
            "unequal length have to name a token, as in [pos=-1] or Location(site, pos=...)."
        ) from None
    read, write = rows
    if read is None or write is None:
        return source.to(base.dtype)
    if read.shape[-1] != base.shape[-1]:
        raise ShapeMismatch(
            f"interchange at {here.site}: the directions have {read.shape[-1]} numbers, the place {base.shape[-1]}."
        )
    wide = torch.promote_types(base.dtype, read.dtype)
    read, write = read.to(base.device, wide), write.to(base.device, wide)
    return base + ((source.to(wide) - base.to(wide)) @ read.T @ write).to(base.dtype)


def _columns(site: Site, axes: Sequence[str], windows: Mapping[str, Window], positions: Sequence[int], late: bool = False):
    """The prompts that have their token here, and its column in each."""
    if list(axes[:2]) != ["batch", "pos"]:
        raise WrongAxis(
            f"{site} has the axes {' '.join(axes)}; a token of each prompt's own can be named where they begin batch pos."
        )
    window, n = windows["pos"], len(positions)
    columns = [window.columns(position, n)[row] for row, position in enumerate(positions)]
    inside = [row for row in range(n) if columns[row] in window.tokens(row)]
    if len(inside) < n and not late:
        row = next(row for row in range(n) if row not in inside)
        raise WrongAxis(f"{site}: prompt {row} has {len(window.tokens(row))} tokens, and none is number {positions[row]}.")
    return inside, [columns[row] for row in inside]


def _orthonormal(directions: Tensor | None) -> Rows | None:
    if directions is None:
        return None
    rows = torch.atleast_2d(directions.detach())
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if torch.allclose(rows @ rows.T, torch.eye(len(rows), device=rows.device, dtype=rows.dtype), atol=1e-5):
        return rows
    return torch.linalg.qr(rows.T).Q.T.contiguous()
