"""Which places patchclamp serves in every model class of the installed transformers: makes docs/support.md.

    python tests/support.py

Every class is built small and random (`zoo.py`), loaded, and asked what it serves and what it refuses; nothing is written
by hand but the words. tests/test_support.py compares the page with this, and tests/laws runs the laws on the same classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers

import patchclamp as pc
import zoo
from patchclamp.model.example import example
from patchclamp.model.model import Model

PAGE = Path(__file__).parents[1] / "docs" / "support.md"

TASKS = {
    "causal": ("Language models", "What continues a text: `AutoModelForCausalLM`."),
    "masked": ("Masked language models", "What fills in a masked token: `AutoModelForMaskedLM`."),
    "seq2seq": ("Encoder-decoders", "What reads one text and writes another: `AutoModelForSeq2SeqLM`. Some also read sound; here they read text."),
    "encoder": ("Text encoders", "The bodies of text models, without a head: `AutoModelForTextEncoding`. They return no logits."),
    "tower": ("Vision towers", "The bodies of models that read a picture: `AutoModel`. Positions are patches."),
    "pair": ("Picture and text", "Two towers side by side, with the prefixes `vision.` and `text.`: `AutoModelForZeroShotImageClassification`."),
    "speech": ("Speech to text", "What hears and writes: `AutoModelForSpeechSeq2Seq`."),
    "ctc": ("Speech encoders", "What hears and spells: `AutoModelForCTC`. Positions are moments of sound."),
}  # fmt: skip
"""The sections of the page: transformers' mapping, a title, and what it is."""

GROUPS = {
    "stream": "stream",
    "attn": "attn",
    "heads": "q\u00a0k\u00a0v\u00a0z",
    "pattern": "pattern",
    "gate": "gate",
    "cross": "cross",
    "mlp": "mlp",
    "neurons": "neurons",
    "experts": "experts",
    "mixer": "mixer",
    "embed": "embed",
    "norm": "norm",
    "direct": "direct",
}
"""The columns: groups of sites, and their headings."""

ABSENT = (
    "it has no gate", "this block has none", "no norm reads what the last block returns", "it returns no logits per token",
    "it has one write only", "nothing is added before", "attention and MLP", "no feed-forward layer reads the stream after",
    "it reads no tokens",
)  # fmt: skip
"""Beginnings of reasons which say that the architecture has no such place, rather than that it could not be served."""

SERVED, PARTLY, REFUSED, UNBUILT = "●", "◐", "○", "—"

STACKS = ("encoder", "decoder", "vision", "text", "audio")
"""Prefixes of stacks besides the main one."""

FAMILIES = tuple((kind, task) for task in TASKS for kind in zoo.kinds(task) if not zoo.cannot(kind, task))
"""(model type, task) of every class that is built."""


@lru_cache(maxsize=2)
def load(kind: str, task: str) -> tuple[Model, dict[str, torch.Tensor]]:
    """A small random model, and an input that it reads."""
    with zoo.quiet():
        hf, given = zoo.build(kind, task), zoo.example(kind)
        made: dict[str, Any] = given or example(hf)
    return pc.load(hf, example=given), {k: v for k, v in made.items() if isinstance(v, torch.Tensor)}


@dataclass(frozen=True)
class Row:
    """What one class serves."""

    kind: str
    name: str
    """The class."""
    stacks: tuple[str, ...] = ()
    cells: dict[str, str] = field(default_factory=dict)
    """Group to mark; the stream's cell names its places."""
    refused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason to the sites it holds for."""

    @property
    def built(self) -> bool:
        return bool(self.cells)

    @property
    def residual(self) -> bool:
        """Whether the residual stream of every stack is served, as `in` and `out` or as several streams."""
        cell, refused = self.cells.get("stream", ""), {s for sites in self.refused.values() for s in sites}
        return cell == "streams" or (cell[:1] == "i" and not refused & {"out", *(f"{stack}.out" for stack in STACKS)})

    @property
    def attention(self) -> bool:
        """Whether every head's q, k, v and z, scores and pattern are served."""
        return self.cells.get("heads") == SERVED == self.cells.get("pattern")


@lru_cache(maxsize=1)
def rows() -> dict[str, list[Row]]:
    """Every class of every task."""
    return {task: [row(kind, task) for kind in zoo.kinds(task)] for task in TASKS}


