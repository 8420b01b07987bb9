"""BLiMP: pairs of sentences that differ in one point of grammar; a model that knows it finds the good one more probable.

Warstadt et al. 2020, "BLiMP: The benchmark of linguistic minimal pairs for English": 67 paradigms of 1,000 pairs, one a file
of JSON lines with `sentence_good` and `sentence_bad`. The whole sentences are compared by their total log-probability, the
paper's own measure; their lengths in tokens may differ, and nothing is divided by them.

Not known here: why a sentence is preferred. Where the bad sentence has the rarer word, a model of word frequencies is right
too. Sentences that a tokenizer cannot tell apart are counted as ties, and a tie is not right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from patchclamp.core.errors import NotSaved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.journal import leaf
from patchclamp.core.progress import progress
from patchclamp.core.uncertain import wilson
from patchclamp.model.likelihood import log_probability
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model

PAIRS = 50
"""How many pairs are read at a time; what is finished is kept, where a journal is open."""
TIE = 1e-5
"""Nats below which two sentences are equally probable."""


@dataclass(frozen=True)
class Contrast:
    """A good sentence and a bad one."""

    good: str
    bad: str
    field: str = ""
    """morphology, syntax, semantics, ..."""
    term: str = ""
    """The phenomenon, as the file names it (`linguistics_term`)."""


def load_blimp(path: str | Path, limit: int | None = None) -> dict[str, list[Contrast]]:
    """Paradigm -> its pairs, the first `limit` of each, from a folder of JSONL files or one file; a file is a paradigm."""
    path = Path(path)
    if limit is not None and limit < 1:
        raise WrongPrompt(f"a limit is a number of pairs, one or more; got {limit}.")
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise NotSaved(f"{path} holds no file that ends in .jsonl; give a folder of BLiMP's paradigms, or one of its files.")
    return {file.stem: _paradigm(file, limit) for file in files}


def blimp(model: Model, paradigms: Mapping[str, Sequence[Contrast]], bos: bool | None = True, level: float = 0.95) -> Grid:
    """The share of pairs whose good sentence is the more probable one: Grid(paradigm), chance 0.5.

    The details are the ends of the interval (Wilson's) at this `level`, the number of `pairs`, of `ties`, and the mean `margin`
    in nats. `bos`: whether the beginning-of-sequence token goes before a sentence, where the tokenizer has one.

    >>> from patchclamp.task.blimp import Contrast, blimp
    >>> pair = Contrast("Mary and John went to the store.", "Mary and John went to the the.")
    >>> blimp(model, {"articles": [pair]}).values
    tensor([1.])
    """
    if model.tokenizer is None:
        raise WrongPrompt(f"{model.name} has no tokenizer, and sentences are text; load it with its tokenizer.")
    flat = [(name, n) for name, pairs in paradigms.items() for n in range(len(pairs))]
    if not flat:
        raise WrongPrompt("there are no pairs of sentences to compare.")
    page = leaf("blimp", lambda: (fingerprint(model), bos, [(p.good, p.bad) for one in paradigms.values() for p in one]))
    todo = [i for i in range(len(flat)) if i not in page.known]
    parts = [todo[n : n + PAIRS] for n in range(0, len(todo), PAIRS)]
    for part in progress(parts, label="minimal pairs"):
        pairs = [paradigms[flat[i][0]][flat[i][1]] for i in part]
        scores = log_probability(model, [s for p in pairs for s in (p.good, p.bad)], bos).view(-1, 2)
        for i, score in zip(part, scores):
            page.write(i, score)
    scores = torch.stack([page.known[i] for i in range(len(flat))])
    return _table(list(paradigms), [name for name, _ in flat], scores[:, 0] - scores[:, 1], level)


def _table(names: list[str], owner: list[str], margin: torch.Tensor, level: float) -> Grid:
    found = []
    for name in names:
        mine = margin[[i for i, who in enumerate(owner) if who == name]]
        right, n = int((mine > TIE).sum()), len(mine)
        found.append((right / n, float(n), float((mine.abs() <= TIE).sum()), float(mine.mean())))
    share, pairs, ties, mean = torch.tensor(found).T
    low, high = wilson(share, pairs, level)
    details = {"low": low, "high": high, "pairs": pairs, "ties": ties, "margin": mean}
    return Grid(share, ("paradigm",), {"paradigm": names}, unit="share of pairs", title="Good sentences found more probable",
                note=f"Chance is 0.5. low and high: the {level:.0%} interval over pairs.", details=details, scale="sequential",
                baseline={"chance": 0.5, "mean": float(share.mean())})  # fmt: skip


def _paradigm(path: Path, limit: int | None) -> list[Contrast]:
    try:
        with path.open(encoding="utf-8") as lines:
            kept = list(islice(((n, line) for n, line in enumerate(lines, 1) if line.strip()), limit))
    except OSError as error:
        raise NotSaved(f"{path} could not be read ({error.strerror}); give a folder of JSONL files, or one of them.") from None
    except UnicodeDecodeError as error:
        raise NotSaved(f"{path} is no text in UTF-8 ({error.reason}); give a file of JSON lines.") from None
    if not kept:
        raise NotSaved(f'{path} is empty; a line is {{"sentence_good": "...", "sentence_bad": "..."}}.')
    return [_contrast(line, f"{path}, line {n}") for n, line in kept]


def _contrast(line: str, where: str) -> Contrast:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise NotSaved(f"{where} is not readable JSON ({error}).") from None
    if not isinstance(row, dict):
        raise NotSaved(f'{where} is a {type(row).__name__}; an object with "sentence_good" and "sentence_bad" was expected.')
    for key in ("sentence_good", "sentence_bad"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise NotSaved(f'{where} has no text "{key}"; a line holds "sentence_good" and "sentence_bad".')
    return Contrast(row["sentence_good"], row["sentence_bad"], str(row.get("field", "")), str(row.get("linguistics_term", "")))
