"""The body of `patchclamp effects`: which places carry an answer, how sure that is, and where chance alone would do.

Patching puts the clean run's value into the corrupt run (or, noising, the other way round) and says which share of the
answer comes back (or goes). Ablation takes a place away and says what the metric loses. From five prompts on, every cell has
a 95 % interval, and p-values corrected for the number of cells say which of them chance would not explain.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from patchclamp.app import readings
from patchclamp.app.asked import METRICS, Asked, WrongOption, one_of
from patchclamp.app.report import Report, cells, described
from patchclamp.cause.ablate import ablate, noised, shuffled
from patchclamp.cause.effects import effects, exact
from patchclamp.cause.estimate import gradient
from patchclamp.cause.spread import Spread
from patchclamp.core.edit import Edit, mean, patch, zero
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST
from patchclamp.model.replay import tokens_of
from patchclamp.picture import Page, Section, Table

STREAM, HEADS = "blocks.*.out[pos=*]", "blocks.*.attn.z[head=*]"
ESTIMATES = {"exact": exact, "gradient": gradient}
SOURCES = ("patch", "zero", "mean", "resample", "noise")
PARTS = ("attn", "mlp")
SURE = 0.05
"""The corrected p-value below which a cell is said to differ from zero."""
MOST = 20_000
"""Cells above which chance is not judged: permutations of so many take too long."""
NAMES = {
    "out": ("The stream", "the stream"),
    "in": ("The stream", "the stream"),
    "mid": ("The stream within a block", "the stream"),
    "attn.out": ("Attention layers", "an attention layer's output"),
    "mlp.out": ("Feed-forward layers", "a feed-forward layer's output"),
    "attn.z": ("Heads", "a head's output"),
    "attn.q": ("Queries", "a head's query"),
    "attn.k": ("Keys", "a head's key"),
    "attn.v": ("Values", "a head's value"),
    "attn.pattern": ("Attention patterns", "a head's pattern"),
    "mlp.act": ("Neurons", "a neuron"),
}


@dataclass(frozen=True)
class How:
    """How effects are to be found, as the options say it."""

    sites: tuple[str, ...] = ()
    metric: str | None = None
    estimate: str = "exact"
    by: str = "patch"
    window: int = 1
    sever: tuple[str, ...] = ()
    noising: bool = False

    def checked(self) -> How:
        """These options, provided that they go together; told before a model is opened."""
        if self.metric is not None:
            one_of("--metric", self.metric, METRICS)
        one_of("--estimate", self.estimate, ESTIMATES)
        one_of("--by", self.by, SOURCES)
        for part in self.sever:
            one_of("--sever", part, PARTS)
        for pattern in self.sites:
            Site.parse(pattern)
        if self.window < 1:
            raise WrongOption(f"--window is how many layers are changed at once, one or more; got {self.window}.")
        if self.by != "patch":
            for name, given in (("--sever", self.sever), ("--noising", self.noising), ("--estimate", self.estimate != "exact")):
                if given:
                    raise WrongOption(f"{name} is about patching one run into another; it does not go with --by {self.by}.")
        if self.estimate == "gradient" and (self.window > 1 or self.metric == "rank"):
            what = "a window of layers" if self.window > 1 else "a rank, which has none"
            raise WrongOption(f"--estimate gradient is not of {what}; leave it out to patch exactly.")
        return self

    def places(self, asked: Asked) -> tuple[str, ...]:
        """The patterns: the stream by token for one pair, the heads for many, unless told otherwise."""
        return self.sites or ((STREAM,) if len(asked.clean) == 1 else (HEADS,))


def planned(asked: Asked, how: How) -> Iterator[str]:
    """What is going to be done, a line a pattern."""
    model, inputs = asked.model, asked.model.inputs(asked.clean)
    for pattern in how.places(asked):
        paths = model.places(pattern)
        run = model.run(inputs, paths, logits=False)
        n = len(Spread(run, inputs, Site.parse(pattern), paths).sites)
        many = f"{n} cells on {len(asked.clean)} prompt{'s' if len(asked.clean) > 1 else ''}"
        passes = max(math.ceil(n * inputs.tokens.numel() / tokens_of(model)), 1)
        work = (
            "two passes and a gradient" if how.estimate == "gradient" else f"about {passes} batched pass{'es' * (passes > 1)}"
        )
        yield f"{pattern}: {many}, {work}"


def effect_report(asked: Asked, how: How) -> Report:
    """Find the effects of every pattern and make the report of them."""
    started, metric = time.perf_counter(), asked.metric(how.metric)
    found = {pattern: _effects(asked, how, pattern, metric) for pattern in how.places(asked)}
    sections, numbers, told = [], {}, {}
    for pattern, grid in found.items():
        mine, data = _sections(grid, pattern, how)
        sections += mine
        numbers[pattern], told[pattern] = data, mine[0].reading
    base = next(iter(found.values())).baseline
    ends = [(base[k], f"on the {k} prompt{'s' * (len(asked.clean) > 1)}") for k in ("clean", "corrupt") if k in base]
    facts = described(asked, metric, ends or [(base["metric"], "before")])
    facts["took"] = f"{time.perf_counter() - started:.1f} s"
    page = Page(f"What carries the answer in {asked.model.name}", "", facts, tuple(sections),
                "Written by patchclamp effects. Everything on this page is in this one file.")  # fmt: skip
    return Report(page, {"model": asked.model.name, "facts": facts, "readings": told, "grids": numbers})


def _effects(asked: Asked, how: How, pattern: str, metric: Metric) -> Grid:
    model = asked.model
    if how.by != "patch":
        return ablate(model, asked.clean, pattern, metric, by=_source(asked, how.by, pattern), window=how.window)
    ours, theirs = (asked.corrupt, asked.clean) if how.noising else (asked.clean, asked.corrupt)
    grid = effects(model, ours, theirs, pattern, metric, estimate=ESTIMATES[how.estimate], window=how.window, severed=how.sever)
    if how.noising:  # what is patched in is the corrupt run's: call the ends by what they are
        ends = grid.baseline
        grid = replace(grid, baseline={"clean": ends["corrupt"], "corrupt": ends["clean"]})
    return grid


def _source(asked: Asked, by: str, pattern: str) -> Callable[[Site], Edit]:
    """What a place holds once it is taken away."""
    model = asked.model
    if by == "zero":
        return zero
    if by == "mean":
        over = model.run([*asked.clean, *(asked.corrupt or [])], model.places(pattern), logits=False)
        return lambda site: mean(site, over)
    run = model.run(asked.clean, model.places(pattern), logits=False)
    if by == "resample":
        other = shuffled(run)
        return lambda site: patch(site, other)
    return lambda site: noised(float(run[site.path].float().std()))(site)


def _sections(grid: Grid, pattern: str, how: How) -> tuple[list[Section], dict[str, Any]]:
    """The map of a pattern, and, where there are prompts enough, what chance has to say about it."""
    title, what = NAMES.get(".".join(map(str, Site.parse(pattern).parts[2:])), (pattern, "a place"))
    prompts = 1 if grid.each is None else grid.each.shape[0]
    if prompts > 1 and "pos" in grid.axes:  # the words are the first prompt's, and others have other ones
        grid = replace(grid, labels={**grid.labels, "pos": [w.split(" ")[0] for w in grid.words("pos")]})
    if prompts >= FEWEST and "low" not in grid.details:
        bounds = grid.interval()
        grid = replace(grid, details={k: bounds.at(bound=k).values for k in ("low", "high")})
    shown, said = _in_words(grid, pattern, what, how)
    if how.estimate == "gradient":
        said += " These are estimates from gradients, to first order; what is saturated has none."
    data = grid.json()
    reason = ""
    if 1 < prompts < FEWEST:
        reason = f"With fewer than {FEWEST} prompts nothing is said about chance."
    elif prompts >= FEWEST and grid.values.numel() > MOST:
        reason = f"Chance is not judged for more than {MOST} cells; name fewer with --sites."
    if prompts < FEWEST or reason:
        return [Section(title, said, _pictures(shown), reason)], data
    p = grid.p_values()
    data["details"] |= {"p": p.json()["values"]}
    shown = replace(shown, details={**shown.details, "p, corrected": p.values})
    return [Section(title, said, _pictures(shown)), _chance(shown, p, title, prompts)], data


def _in_words(grid: Grid, pattern: str, what: str, how: How) -> tuple[Grid, str]:
    """The grid as it is shown, and its reading."""
    if how.by != "patch":
        name = {"zero": "nothing", "mean": "its mean", "resample": "another prompt's value", "noise": "noise besides"}[how.by]
        shown = replace(grid, title=f"{grid.title.partition(' without')[0]} where {what} holds {name}")
        return shown, _strongest(shown, f"Where {what} holds {name}, the metric moves most at")
    clean, corrupt = grid.baseline["clean"], grid.baseline["corrupt"]
    if abs(clean - corrupt) < 1e-3:
        return grid, f"The two prompts give the same answer ({clean - corrupt:+.1e} apart): there is nothing to carry."
    ends = f"{readings.signed(clean)} {grid.unit} on the clean prompt and {readings.signed(corrupt)} on the corrupt one"
    note = f"Of {ends}. {grid.note}".strip()
    if how.noising:
        turned = replace(grid, baseline={"clean": corrupt, "corrupt": clean})  # 1 is all the way to the corrupt run
        shown = replace(turned.fraction(), title=f"Share of the answer destroyed by {what} of the corrupt run", note=note)
        return shown, _strongest(shown, f"Putting in {what} of the corrupt run destroys most at")
    shown = replace(grid.fraction(), title=f"Share of the answer restored by {what}", note=note)
    plain = how.estimate == "exact" and how.window == 1 and not how.sever
    if pattern == STREAM and plain and shown.each is not None and shown.each.shape[0] == 1:
        return shown, readings.story(shown)
    return shown, _strongest(shown, f"Putting in {what} restores most at")


def _strongest(grid: Grid, begin: str) -> str:
    """The strongest cells, each with its interval where it has one, and a middling cell beside them."""
    shares = grid.unit == "fraction of the gap"
    flat = grid.values.flatten()
    places, order = cells(grid), flat.abs().nan_to_num(-1).argsort(descending=True)[:3].tolist()
    if not float(flat.abs().nan_to_num(0).max()):
        return "No place makes any difference."
    bounds = [grid.details[k].flatten() for k in ("low", "high") if k in grid.details]
    told = []
    for n in order:
        ends = f", {' to '.join(_amount(float(b[n]), shares, '') for b in bounds)}" if bounds else ""
        told.append(f"{readings.cell(places[n])} ({_amount(float(flat[n]), shares)}{'' if shares else ' ' + grid.unit}{ends})")
    middling = _amount(max(float(flat.abs().nanmedian()), 1e-3 if shares else 1e-2), shares, "")
    tail = f"; half of all {flat.numel()} cells do less than {middling}" if flat.numel() > 4 else ""
    return f"{begin} {', '.join(told)}{tail}." + (" The ranges are 95 % intervals over prompts." if bounds else "")


def _amount(value: float, shares: bool, sign: str = "+") -> str:
    return readings.signed(value, f"{sign}.1%") if shares else readings.signed(value, f"{sign}.2f")


def _chance(grid: Grid, p: Grid, title: str, prompts: int) -> Section:
    """Which cells differ from zero by more than chance, all cells together considered."""
    n, sure = p.values.numel(), int((p.values < SURE).sum())
    told = f"Corrected for all {n} cells, {sure or 'none'} of them {'differs' if sure == 1 else 'differ'} from zero"
    told += f" (p < {SURE}, sign-flip permutations of {prompts} prompts)."
    if prompts < 8 and not sure:
        told += f" With {prompts} prompts no p-value can be much smaller; ask more of them."
    flat, chances, places = grid.values.flatten(), p.values.flatten(), cells(grid)
    order = [i for i in flat.abs().nan_to_num(-1).argsort(descending=True).tolist() if chances[i] < SURE][:20]
    bounds = [grid.details[k].flatten() for k in ("low", "high")]
    rows = tuple((readings.cell(places[i]), float(flat[i]), *(float(b[i]) for b in bounds), float(chances[i])) for i in order)
    table = Table(("place", grid.unit or "value", "95 % from", "to", "p, corrected"), rows, digits=3)
    return Section(f"{title}: what chance would not do", told, (table,) if rows else ())


def _pictures(grid: Grid) -> tuple:
    return (grid.picture(),) if grid.values.ndim <= 3 else ()