def row(kind: str, task: str) -> Row:
    """Build one class and ask it."""
    name, why = zoo.class_of(kind, task).__name__, zoo.cannot(kind, task)
    if why:
        return Row(kind, name, refused={why: ()})
    model, inputs = load(kind, task)
    with zoo.quiet():
        anatomy = model.anatomy
        direct = contributions(model, inputs)
    kept, lost = list(anatomy.places), {s: r for s, r in anatomy.refused.items() if not r.startswith(ABSENT)}
    if direct not in (SERVED, "") and anatomy.towers:
        lost["direct"] = direct
    cells = {group: mark(group, kept, list(lost)) for group in GROUPS}
    cells["direct"] = direct if direct in (SERVED, "") else REFUSED
    cells["stream"] = stream(kept, cells["stream"])
    reasons: dict[str, list[str]] = {}
    for site, reason in lost.items():
        short = re.sub(r"blocks\.\d+\.", "", site)
        reasons.setdefault(plain(reason), []).append("" if short in ("blocks", "direct") else short)
    refused = {reason: tuple(sorted(set(sites) - {""}, key=order)) for reason, sites in reasons.items()}
    return Row(kind, name, tuple(t.prefix.rstrip(".") or "main" for t in anatomy.towers), cells, refused)


def contributions(model: Model, inputs: dict[str, torch.Tensor]) -> str:
    """Whether direct contributions add up to a logit: the mark, nothing for a model without logits, or why not."""
    if "logits" not in model.sites:
        return ""
    metric = pc.logit_diff(7, 8)
    try:
        parts = pc.decompose(model, inputs, metric)
    except pc.PatchclampError as refused:
        return re.sub(r"^\w+: ", "", str(refused)).replace(model.name, "it")
    gap = abs(float(parts.values.sum()) - parts.baseline["metric"])
    assert gap < 1e-3 * max(1.0, abs(parts.baseline["metric"])), f"{model.name}: contributions differ from the logit by {gap}"
    return SERVED


def groups(site: str) -> Iterator[str]:
    """The columns that a site belongs to; `blocks.3.attn` stands for all that is in it."""
    parts = [p.rstrip("0123456789") or p for p in site.split(".")]
    rest = parts[parts.index("blocks") + 2 :] if "blocks" in parts else parts[-2:]
    head, last = rest[0] if rest else "", rest[-1] if rest else ""
    if head in ("attn", "mlp") and len(rest) == 1:
        yield from ("attn", "heads", "pattern") if head == "attn" else ("mlp", "neurons")
    elif head in ("attn", "mlp") and last in ("in", "out"):
        yield head
    elif head == "attn":
        yield "gate" if last == "gate" else "heads" if last in ("q", "k", "v", "z") else "pattern"
    elif not rest:
        yield from ("stream", "attn", "heads", "pattern", "mlp", "neurons")
    else:
        names = {"mlp": "neurons", "router": "experts", "extra": "mixer"}
        yield "stream" if head in ("in", "mid", "out", "streams") else names.get(head, head)


def mark(group: str, kept: list[str], lost: list[str]) -> str:
    """Served, served in part, refused, or nothing where the architecture has no such place."""
    yes, no = (any(group in groups(s) for s in sites) for sites in (kept, lost))
    return PARTLY if yes and no else SERVED if yes else REFUSED if no else ""


def stream(kept: list[str], said: str) -> str:
    """The places of the residual stream, `mid` in brackets where only some blocks have it; the mark where not all serve it."""
    names = ("in", "mid", "out", "streams")
    count = {n: sum(bool(re.search(rf"blocks\.\d+\.{n}$", s)) for s in kept) for n in names}
    mid = "" if not count["mid"] else "mid " if count["mid"] == count["in"] else "(mid) "
    found = "streams" if count["streams"] else f"in {mid}out" if count["in"] else ""
    partly = f" {PARTLY}" if said == PARTLY and not count["streams"] else ""
    return f"{found}{partly}".replace(" ", "\u00a0") if found else said


def plain(reason: str) -> str:
    """A reason without the numbers of this one model."""
    reason = re.sub(r"between blocks\.\d+ and blocks\.\d+", "between two blocks", reason)
    reason = re.sub(r"blocks\.\d+", "blocks.i", reason)
    reason = re.sub(r"by [\d.e+-]+ \(relative\)", "by more than rounding", reason)
    return re.sub(r"holds \d+ places for \d+ tokens", "holds more places than there are tokens", reason).rstrip(".")


def order(site: str) -> tuple:
    """Sites in the order of a forward pass."""
    names = ["in", "mid", "q", "k", "v", "scores", "pattern", "z", "pre", "gate", "act", "out"]
    *before, last = site.split(".")
    return (not before, before, names.index(last) if last in names else 99, last)


# ---- the page ----------------------------------------------------------------------------------------------------------


def page() -> str:
    """docs/support.md."""
    found = rows()
    return "\n".join([INTRODUCTION.format(version=transformers.__version__), *totals(found), LEGEND,
                      *(line for task in TASKS for line in section(task, found[task]))])  # fmt: skip


def totals(found: dict[str, list[Row]]) -> list[str]:
    """How many classes there are, and how many are served how far."""
    heads = ("", "classes", "built", "residual stream", "every head's q k v z and pattern", "direct contributions")
    body = []
    for task, listed in found.items():
        title = TASKS[task][0]
        counts = (len(listed), sum(r.built for r in listed), sum(r.residual for r in listed), sum(r.attention for r in listed),
                  sum(r.cells.get("direct") == SERVED for r in listed))  # fmt: skip
        body.append((f"[{title}](#{title.lower().replace(' ', '-')})", *map(str, counts)))
    return table(heads, body, right=range(1, 6))


