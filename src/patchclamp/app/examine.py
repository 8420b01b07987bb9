"""Examine: open a model on a prompt and show what it does inside, as one page.

What it says next; what each block would say; which parts write the answer, adding up to its logit; what the heads that
matter look at; and, against a second prompt, which places carry the difference. Parts that a model cannot serve are left
out with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from patchclamp.app import readings
from patchclamp.cause.effects import comparable, effects
from patchclamp.core.errors import PatchclampError, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric, logit, logit_diff
from patchclamp.core.run import Run
from patchclamp.lenses.direct import decompose, direct
from patchclamp.lenses.logit import lens
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model
from patchclamp.picture import Attention, Page, Pattern, Section, Tokens

HEADS = 6
"""How many attention patterns are shown."""
LONGEST = 96
"""How many of the last tokens an attention pattern shows."""
PARTS = ("q", "k", "v", "pattern")


@dataclass(eq=False)
class Examination:
    """What was found: grids by name, and the page that shows them."""

    model: Model
    prompt: Prompt
    against: Prompt | None
    answer: int
    wrong: int | None
    run: Run
    grids: dict[str, Grid] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def page(self) -> Page:
        """The report."""
        return Page(f"Inside {self.model.name}", self.run.texts[0], self.facts, tuple(self.sections),
                    "Written by patchclamp examine. Everything on this page is in this one file.")  # fmt: skip

    def summary(self) -> Page:
        """What the terminal shows: every reading, and the pictures that fit."""
        shown = {
            "What it says": slice(-1, None),
            "Who writes the answer": slice(1),
            "Where the difference travels": slice(1),
            "Heads": slice(1),
        }
        sections = []
        for section in self.sections:
            pictures = section.pictures[shown.get(section.title, slice(0))]
            if section.title == _TITLES["_lens"] and "lens" in self.grids:
                pictures = (_narrow(self.grids["lens"], self.run.last[0]).picture(),)
            sections.append(replace(section, pictures=pictures, folded=False))
        return replace(self.page(), sections=tuple(sections), footer="")

    def json(self) -> dict[str, Any]:
        """The numbers behind the page."""
        return {
            "model": self.model.name,
            "facts": self.facts,
            "tokens": list(self.run.words[0]),
            "readings": {s.title: s.reading for s in self.sections if s.reading},
            "left_out": {s.title: s.left_out for s in self.sections if s.left_out},
            **{name: grid.json() for name, grid in self.grids.items()},
        }


def examine(model: Model, prompt: Prompt, against: Prompt | None = None, answer: str | int | None = None,
            wrong: str | int | None = None, parts: tuple[str, ...] = ()) -> Examination:  # fmt: skip
    """Open a model on a prompt.

    With `against`, a second prompt of as many tokens, places of the first are put into the second one by one. The answer is
    what the model says (on the second prompt, for the wrong one) unless it is given. `parts` asks for further patching maps
    of the heads: "q", "k", "v", "pattern".
    """
    started = time.perf_counter()
    run = model.run(prompt)
    if run.tokens.shape[0] != 1:
        raise WrongPrompt(f"examine looks at one prompt; this is {run.tokens.shape[0]}.")
    if against is not None:
        comparable(model.inputs(prompt), model.inputs(against))
    found = Examination(model, prompt, against, *_tokens(model, run, against, answer, wrong), run)
    found.facts.update(_facts(found))
    for section in (_said, _lens, _contributions, _attention):
        found.sections.append(_or_left_out(section, found))
    if against is not None:
        found.sections += _patching(found, parts)
        found.sections[3] = _or_left_out(_attention, found)  # the heads that carry the difference are known now
    found.facts["took"] = f"{time.perf_counter() - started:.1f} s"
    return found


def _narrow(grid: Grid, at: int, columns: int = 10) -> Grid:
    """A lens grid cut to the tokens up to the answer's place, for a terminal."""
    last = min(at + 1, grid.values.shape[1])
    first = max(last - columns, 0)
    text = [row[first:last] for row in grid.text or ()]
    labels = {**grid.labels, "pos": list(grid.words("pos"))[first:last]}
    note = f"The last {last - first} tokens; the report has all." if first else ""
    return replace(grid, values=grid.values[:, first:last], labels=labels, text=text, details={}, note=note)


def _tokens(model: Model, run: Run, against: Prompt | None, answer: str | int | None, wrong: str | int | None):
    first = model.token(answer) if answer is not None else int(run.logits[0, run.last[0]].argmax())
    if wrong is not None:
        return first, model.token(wrong)
    if against is None:
        return first, None
    other = model.run(against)
    logits = other.logits[0, other.last[0]].clone()
    logits[first] = -torch.inf
    return first, int(logits.argmax())


