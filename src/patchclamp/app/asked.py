"""What is asked in the shell: prompts and their answers from two texts, from a task, or from a file; and the metric by name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchclamp.core.errors import NotSaved, PatchclampError, WrongPrompt, WrongToken, did_you_mean
from patchclamp.core.journal import digest
from patchclamp.core.metric import Metric, kl, logit, logit_diff, nll, prob, rank
from patchclamp.core.pair import Pair, answer_token, fitting
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model
from patchclamp.task.load import load_prompts, load_relation
from patchclamp.task.tasks import draw

METRICS = ("logit_diff", "prob", "nll", "kl", "logit", "rank")
COUNT = 20
"""Pairs of a task, unless told otherwise."""


class WrongOption(PatchclampError):
    """An option of a command that has no such value, or that does not go with another one."""


@dataclass(frozen=True)
class Source:
    """Where the prompts come from, as the options say it."""

    clean: str | None = None
    corrupt: str | None = None
    answer: str | None = None
    wrong: str | None = None
    task: str | None = None
    pairs: Path | None = None
    count: int | None = None
    seed: int = 0

    def checked(self, corrupt: bool = True) -> Source:
        """This source, provided that it is exactly one; told before a model is opened."""
        given = [name for name in ("clean", "task", "pairs") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"both --{given[0]} and --{given[1]}" if given else "none of them"
            raise WrongOption(f"give prompts as --clean and --corrupt, as --task, or as --pairs; this is {found}.")
        if given[0] == "clean":
            if corrupt and self.corrupt is None:
                raise WrongOption("--clean needs --corrupt beside it: the same prompt with one thing changed.")
            if self.count is not None:
                raise WrongOption("--count is of a task's pairs or a file's; --clean and --corrupt are one pair.")
        else:
            for name in ("corrupt", "answer", "wrong"):
                if getattr(self, name) is not None:
                    raise WrongOption(f"--{name} goes with --clean; the pairs of --{given[0]} bring their own.")
        if self.count is not None and self.count < 1:
            raise WrongOption(f"--count is how many pairs, one or more; got {self.count}.")
        if self.pairs is not None and not self.pairs.is_file():
            raise NotSaved(f"there is no file {self.pairs}; --pairs takes a JSON file of prompts or of a relation.")
        return self


@dataclass(frozen=True, eq=False)
class Asked:
    """The prompts, what should follow each, and what should not."""

    model: Model
    clean: list
    corrupt: list | None
    answers: list[int]
    wrongs: list[int]
    """Empty where a pair has none."""
    told: str
    """What this is, for people."""
    left_out: str = ""

    def metric(self, name: str | None = None) -> Metric:
        """A metric by its name: the logit difference where there is a wrong answer, else the answer's logit."""
        name = name or ("logit_diff" if self.wrongs else "logit")
        if name == "logit_diff" and not self.wrongs:
            raise WrongToken("logit_diff compares the answer with a wrong one; give --wrong, or take --metric logit.")
        if name == "kl":
            return kl(self.model.run(self.clean))
        if name == "logit_diff":
            return logit_diff(self.answers, self.wrongs)
        return {"prob": prob, "nll": nll, "logit": logit, "rank": rank}[name](self.answers)

    @property
    def words(self) -> tuple[str, str]:
        """The first answer and the first wrong as text."""
        tokens = [*self.answers[:1], *self.wrongs[:1]]
        said = self.model.run_reader.words(tokens)
        return said[0], said[1] if self.wrongs else ""

    def card(self, command: str, **options: Any) -> dict[str, Any]:
        """What a journal writes down: equal for equal questions."""
        prompts = digest(self.clean, self.corrupt, self.answers, self.wrongs)
        return {"command": command, "model": self.model.name, "weights": fingerprint(self.model), "asked": self.told,
                "prompts": prompts, **options}  # fmt: skip