def section(task: str, listed: list[Row]) -> list[str]:
    """One task: a row a class, and below it the reasons."""
    title, what = TASKS[task]
    several = [r for r in listed if r.stacks not in ((), ("main",))]
    stacked = 3 * len(several) > len(listed)
    columns = [g for g in GROUPS if any(r.cells.get(g) for r in listed)]
    numbers = {reason: i + 1 for i, reason in enumerate(dict.fromkeys(reason for r in listed for reason in r.refused))}
    heads = ("class", *(["stacks"] if stacked else []), *(GROUPS[g] for g in columns), "reasons")
    body = [
        (f"`{r.name}`", *([" ".join(f"`{s}.`" if s != "main" else s for s in r.stacks)] if stacked else []), *(r.cells.get(g, "" if g != "stream" else UNBUILT) for g in columns),
         " ".join(str(numbers[reason]) for reason in r.refused))
        for r in listed
    ]  # fmt: skip
    why = []
    for reason, i in numbers.items():
        where: dict[tuple[str, ...], list[str]] = {}
        for r in listed:
            if reason in r.refused:
                where.setdefault(r.refused[reason], []).append(r.name)
        said = (f"{', '.join(f'`{n}`' for n in names)}{': ' if sites else ''}{' '.join(f'`{s}`' for s in sites)}"
                for sites, names in where.items())  # fmt: skip
        why.append(f"{i}. **{reason[0].upper()}{reason[1:]}.** {'; '.join(said)}")
    more = "; ".join(f"`{r.name}` has {' '.join(f'`{s}.`' for s in r.stacks if s != 'main')}" for r in several)
    stacks = ["", f"Stacks besides the one that leads to the output: {more}."] if several and not stacked else []
    return ["", f"## {title}", "", what, "", *table(heads, body), *stacks, *(["", *why] if why else [])]


def table(heads: tuple[str, ...], body: list[tuple[str, ...]], right: range = range(0)) -> list[str]:
    """A table that is also easy on the eye before it is rendered."""
    widths = [max(len(r[i]) for r in (heads, *body)) for i in range(len(heads))]
    lines = [[c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths))] for r in (heads, *body)]
    rule = ["-" * (w - 1) + (":" if i in right else "-") for i, w in enumerate(widths)]
    return [f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:])]


INTRODUCTION = """\
# What is served, model by model

Patchclamp carries no table of model families. It watches one small forward pass of the model you hand it and reads from
that where everything is. This page says what came of it for the model classes of **transformers {version}**: each class was
built small and with random weights from its own config, loaded, and asked. The page is made by

    python tests/support.py

and a test makes it again and compares. Nothing is served wrongly, and that is checked rather than hoped: on a model's first
run the residual identity (what a block read, plus what its parts added, is what it returned) is asserted in numbers, block
by block; a block in which it fails is refused, with the difference. The same classes pass the laws in `tests/laws`: keeping
every place leaves the logits bit-identical, a pattern equals the model's own, a run patched into itself changes nothing.

What cannot be served is refused when you ask for it, with the reason given here.
"""

LEGEND = """
`built` counts the classes that could be built without a download or a further library. A checkpoint of a class that was not
built here loads all the same, and says of itself what it serves: `pc.load(...).sites.show()`.

How to read a row:

- **●** served in every block that has such a layer, **◐** served in part, **○** refused, **—** not built here; the numbers
  lead to the reasons below the table. An empty cell means that the architecture has no such thing: no gate, no experts.
- `stream` is the residual stream of a block, `in mid out`. A block whose attention and feed-forward layer are added together
  has no `mid`; `(mid)` is there in some blocks only. `streams` stands for several residual streams side by side.
- `attn` is what attention reads and adds; `q k v z` are its heads, `pattern` their scores and pattern, `gate` what multiplies
  them; `cross` is cross-attention with all of these.
- `mlp` is what the feed-forward layer reads and adds, `neurons` its `pre`, `gate` and `act`; `experts` is a mixture's router,
  its choice and what each expert adds; `mixer` any other layer that adds to the stream (state spaces, convolutions, linear
  attention, adapters).
- `embed` and `norm` are the ends of the stream; `logits` are served wherever a class returns them token by token. `direct`
  means that direct contributions add up to a logit, and were seen to.
- A block that has two of a kind (a conformer's two feed-forward layers) has `mlp` and `mlp2`; stacks other than the one that
  leads to the output have a prefix, such as `encoder.blocks.0.out`."""


def written_for() -> str:
    """The version of transformers that the page was made with; nothing where there is no page."""
    found = re.search(r"\*\*transformers ([\w.]+)\*\*", PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else None
    return found.group(1) if found else ""


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page() + "\n", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
