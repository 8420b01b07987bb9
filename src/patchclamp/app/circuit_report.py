"""The body of `patchclamp circuit`: find the subgraph that does the work, and judge it as one would a stranger's.

A method weighs every edge (or decides about each), the strongest are taken until enough of the answer is kept, edges that lead
nowhere are left out; then the circuit runs by itself, the model runs without it, and random circuits of the same size run
beside it. Pairs of a task that were not used to find it say whether it holds beyond them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from patchclamp.app.asked import METRICS, Asked, WrongOption, one_of
from patchclamp.app.readings import signed
from patchclamp.app.report import Report, described
from patchclamp.circuit.acdc import acdc
from patchclamp.circuit.eap import eap, eap_ig
from patchclamp.circuit.edges import Question, edges, exact, label
from patchclamp.circuit.faithful import Verdict, curve, judge
from patchclamp.circuit.find import found, living
from patchclamp.circuit.mask import Gates, learned
from patchclamp.circuit.mib import write_mib
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.graph import Graph
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric
from patchclamp.model.wires import Wires
from patchclamp.picture import Bars, Lines, Page, Section, Series, Table

METHODS = ("eap", "eap-ig", "exact", "acdc", "mask")
FAITHFUL, OPEN, MOVES = 0.9, 0.5, 0.01
"""Unless told otherwise: the share of the answer to keep, the probability of an open gate, and, as a share of the gap, how far
cutting an edge may move the metric in ACDC."""
STEPS = 5


@dataclass(frozen=True)
class How:
    """How a circuit is to be found, as the options say it."""

    method: str = "eap-ig"
    threshold: float | None = None
    edges: int | None = None
    share: float | None = None
    faithful: float | None = None
    metric: str | None = None
    random: int = 20
    signed: bool = False
    seed: int = 0

    def checked(self) -> How:
        """These options, provided that they go together; told before a model is opened."""
        one_of("--method", self.method, METHODS)
        if self.metric is not None:
            one_of("--metric", self.metric, METRICS)
        if self.metric == "rank" and self.method in ("eap", "eap-ig", "mask"):
            raise WrongOption(f"--method {self.method} goes by gradients, and a rank has none; take exact or acdc.")
        if self.metric == "kl" and self.method == "eap":
            raise WrongOption("the KL divergence has no slope at the clean run, where --method eap takes it; take eap-ig.")
        sizes = {k: v for k in ("threshold", "edges", "share", "faithful") if (v := getattr(self, k)) is not None}
        if len(sizes) > 1:
            raise WrongOption(f"a circuit is cut off in one way; these are {len(sizes)}: {', '.join('--' + k for k in sizes)}.")
        if self.method == "acdc" and sizes and "threshold" not in sizes:
            raise WrongOption(f"--method acdc is steered by --threshold alone; leave out --{next(iter(sizes))}.")
        for name, value in sizes.items():
            if value <= 0 or (name in ("share", "faithful") and value > 1):
                limit = "above 0 and up to 1" if name in ("share", "faithful") else "above 0"
                raise WrongOption(f"--{name} is {limit}; got {value:g}.")
        if self.random < 0:
            raise WrongOption(f"--random is how many random circuits to compare with; got {self.random}.")
        return self


def planned(asked: Asked, how: How) -> str:
    """What is going to be done, in a line."""
    wires = Wires.of(asked.model)
    n = int(wires.joined.sum())
    work = {
        "eap": "two passes and one gradient",
        "eap-ig": f"{STEPS} gradients",
        "exact": f"{n} changed passes, batched",
        "acdc": f"{n} decisions, one after another",
        "mask": f"{Gates().steps} steps of learning",
    }[how.method]
    prompts = f"{len(asked.clean)} prompt pair{'s' * (len(asked.clean) > 1)}"
    return f"{n} edges on {prompts} by {how.method}: {work}; then {how.random} random circuit{'s' * (how.random != 1)}."


def circuit_report(asked: Asked, how: How, fresh: Asked | None = None, mib: Path | None = None,
                   save: Path | None = None) -> Report:  # fmt: skip
    """Find a circuit, judge it, write it where it is wanted, and make the report of it."""
    started, metric, model = time.perf_counter(), asked.metric(how.metric), asked.model
    q = Question.of(model, asked.clean, asked.corrupt, metric)
    ends = [float(end.mean()) for end in q.ends]
    if abs(ends[0] - ends[1]) < 1e-3:
        gap = f"{ends[0] - ends[1]:+.1e}"
        raise WrongPrompt(
            f"the clean and the corrupt prompts give the same {metric.name} ({gap} apart); there is nothing to carry."
        )
    circuit, ranking = _found(asked, how, metric, ends[0] - ends[1])
    verdict = judge(model, circuit, asked.clean, asked.corrupt, metric, random=how.random, seed=how.seed)
    beyond = None
    if fresh is not None:
        beyond = judge(model, circuit, fresh.clean, fresh.corrupt, fresh.metric(how.metric), random=0)
    steps = None if ranking is None else curve(model, ranking, asked.clean, asked.corrupt, metric, signed=how.signed)
    data = {"verdict": {**asdict(verdict), "p_value": verdict.p_value}, "circuit": asdict(circuit)}
    data["beyond"] = None if beyond is None else asdict(beyond)
    data["curve"] = None if steps is None else steps.json()
    if mib is not None:
        data["mib"] = str(write_mib(circuit, mib, model, ranking))
    if save is not None:
        data["saved"] = str(circuit.save(save))
    sections = (
        _circuit(circuit, verdict, beyond),
        _judged(verdict, beyond),
        _strongest(circuit),
        _curve(steps, int(q.wires.joined.sum())),
    )
    told = zip(ends, ("on the clean prompt", "on the corrupt prompt"))
    facts = described(asked, metric, [(v, where + "s" * (len(asked.clean) > 1)) for v, where in told])
    facts |= {"method": _method(how), "took": f"{time.perf_counter() - started:.1f} s"}
    page = Page(f"The circuit in {model.name}", "", facts, sections,
                "Written by patchclamp circuit. Everything on this page is in this one file.")  # fmt: skip
    readings = {s.title: s.reading for s in sections if s.reading}
    return Report(page, {"model": model.name, "facts": facts, "readings": readings, **data})


def _found(asked: Asked, how: How, metric: Metric, gap: float) -> tuple[Graph, Graph | None]:
    """The circuit, and the ranking of all edges that it was taken from, if there is one."""
    model, prompts = asked.model, (asked.clean, asked.corrupt)
    own = None if how.metric == "kl" else metric  # these two have the divergence from the uncut model built in
    if how.method == "acdc":
        threshold = how.threshold or MOVES * abs(gap)
        return living(model, acdc(model, *prompts, threshold, own)), None
    if how.method == "mask":
        ranking = learned(model, *prompts, own, gates=Gates(seed=how.seed))
    else:
        ranking = edges(model, *prompts, metric, estimate={"eap": eap, "eap-ig": eap_ig(STEPS), "exact": exact}[how.method])
    order = ranking.strongest(signed=how.signed)
    if how.edges is not None:
        return living(model, ranking.only(order[: how.edges])), ranking
    if how.share is not None:
        return living(model, ranking.only(order[: max(round(how.share * len(order)), 1)])), ranking
    if how.threshold is not None or (how.method == "mask" and how.faithful is None):
        least = how.threshold or OPEN
        strength: Callable[[float], float] = (lambda w: w) if how.signed else abs
        return living(model, ranking.only(e for e in order if strength(e.weight) >= least)), ranking
    circuit = found(model, *prompts, metric, ranking=ranking, faithful=how.faithful or FAITHFUL, largest=1, signed=how.signed)
    return living(model, circuit), ranking


def _method(how: How) -> str:
    return {
        "eap": "edge attribution patching",
        "eap-ig": f"edge attribution patching, integrated gradients, {STEPS} steps along the inputs",
        "exact": "edge patching, every edge by itself",
        "acdc": "ACDC",
        "mask": f"learned gates, seed {how.seed}",
    }[how.method] + (", ranked by sign" if how.signed else "")


def _circuit(circuit: Graph, verdict: Verdict, beyond: Verdict | None) -> Section:
    if not circuit.edges:
        lost = "no edge on a way from the embedding to the logits is left; take more edges, or a lower --threshold."
        return Section("The circuit", left_out=lost)
    heads = sum("attn.z" in n.site for n in circuit.nodes)
    layers = sum("mlp" in n.site for n in circuit.nodes)
    parts = f"{heads} head{'s' * (heads != 1)} and {layers} feed-forward layer{'s' * (layers != 1)}"
    told = f"{len(circuit.edges)} edges ({verdict.share:.1%} of all) between {parts} keep {_share(verdict.faithfulness)}"
    told += (
        f" of the answer, and {_share(beyond.faithfulness)} on pairs that were not used to find them."
        if beyond is not None
        else " of the answer."
    )
    return Section("The circuit", told, (replace(circuit, title="From the embedding to the logits").picture(),))


def _judged(verdict: Verdict, beyond: Verdict | None) -> Section:
    rows = [("the circuit", verdict.faithfulness), ("all but the circuit", verdict.complement)]
    if beyond is not None:
        rows.insert(1, ("it, on other pairs", beyond.faithfulness))
    told = f"Without the circuit {_share(verdict.complement)} of the answer is left"
    if verdict.random:
        n, best = len(verdict.random), max(verdict.random)
        rows += [("random, on average", sum(verdict.random) / n), ("random, the best", best)]
        told += f"; of {n} random circuits of as many edges the best keeps {_share(best)} (p = {verdict.p_value:.2g}"
        told += ", as small as so few can tell)" if verdict.p_value * (n + 1) < 1.5 else ")"
    values = np.array([_rounded(v) for _, v in rows])
    picture = Bars(
        values, tuple(name for name, _ in rows), "fraction of the gap", "what runs", title="How much of the answer is left"
    )
    return Section("Is it the circuit?", f"{told}.", (picture,))


def _strongest(circuit: Graph, most: int = 20) -> Section:
    order = circuit.strongest()
    rows = tuple((label(e.sender), label(e.receiver), e.into, e.weight) for e in order[:most])
    if not rows:
        return Section("Strongest edges", left_out="there are no edges.")
    first, unit = order[0], circuit.unit or "weight"
    into = f", as its {first.into}," if first.into in "qkv" and first.into else ""
    told = (
        f"The strongest leads from {label(first.sender)} to {label(first.receiver)}{into} with {signed(first.weight)} {unit}."
    )
    title = f"The {len(rows)} strongest of {len(order)} edges" if len(order) > most else "All edges"
    return Section("Strongest edges", told, (Table(("from", "to", "enters as", unit), rows, digits=3, title=title),))


def _curve(steps: Grid | None, total: int) -> Section:
    title = "How many edges are enough"
    if steps is None:
        return Section(title, left_out="ACDC gives one circuit, not a ranking of all edges; take another --method for a curve.")
    shares, values = [float(s) for s in steps.words("share")], [_rounded(v) for v in steps.values.tolist()]
    cpr, cmd = signed(steps.baseline["CPR"], ".3f"), f"{steps.baseline['CMD']:.3f}"
    told = (
        f"Over the share of edges taken, the area under this curve (CPR) is {cpr}, and its distance from the whole model (CMD)"
    )
    told += f" is {cmd}; a perfect ranking has a CMD near 0."
    some = [(round(s * total), v) for s, v in zip(shares, values) if round(s * total)]
    picture = Lines(np.log10([n for n, _ in some]), (Series("faithfulness", np.array([v for _, v in some])),),
                    "edges, as a power of ten", "fraction of the gap", title=steps.title)  # fmt: skip
    rows = tuple((s, round(s * total), v) for s, v in zip(shares, values))
    return Section(title, told, (picture, Table(("share of all edges", "edges", "fraction of the gap"), rows, digits=3)))


def _share(value: float) -> str:
    return signed(_rounded(value), ".1%")


def _rounded(value: float) -> float:
    """To the tenth of a percent, and no minus before a zero."""
    return round(value, 3) + 0.0