def _facts(found: Examination) -> dict[str, str]:
    model, run = found.model, found.run
    size = sum(p.numel() for p in model.hf.parameters())
    facts = {"model": f"{type(model.hf).__name__}, {_count(size)} parameters, {_shape(model)}"}
    facts["prompt"] = f"{run.texts[0]} ({len(run.words[0])} tokens)"
    if found.against is not None:
        facts["against"] = model.run(found.against).texts[0]
    word = run.reader.vocabulary(run.logits.shape[-1])
    facts["answer"] = readings.quoted(word[found.answer])
    if found.wrong is not None:
        facts["wrong answer"] = readings.quoted(word[found.wrong])
    return facts


def _shape(model: Model) -> str:
    try:
        return f"{model.layers} blocks, {model.heads} heads, width {model.width}"
    except PatchclampError:
        return "blocks that cannot be read"


def _count(n: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return str(n)


def _metric(found: Examination) -> Metric:
    return logit(found.answer) if found.wrong is None else logit_diff(found.answer, found.wrong)


def _named(found: Examination) -> str:
    word = found.run.reader.vocabulary(found.run.logits.shape[-1])
    first = f"The logit of {readings.quoted(word[found.answer])}"
    return first if found.wrong is None else f"{first} minus that of {readings.quoted(word[found.wrong])}"


def _or_left_out(make: Callable[[Examination], Section], found: Examination) -> Section:
    """A section, or its title with the reason why this model does not have it."""
    try:
        return make(found)
    except PatchclampError as error:
        return Section(_TITLES[make.__name__], left_out=str(error).partition(": ")[2] or str(error))


_TITLES = {
    "_said": "What it says",
    "_lens": "What each block would say",
    "_contributions": "Who writes the answer",
    "_attention": "What the heads look at",
}


def _said(found: Examination) -> Section:
    run = found.run
    grid = run.next()
    found.grids["predictions"] = grid
    top = grid.top(10)
    bars = Grid(torch.tensor([p for _, p in top]), ("vocab",), {"vocab": [w["vocab"] for w, _ in top]},
                unit="probability", title="The ten most probable tokens", scale="sequential")  # fmt: skip
    place = "next" if run.answers is None else "masked"
    surprise = _surprise(run)
    return Section(_TITLES["_said"], readings.prediction(grid, place), (*surprise, bars.picture()))


def _surprise(run: Run) -> tuple[Tokens, ...]:
    """The prompt, each token coloured by the probability it had from what went before it."""
    words = run.words[0]
    if run.answers is not None or len(words) < 2 or run.logits.shape[1] != len(words):
        return (Tokens(words, title="The prompt as tokens"),)
    p = run.logits[0, :-1].float().softmax(-1).gather(-1, run.tokens[0, 1:, None])[:, 0]
    values = torch.cat([torch.full((1,), float("nan")), p]).numpy()
    return (Tokens(words, values, "probability", "sequential", (0.0, 1.0), title="The prompt, token by token",
                   note="Each token's probability, given those before it."),)  # fmt: skip


def _lens(found: Examination) -> Section:
    grid = lens(found.model, found.prompt)
    found.grids["lens"] = grid
    at = min(found.run.last[0], grid.values.shape[1] - 1)
    return Section(_TITLES["_lens"], readings.lens(grid, at), (grid.picture(),))


def _contributions(found: Examination) -> Section:
    model, prompt, metric = found.model, found.prompt, _metric(found)
    whole = decompose(model, prompt, metric)
    found.grids["contributions"] = whole
    said, pictures, missing = [readings.parts(whole, _named(found))], [whole.picture()], ""
    try:
        by_head = direct(model, prompt, "blocks.*.attn.z[head=*]", metric)
        found.grids["heads"] = by_head
        said.append(readings.heads(by_head, "write"))
        pictures.append(by_head.picture())
        sources = direct(model, prompt, "blocks.*.attn.pattern[key=*]", metric)
        found.grids["sources"] = sources
        said.append(readings.sources(sources))
        pictures.append(replace(sources, title=f"{sources.title.partition(' of ')[0]} by source token").picture())
    except PatchclampError as error:
        missing = str(error).partition(": ")[2]
    return Section(_TITLES["_contributions"], " ".join(said), tuple(pictures), missing)


def _attention(found: Examination) -> Section:
    model = found.model
    chosen = _heads_that_matter(found)
    run = model.run(found.prompt, keep=sorted({f"blocks.{layer}.attn.pattern" for layer, _, _ in chosen}))
    words = [f"{i} {w.strip() or w}" for i, w in enumerate(found.run.words[0])]
    size = run[f"blocks.{chosen[0][0]}.attn.pattern"].shape[-1]
    words = words if len(words) == size else [str(i) for i in range(size)]
    patterns = tuple(
        Pattern(f"{layer}.{head}", run[f"blocks.{layer}.attn.pattern"][0, head, -LONGEST:, -LONGEST:].float().numpy(), note)
        for layer, head, note in chosen
    )
    shown = words[-LONGEST:]
    note = f"The last {LONGEST} of {len(words)} tokens." if len(words) > LONGEST else ""
    last = found.run.last[0] - max(size - LONGEST, 0)
    said = "; ".join(_looks(p, shown, last) for p in patterns[:3])
    picture = Attention(tuple(shown), tuple(shown), patterns, title="Attention patterns", note=note)
    return Section(_TITLES["_attention"], f"At the answer's place {said}.", (picture,))


def _looks(pattern: Pattern, words: list[str], row: int) -> str:
    weights = pattern.weights[row]
    at = int(weights.argmax())
    number, _, word = words[at].partition(" ")
    return f"head {pattern.name} looks at {readings.quoted(word or number)} ({weights[at]:.2f})"


def _heads_that_matter(found: Examination) -> list[tuple[int, int, str]]:
    """(layer, head, why), the strongest first: by what they carry, else by what they write, else the first of each block."""
    for name, unit in (("patching heads", "carries"), ("heads", "writes")):
        grid = found.grids.get(name)
        if grid is not None:
            strongest = [(w, v) for w, v in grid.top(HEADS, "magnitude") if v == v]
            return [(int(w["layer"]), int(w["head"]), f"{unit} {v:+.2f}") for w, v in strongest]
    return _focused(found)


def _focused(found: Examination) -> list[tuple[int, int, str]]:
    """The heads that look hardest at one other token from the answer's place."""
    paths = found.model.places("blocks.*.attn.pattern")
    run, at = found.model.run(found.prompt, keep=paths), found.run.last[0]
    focus = torch.stack([run[p][0, :, at].float() for p in paths])
    focus[..., at] = 0
    strongest = focus.amax(-1).flatten().topk(min(HEADS, focus.shape[0] * focus.shape[1]))
    cells = [divmod(int(i), focus.shape[1]) for i in strongest.indices]
    return [(int(paths[p].split(".")[1]), head, f"focus {v:.2f}") for (p, head), v in zip(cells, strongest.values.tolist())]


def _patching(found: Examination, parts: tuple[str, ...]) -> list[Section]:
    """Maps of how much of the answer each place brings back when it is put into the second prompt's run."""
    encoder = "encoder." if any(p.startswith("encoder.blocks.") for p in found.model.anatomy.places) else ""
    maps = [
        ("patching stream", f"{encoder}blocks.*.out[pos=*]", "Where the difference travels", "the stream", False),
        (
            "patching attention",
            f"{encoder}blocks.*.attn.out[pos=*]",
            "Attention layers",
            "an attention layer's output",
            False,
        ),
        (
            "patching feed-forward",
            f"{encoder}blocks.*.mlp.out[pos=*]",
            "Feed-forward layers",
            "a feed-forward layer's output",
            False,
        ),
        ("patching heads", f"{encoder}blocks.*.attn.z[head=*]", "Heads", "a head's output", False),
    ]
    for part in parts:
        axis = "kv_head" if part in "kv" else "head"
        maps.append(
            (f"patching {part}", f"{encoder}blocks.*.attn.{part}[{axis}=*]", f"Heads: {part}", f"a head's {part}", True)
        )
    return [_map(found, *row) for row in maps]


def _map(found: Examination, name: str, pattern: str, title: str, what: str, folded: bool) -> Section:
    try:
        grid = effects(found.model, found.prompt, found.against, pattern, _metric(found))
    except PatchclampError as error:
        return Section(title, left_out=str(error).partition(": ")[2] or str(error))
    gap = grid.baseline["clean"] - grid.baseline["corrupt"]
    if abs(gap) < 1e-3:
        return Section(
            title, f"The two prompts give the same answer ({gap:+.1e} logits apart), so there is nothing to restore."
        )
    shares = replace(grid.fraction(), title=f"Share of the answer restored by {what}", note=_baselines(grid))
    found.grids[name] = shares
    said = readings.story(shares) if name == "patching stream" else readings.strongest(shares, what)
    return Section(title, said, (shares.picture(),), folded=folded)


def _baselines(grid: Grid) -> str:
    clean, corrupt = grid.baseline["clean"], grid.baseline["corrupt"]
    return f"1 restores the first prompt's {clean:+.2f} logits, 0 leaves the second's {corrupt:+.2f}."
