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
from patchclamp.cause.effects import effects
from patchclamp.core.errors import PatchclampError, Unserved, WrongPrompt, WrongToken
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric, logit, logit_diff
from patchclamp.core.run import Run
from patchclamp.lenses.direct import decompose, direct
from patchclamp.lenses.logit import lens
from patchclamp.model.comparable import comparable
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
    answer: int | None
    """The token that is explained; None for a model that returns no logits."""
    wrong: int | None
    run: Run
    grids: dict[str, Grid] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def page(self) -> Page:
        """The report."""
        return Page(f"Inside {self.model.name}", _text(self.model, self.prompt, self.run), self.facts, tuple(self.sections),
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
        """The numbers behind the page: what was asked, each section's reading or why it is left out, and every grid."""
        return {
            "model": self.model.name,
            "facts": self.facts,
            "tokens": list(_words(self.model, self.prompt, self.run)),
            "readings": {s.title: s.reading for s in self.sections if s.reading},
            "left_out": {s.title: s.left_out for s in self.sections if s.left_out},
            "grids": {name: grid.json() for name, grid in self.grids.items()},
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
    """The token that is explained, and the one it is compared with."""
    if run.output is None:
        return None, None
    first = _token(model, run, answer) if answer is not None else int(run.logits[0, run.last[0]].argmax())
    if wrong is not None:
        return first, _token(model, run, wrong)
    if against is None:
        return first, None
    other = model.run(against)
    logits = other.logits[0, other.last[0]].clone()
    logits[first] = -torch.inf
    return first, int(logits.argmax())


def _token(model: Model, run: Run, word: str | int) -> int:
    token, size = model.token(word), run.logits.shape[-1]
    if not 0 <= token < size:
        raise WrongToken(f"there is no token {token} in a vocabulary of {size}.")
    return token


def _text(model: Model, prompt: Prompt, run: Run) -> str:
    """The prompt as text: as it was typed, or what its tokens read as (an encoder's, where there is one)."""
    if isinstance(prompt, str):
        return prompt
    ids = model.inputs(prompt).ids("encoder.")
    return run.reader.text(ids) if ids else run.texts[0]


def _words(model: Model, prompt: Prompt, run: Run) -> tuple[str, ...]:
    """The prompt's tokens, likewise."""
    ids = model.inputs(prompt).ids("encoder.")
    return run.reader.words(ids) if ids else run.words[0]


def _facts(found: Examination) -> dict[str, str]:
    model, run = found.model, found.run
    size = sum(p.numel() for p in model.hf.parameters())
    facts = {"model": f"{type(model.hf).__name__}, {_count(size)} parameters, {_shape(model)}"}
    count = len(_words(model, found.prompt, run))
    facts["prompt"] = f"{_text(model, found.prompt, run)} ({count} token{'' if count == 1 else 's'})"
    if found.against is not None:
        facts["against"] = _text(model, found.against, model.run(found.against))
    if found.answer is None:
        return facts
    word = run.reader.vocabulary(run.logits.shape[-1])
    facts["answer"] = readings.quoted(word[found.answer])
    if found.wrong is not None:
        facts["wrong answer"] = readings.quoted(word[found.wrong])
    return facts


def _shape(model: Model) -> str:
    try:
        heads = f"{model.heads} heads, " if model.heads else ""
        return f"{model.layers} blocks, {heads}width {model.width}"
    except PatchclampError:
        return "blocks that cannot be read"


def _count(n: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return str(n)


def _metric(found: Examination) -> Metric:
    if found.answer is None:
        raise Unserved(f"{found.model.name} returns no logits, so nothing can be asked of its answer; load it with its head.")
    return logit(found.answer) if found.wrong is None else logit_diff(found.answer, found.wrong)


def _named(found: Examination) -> str:
    assert found.answer is not None
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
    model, run = found.model, found.run
    words = _words(model, found.prompt, run)
    if found.answer is None:
        reason = f"{model.name} returns no logits, so it says nothing; load it with its head."
        return Section(_TITLES["_said"], pictures=(Tokens(words, title="The prompt as tokens"),), left_out=reason)
    grid = run.next()
    found.grids["predictions"] = grid
    top = grid.top(10)
    bars = Grid(torch.tensor([p for _, p in top]), ("vocab",), {"vocab": [w["vocab"] for w, _ in top]},
                unit="probability", title="The ten most probable tokens", scale="sequential")  # fmt: skip
    said = readings.prediction(grid, _place(found))
    return Section(_TITLES["_said"], said, (_surprise(model, run, words), bars.picture()))


def _place(found: Examination) -> str:
    """Where the answer stands: in the masked place, next, first (a decoder's answer), or at an encoder's last token."""
    if found.run.answers is not None:
        return "masked"
    if found.model.inputs(found.prompt).ids("encoder."):
        return "first"
    return "next" if _causal(found.model) else "last"


def _causal(model: Model) -> bool:
    try:
        return model.anatomy.main.causal
    except Unserved:
        return True


def _surprise(model: Model, run: Run, words: tuple[str, ...]) -> Tokens:
    """The prompt, each token coloured by the probability it had from what went before it."""
    if not _causal(model) or len(words) < 2 or run.logits.shape[1] != len(words):
        return Tokens(words, title="The prompt as tokens")
    p = run.logits[0, :-1].float().softmax(-1).gather(-1, run.tokens[0, 1:, None])[:, 0]
    values = torch.cat([torch.full((1,), float("nan")), p]).numpy()
    return Tokens(words, values, "probability", "sequential", (0.0, 1.0), title="The prompt, token by token",
                  note="Each token's probability, given those before it.")  # fmt: skip


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
    part = _looking(model)
    try:
        by_head = direct(model, prompt, f"blocks.*.{part}.z[head=*]", metric)
        found.grids["heads"] = by_head
        said.append(readings.heads(by_head, "write"))
        pictures.append(_retitled(by_head, "by head").picture())
        sources = direct(model, prompt, f"blocks.*.{part}.pattern[key=*]", metric)
        found.grids["sources"] = sources
        said.append(readings.sources(sources))
        pictures.append(_retitled(sources, "by source token").picture())
    except PatchclampError as error:
        missing = str(error).partition(": ")[2]
    return Section(_TITLES["_contributions"], " ".join(said), tuple(pictures), missing)


def _retitled(grid: Grid, by: str) -> Grid:
    """In words instead of a site."""
    return replace(grid, title=f"{grid.title.partition(' of ')[0]} {by}")


def _looking(model: Model) -> str:
    """Which attention looks at the prompt: a decoder's own holds only what it has written so far."""
    return "cross" if any(p.startswith("blocks.") and ".cross." in p for p in model.anatomy.places) else "attn"


def _attention(found: Examination) -> Section:
    model, part = found.model, _looking(found.model)
    chosen = _heads_that_matter(found, part)
    run = model.run(found.prompt, keep=sorted({f"blocks.{layer}.{part}.pattern" for layer, _, _ in chosen}))
    whole = {(layer, head): run[f"blocks.{layer}.{part}.pattern"][0, head].float() for layer, head, _ in chosen}
    answer, (rows, columns) = found.run.last[0], next(iter(whole.values())).shape
    first, left = (0, 0) if part == "cross" else (min(answer, max(rows - LONGEST, 0)), min(answer, max(columns - LONGEST, 0)))
    inputs = model.inputs(found.prompt)
    queries, keys = (
        _numbered(found.run, inputs.ids(f"blocks.0.{part}.pattern", axis), size)
        for axis, size in (("query", rows), ("key", columns))
    )
    down, across = slice(first, first + LONGEST), slice(left, left + LONGEST)
    patterns = tuple(Pattern(f"{n}.{h}", whole[n, h][down, across].numpy(), note) for n, h, note in chosen)
    note = f"{LONGEST} of {columns} tokens, from token {left} on." if columns > LONGEST else ""
    picture = Attention(tuple(queries[down]), tuple(keys[across]), patterns, title="Attention patterns", note=note)
    most = [(f"{n}.{h}", *whole[n, h][answer].max(-1)) for n, h, _ in chosen[:3]]
    said = readings.attention([(name, keys[int(at)], float(weight)) for name, weight, at in most])
    return Section(_TITLES["_attention"], said, (picture,))


def _numbered(run: Run, ids: list[int], size: int) -> list[str]:
    """Each token with its number, as labels must differ."""
    if len(ids) != size:
        return [str(i) for i in range(size)]
    return [f"{i} {w.strip() or w}" for i, w in enumerate(run.reader.words(ids))]


def _heads_that_matter(found: Examination, part: str) -> list[tuple[int, int, str]]:
    """(layer, head, why), the strongest first: by what they carry, else by what they write, else by how hard they look."""
    paths = found.model.places(f"blocks.*.{part}.pattern")
    readable = {int(p.split(".")[1]) for p in paths}
    for name, unit in (("patching heads", "carries"), ("heads", "writes")):
        grid = found.grids.get(name)
        if grid is not None and not (part == "cross" and name == "patching heads"):  # those are the encoder's heads
            cells = [(int(w["layer"]), int(w["head"]), v) for w, v in grid.top(grid.values.numel(), "magnitude") if v == v]
            strongest = [cell for cell in cells if cell[0] in readable][:HEADS]
            if strongest:
                return [(layer, head, f"{unit} {readings.signed(v)}") for layer, head, v in strongest]
    return _focused(found, paths)


def _focused(found: Examination, paths: tuple[str, ...]) -> list[tuple[int, int, str]]:
    """The heads that look hardest at one other token from the answer's place."""
    run, at = found.model.run(found.prompt, keep=paths), found.run.last[0]
    cells = []
    for path in paths:
        focus = run[path][0, :, at].float().clone()
        if ".cross." not in path:
            focus[:, at] = 0
        cells += [(int(path.split(".")[1]), head, float(v)) for head, v in enumerate(focus.amax(-1))]
    strongest = sorted(cells, key=lambda cell: -cell[2])[:HEADS]
    return [(layer, head, f"focus {v:.2f}") for layer, head, v in strongest]


def _patching(found: Examination, parts: tuple[str, ...]) -> list[Section]:
    """Maps of how much of the answer each place brings back when it is put into the second prompt's run."""
    blocks = "encoder.blocks" if any(p.startswith("encoder.blocks.") for p in found.model.anatomy.places) else "blocks"
    maps = [
        ("patching stream", "out[pos=*]", "Where the difference travels", "the stream"),
        ("patching attention", "attn.out[pos=*]", "Attention layers", "an attention layer's output"),
        ("patching feed-forward", "mlp.out[pos=*]", "Feed-forward layers", "a feed-forward layer's output"),
        ("patching heads", "attn.z[head=*]", "Heads", "a head's output"),
    ]
    if any(p.endswith(".mixer.out") for p in found.model.anatomy.places):
        maps.append(("patching mixers", "mixer.out[pos=*]", "Mixers", "a mixer's output"))
    for part in parts:
        axis = "kv_head" if part in "kv" else "head"
        maps.append((f"patching {part}", f"attn.{part}[{axis}=*]", f"Heads: {part}", f"a head's {part}"))
    return [_map(found, name, f"{blocks}.*.{site}", title, what) for name, site, title, what in maps]


def _map(found: Examination, name: str, pattern: str, title: str, what: str) -> Section:
    folded = title.startswith("Heads: ")
    try:
        grid = effects(found.model, found.prompt, found.against, pattern, _metric(found))
    except PatchclampError as error:
        return Section(title, left_out=str(error).partition(": ")[2] or str(error))
    gap = grid.baseline["clean"] - grid.baseline["corrupt"]
    if abs(gap) < 1e-3:
        return Section(
            title,
            f"The two prompts give the same answer ({readings.signed(gap, '+.1e')} logits apart): nothing to restore.",
        )
    shares = replace(grid.fraction(), title=f"Share of the answer restored by {what}", note=_baselines(grid))
    found.grids[name] = shares
    said = readings.story(shares) if name == "patching stream" else readings.strongest(shares, what)
    return Section(title, said, (shares.picture(),), folded=folded)


def _baselines(grid: Grid) -> str:
    clean, corrupt = grid.baseline["clean"], grid.baseline["corrupt"]
    return f"1 restores the first prompt's {readings.signed(clean)} logits, 0 leaves the second's {readings.signed(corrupt)}."