def read(model: Model, source: Source) -> Asked:
    """The prompts of a source as this model reads them."""
    if source.clean is not None:
        return _one(model, source)
    if source.task is not None:
        count = source.count or COUNT
        pairs = draw(source.task, count, source.seed, model.tokenizer)
        return _several(model, pairs, f"{len(pairs)} pairs of {source.task}, seed {source.seed}")
    assert source.pairs is not None
    found = _file(source.pairs, source.seed, model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pairs = fitting(found, model.tokenizer)
    pairs = pairs[: source.count]
    left_out = "; ".join(str(w.message) for w in told)
    return _several(model, pairs, f"{len(pairs)} pairs of {source.pairs.name}", left_out)


def others(model: Model, source: Source) -> Asked | None:
    """As many further pairs of a task, none of which `read` gives; nothing where there are no more, or no task."""
    if source.task is None:
        return None
    count = source.count or COUNT
    try:
        pairs = draw(source.task, 2 * count, source.seed, model.tokenizer)[count:]
    except WrongPrompt:
        return None
    return _several(model, pairs, f"{len(pairs)} other pairs of {source.task}")


def prompt(model: Model, text: str | None) -> Any:
    """Text, or token ids where the model has no tokenizer."""
    if text is None or model.tokenizer is not None:
        return text
    try:
        return [int(w) for w in text.replace(",", " ").split()]
    except ValueError:
        raise WrongPrompt(f'{model.name} has no tokenizer, so its prompt is token ids such as "2 0 1"; got "{text}".') from None


def word(model: Model, said: str | None) -> str | int | None:
    """A token by its text; by its id where no token reads so, or the model has no tokenizer."""
    if said is None or not said.strip().isdigit():
        return said
    try:
        return model.token(said)
    except WrongToken:
        return int(said)


def one_of(option: str, said: str, known: Iterable[str]) -> str:
    """A value that an option may have."""
    names = tuple(known)
    if said not in names:
        raise WrongOption(f'{option} is one of {", ".join(names)}; not "{said}".{did_you_mean(said, names)}')
    return said


def _one(model: Model, source: Source) -> Asked:
    """A pair of texts. What is not given is what the model says: on the clean prompt right, on the corrupt one wrong."""
    clean, corrupt = prompt(model, source.clean), prompt(model, source.corrupt)
    run = model.run([clean])
    logits = run.logits[0, run.last[0]]
    right = _token(model, source.answer, logits.shape[-1]) if source.answer is not None else int(logits.argmax())
    wrongs = [] if source.wrong is None else [_token(model, source.wrong, logits.shape[-1])]
    if not wrongs and corrupt is not None:
        other = model.run([corrupt])
        scores = other.logits[0, other.last[0]].clone()
        scores[right] = -float("inf")
        wrongs = [int(scores.argmax())]
    if wrongs == [right]:
        raise WrongToken(f'the answer and the wrong one are both "{source.answer}"; give another.')
    return Asked(model, [clean], None if corrupt is None else [corrupt], [right], wrongs, "one pair of prompts")


def _token(model: Model, said: str, size: int) -> int:
    read = word(model, said)
    assert read is not None
    token = model.token(read)
    if not 0 <= token < size:
        raise WrongToken(f"there is no token {token} in a vocabulary of {size}.")
    return token


def _several(model: Model, pairs: Sequence[Pair], told: str, left_out: str = "") -> Asked:
    if not pairs:
        raise WrongPrompt(f"there are no pairs to ask about in {told}.")
    lacking = [p for p in pairs if p.corrupt is None]
    if lacking:
        raise WrongPrompt(f"{told}: {len(lacking)} of them have no corrupt prompt to compare with; use another task.")
    answers = [answer_token(p.clean, p.answer, model.tokenizer) for p in pairs]
    wrongs = [wrong_token(model, p) for p in pairs] if all(p.wrongs for p in pairs) else []
    return Asked(model, [p.clean for p in pairs], [p.corrupt for p in pairs], answers, wrongs, told, left_out)


def wrong_token(model: Model, pair: Pair) -> int:
    """The first wrong of a pair: as it would stand after the prompt, else by itself."""
    try:
        return answer_token(pair.clean, pair.wrong, model.tokenizer)
    except WrongToken:
        return model.token(pair.wrong)


def _file(path: Path, seed: int, model: Model) -> list[Pair]:
    """Prompts or a relation, whichever the file holds."""
    try:
        relation = "samples" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        relation = False  # whoever reads it says what is wrong
    return load_relation(path, seed, tokenizer=model.tokenizer) if relation else load_prompts(path)
