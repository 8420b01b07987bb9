"""Lessons in context: `cat: cats, dog: dogs, hen:` and the examples alone say which function is meant.

A `Function` is a list of pairs, read from anywhere (`read` takes the JSON files that Todd et al. 2023 published). From it come
prompts that show some of its pairs and ask for one more, prompts that ask without showing any, and prompts that show pairs
without a function in them: answers are shuffled among the examples, as in the paper, or of several functions mixed.

Shuffling takes the function away only where it cannot be told from the answers alone. Where every answer is a plural, `cat:
hens, dog: cats` still says "plural": see whether the model still answers, and mix in the other functions of the same cues.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from patchclamp.core.axes import PerPrompt
from patchclamp.core.errors import NotSaved, WrongPrompt
from patchclamp.model.model import Model

BATCH = 64


@dataclass(frozen=True)
class Wording:
    """How pairs are written down."""

    between: str = ": "
    """Between a cue and its answer; without its last space at the end of a prompt."""
    after: str = ", "
    """Between a pair and the next."""
    before: str = ""
    """Before each cue."""

    def __call__(self, shown: Sequence[tuple[str, str]], cue: str) -> str:
        """A prompt: pairs, and one more cue.

        >>> from patchclamp.probe.lesson import QUESTIONS, Wording
        >>> Wording()([("cat", "cats")], "hen")
        'cat: cats, hen:'
        >>> QUESTIONS([], "hen")
        'Q: hen\\nA:'
        """
        pairs = [f"{self.before}{one}{self.between}{answer}" for one, answer in shown]
        return self.after.join([*pairs, f"{self.before}{cue}{self.between.rstrip()}"])


QUESTIONS = Wording("\nA: ", "\n\n", "Q: ")
"""The wording of Todd et al. 2023."""


@dataclass(frozen=True)
class Function:
    """A function by its pairs, each cue with its answer."""

    name: str
    pairs: tuple[tuple[str, str], ...]

    def split(self, share: float = 0.5, seed: int = 0) -> tuple[Function, Function]:
        """Two functions of the same name: pairs to find something with, and pairs to try it on. By cue, so that functions of
        the same cues are split alike."""
        cues = sorted(cue for cue, _ in self.pairs)
        random.Random(f"split {seed}").shuffle(cues)
        first = set(cues[: round(share * len(cues))])
        parts = [tuple(pair for pair in self.pairs if (pair[0] in first) == wanted) for wanted in (True, False)]
        return Function(self.name, parts[0]), Function(self.name, parts[1])


@dataclass(frozen=True)
class Lesson:
    """Prompts and the word that each should be continued with."""

    name: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]


def read(path: str | Path) -> list[Function]:
    """Functions from JSON: a file with a list of {"input": cue, "output": answer}, or a folder of such files."""
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise NotSaved(f"{path} holds no JSON file; a function is a file with a list of inputs and outputs.")
    made = []
    for file in files:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            made.append(Function(file.stem, tuple((str(pair["input"]), str(pair["output"])) for pair in found)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotSaved(f'{file} is no list of {{"input": ..., "output": ...}} ({type(error).__name__}: {error}).') from None
    return made


def shown(function: Function, shots: int, count: int, *, asked: Function | None = None, mixed: Sequence[Function] = (),
          shuffled: bool = False, wording: Wording = Wording(), seed: int = 0) -> Lesson:  # fmt: skip
    """`count` prompts that show `shots` pairs and ask for one that is not among them; of `asked`, where that is given.

    With `mixed` every example is answered by one of these functions, drawn by lot among those that know the cue; with
    `shuffled` the answers are dealt out among the examples.

    >>> from patchclamp.probe.lesson import Function, shown
    >>> plural = Function("plural", (("cat", "cats"), ("dog", "dogs"), ("hen", "hens")))
    >>> shown(plural, 2, 1).prompts
    ('cat: cats, dog: dogs, hen:',)
    """
    rng, prompts, answers = random.Random(f"{function.name} {seed}"), [], []
    if len(function.pairs) < shots + (asked is None):
        raise WrongPrompt(f"{function.name} has {len(function.pairs)} pairs, too few to show {shots} of them and ask for one.")
    tables = [dict(one.pairs) for one in mixed]
    for _ in range(count):
        cue, answer = rng.choice((asked or function).pairs)
        examples = rng.sample([pair for pair in function.pairs if pair[0] != cue], shots)
        if tables:
            known = [[table[one] for table in tables if one in table] or [said] for one, said in examples]
            examples = [(one, rng.choice(said)) for (one, _), said in zip(examples, known)]
        if shuffled:
            dealt = [said for _, said in examples]
            rng.shuffle(dealt)
            examples = [(one, said) for (one, _), said in zip(examples, dealt)]
        prompts.append(wording(examples, cue))
        answers.append(f" {answer}")
    return Lesson(function.name, tuple(prompts), tuple(answers))


def bare(function: Function, wording: Wording = Wording()) -> Lesson:
    """Every cue of a function, with nothing that says which function is meant."""
    prompts, answers = zip(*((wording([], cue), f" {answer}") for cue, answer in function.pairs))
    return Lesson(function.name, prompts, answers)


def first_tokens(model: Model, answers: Sequence[str]) -> list[int]:
    """The token that each answer begins with: what a model is asked for where an answer is several."""
    return [model.inputs(answer, bos=False).ids()[0] for answer in answers]


def right(model: Model, lesson: Lesson) -> PerPrompt:
    """Whether the likeliest of all tokens is the one that the answer begins with, prompt by prompt: 1 or 0."""
    found, ids = [], torch.tensor(first_tokens(model, lesson.answers))
    for begin in range(0, len(lesson.prompts), BATCH):
        run = model.run(list(lesson.prompts[begin : begin + BATCH]))
        top = run.logits[range(len(run.last)), run.last].argmax(-1).cpu()
        found.append((top == ids[begin : begin + BATCH]).float())
    return torch.cat(found)
