"""The body of `patchclamp debug`: which part makes the answers wrong, what mends it, and what that costs."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch

from patchclamp.app.readings import quoted, signed
from patchclamp.app.report import Report
from patchclamp.cause.blame import KINDS, PARTS, SUSPECTS, Blame, Cure, blame
from patchclamp.core.errors import NotSaved, PatchclampError
from patchclamp.core.pair import Pair, answer_token
from patchclamp.core.site import Site
from patchclamp.model.model import Model
from patchclamp.picture import Bars, Page, Section, Table

Example = tuple[object, int]
SHOWN = 15
"""Parts that are drawn."""
SAYS = {
    "mean": "held at its mean over the controls",
    "half": "moved half of the way to its mean over the controls",
    "steer": "given a vector that leads to where it is on the controls",
}


def examples(model: Model, pairs: list[Pair], where: Path) -> list[tuple]:
    """Prompts with the token that should follow each."""
    found = []
    for n, pair in enumerate(pairs, 1):
        try:
            prompt = pair.clean if isinstance(pair.clean, str) else list(pair.clean)
            found.append((prompt, answer_token(pair.clean, pair.answer, model.tokenizer)))
        except PatchclampError as error:
            raise type(error)(f"{where}, example {n}: {error.args[0]}") from None
    return found


def planned(model: Model, wrong: list, right: list) -> str:
    """What is going to be done, in a line."""
    parts = sum(model.heads if "head" in p else 1 for pattern in PARTS for p in _places(model, pattern))
    return (
        f"{len(wrong)} wrong examples, {len(right)} controls: {parts} parts are taken away one by one, then "
        f"{SUSPECTS * len(KINDS)} edits are tried."
    )


def debug_report(model: Model, wrong: list[tuple], right: list[tuple], by: str = "mean", lots: int = 5, seed: int = 0,
                 save: Path | None = None) -> Report:  # fmt: skip
    """Find the part to blame and its cure, save the edit where it is wanted, and make the report."""
    started = time.perf_counter()
    found = blame(model, wrong, right, by=by, lots=lots, seed=seed)
    best = found.best
    saved = "" if save is None else _saved(best, save)
    sections = (_guilty(found), _mended(found), _tried(found))
    facts = {
        "model": f"{type(model.hf).__name__}, {model.layers} blocks, width {model.width}",
        "wrong examples": f"{found.found + (found.held if found.held != found.found or len(wrong) > 7 else 0)}"
        + (f"; {found.left_out} more are answered right and left out" if found.left_out else ""),
        "controls": f"{len(right)}" if right else "none, so nothing is known of what an edit costs",
        "such as": _short(model, wrong[0]),
        "took": f"{time.perf_counter() - started:.1f} s",
    }
    if saved:
        facts["saved"] = saved
    page = Page(f"What makes {model.name} wrong", "", facts, sections,
                "Written by patchclamp debug. Everything on this page is in this one file.")  # fmt: skip
    data = {
        "model": model.name, "facts": facts, "readings": {s.title: s.reading for s in sections if s.reading},
        "parts": found.grid.json(), "cures": [_plain(c) for c in found.cures], "others": [_plain(c) for c in found.lots],
    }  # fmt: skip
    return Report(page, data)


def part(site: str) -> str:
    """A part in words.

    >>> part("blocks.2.attn.z[head=5]"), part("blocks.0.mlp.out")
    ('head 2.5', 'MLP 0')
    """
    parsed = Site.parse(site)
    head = dict(parsed.index).get("head")
    if head is not None:
        return f"head {parsed.layer}.{head}"
    return f"{'MLP' if 'mlp' in parsed.parts else 'mixer'} {parsed.layer}"


def _places(model: Model, pattern: str) -> list[str]:
    try:
        return [f"{p}[head]" if "head=" in pattern else p for p in model.places(pattern)]
    except PatchclampError:
        return []


def _guilty(found: Blame) -> Section:
    (first, gain), *rest = found.grid.top(2)
    told = f"Without {part(first['part'])} the right answer gains {signed(gain)} logits over the one that was given"
    told += f" (which leads by {signed(-found.grid.baseline['metric'], '.2f')})"
    told += f"; the next, {part(rest[0][0]['part'])}, {signed(rest[0][1])}." if rest else "."
    order = found.grid.values.abs().argsort(descending=True)[:SHOWN].tolist()
    names = [str(w) for w in found.grid.words("part")]
    low, high = (found.grid.details[k][order].numpy() if k in found.grid.details else None for k in ("low", "high"))
    bars = Bars(found.grid.values[order].numpy(), tuple(part(names[i]) for i in order), "logits", "without", low=low, high=high,
                title=found.grid.title, note=found.grid.note)  # fmt: skip
    return Section("Who is to blame", told, (bars,))


def _mended(found: Blame) -> Section:
    best = found.best
    told = f"{part(best.site).capitalize()} {SAYS[best.kind]}: {_share(best.fixed)} of {found.held} wrong examples "
    told += (
        "that were not used to find it are answered right"
        if found.held < found.found + found.held > 7
        else "are answered right"
    )
    if not math.isnan(best.cost):
        after = _share(found.accuracy - best.cost)
        told += f", and accuracy on {found.controls} controls goes from {_share(found.accuracy)} to {after}."
    else:
        told += ". There are no controls, so what it costs is not known; give some with --right."
    if not best.fixed:
        told += " No single part that was tried mends anything: what is wrong may be spread over several."
    rows = [("this edit", best.fixed)]
    if found.lots:
        rows.append(("others, on average", sum(c.fixed for c in found.lots) / len(found.lots)))
        rows.append(("others, the best", max(c.fixed for c in found.lots)))
        told += f" The same edit of {len(found.lots)} other parts, drawn by lot, mends {_share(rows[-1][1])} at best."
    bars = Bars(np.array([v for _, v in rows]), tuple(n for n, _ in rows), "share mended", "edit", title="How many are mended")
    return Section("What mends it", told, (bars,))


def _tried(found: Blame) -> Section:
    rows = tuple((part(c.site), c.kind, *map(_percent, (*c.promise, c.fixed, c.cost))) for c in found.cures)
    columns = ("part", "edit", "mends, when found", "costs, when found", "mends, of the rest", "costs, of the rest")
    told = "Edits are chosen by what they mend and cost where the part was found, and measured on the rest. All are in percent."
    return Section("Every edit that was tried", told, (Table(columns, rows, digits=3),), folded=True)


def _saved(cure: Cure, folder: Path) -> str:
    try:
        return f"{cure.edit.save(folder)}; model.edit(pc.Edit.load(...)) takes it"
    except NotSaved:
        return f"not: an edit of the kind {cure.kind} cannot be written down"


def _plain(cure: Cure) -> dict[str, object]:
    cost = None if math.isnan(cure.cost) else cure.cost
    return {"site": cure.site, "kind": cure.kind, "fixed": cure.fixed, "cost": cost}


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else round(100 * value, 1) + 0.0


def _share(value: float) -> str:
    return f"{value:.1%}".replace("-", "−")


def _short(model: Model, example: tuple) -> str:
    prompt, answer = example
    text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    run = model.run([prompt])
    said = int(torch.as_tensor(run.logits[0, run.last[0]]).argmax())
    right, wrong = (quoted(w) for w in model.run_reader.words([answer, said]))
    return f"{text} … {right}, not {wrong}"
