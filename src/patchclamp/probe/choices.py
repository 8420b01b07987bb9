"""What a model says of its own answers: options scored, letters chosen, "is it so?" asked, samples drawn.

Kadavath et al. 2022 ask large models to choose among lettered options, to say whether an answer is true (P(True)), and what
helps: the format, other answers of the model's own, hints and sources. All of it is a question of which words come next, so
it is asked here of any causal model, in the user's own wording, and small models that cannot read letters are asked for the
likelihood of the options instead.

Not known here: whether a probability is right about anything. That is `calibration.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt, WrongToken
from patchclamp.core.progress import progress
from patchclamp.model.gather import gather

if TYPE_CHECKING:
    from patchclamp.model.model import Model

Scores = Float[Tensor, "prompt option"]
NONE = "none of the above"
COUNTED = ("sum", "mean")


def score(model: Model, prompts: Sequence[str], options: Sequence[Sequence[str]], by: str = "sum") -> Scores:
    """Log-probability of each prompt's options as its continuation, in nats.

    Options are written as they follow the prompt, " doctor" with its space, and may be several tokens; `by` "mean" divides by
    how many, so that long options are not worse for being long. Every prompt has as many options as the others.

    >>> from patchclamp.probe.choices import score
    >>> score(model, [clean], [[" Mary", " John"]]).argmax()
    tensor(0)
    """
    if by not in COUNTED:
        raise ValueError(f'log-probabilities are counted by "{COUNTED[0]}" or "{COUNTED[1]}", not "{by}".')
    if len(options) != len(prompts) or len({len(mine) for mine in options}) != 1:
        raise ShapeMismatch(f"{len(prompts)} prompts have {len(options)} lists of options; give one each, all of one length.")
    ids = _as_tokens(model, options)
    if ids is not None:
        return gather(model, "logits", prompts).log_softmax(-1).gather(1, ids)
    pairs = [(prompt, option) for prompt, mine in zip(prompts, options) for option in mine]
    found = torch.tensor([_continued(model, *pair, by) for pair in progress(pairs, label="scoring options")])
    return found.view(len(prompts), -1)


def letters(count: int) -> list[str]:
    """` A`, ` B`, ...: the answers to a lettered question."""
    return [f" {letter}" for letter in ascii_uppercase[:count]]


def lettered(question: str, options: Sequence[str], none: str | None = None, ask: str = "Answer:") -> str:
    """A question with its options behind letters, in the layout of Kadavath et al. 2022; `none` takes the last one's place.

    >>> from patchclamp.probe.choices import lettered
    >>> print(lettered("Who wrote Emma?", ["Austen", "Eliot", "Shelley"], none="none of the above"))
    Who wrote Emma?
     (A) Austen
     (B) Eliot
     (C) none of the above
    Answer:
    """
    shown = [*options[:-1], none] if none is not None else options
    if len(shown) > len(ascii_uppercase):
        raise WrongPrompt(f"{len(shown)} options have more than the {len(ascii_uppercase)} letters there are.")
    return "\n".join([question, *(f" ({letter}) {option}" for letter, option in zip(ascii_uppercase, shown)), ask])


def p_true(model: Model, questions: Sequence[str], yes: str = " Yes", no: str = " No") -> Float[Tensor, " prompt"]:
    """How sure a model is that a proposed answer is right: P(yes), of what `yes` and `no` have together.

    The questions are whole prompts, ending where the model is to say one of the two.

    >>> from patchclamp.probe.choices import p_true
    >>> p_true(model, ["It is true that Mary"], yes=" has", no=" had").shape
    torch.Size([1])
    """
    if model.token(yes) == model.token(no):
        raise WrongToken(f'"{yes}" and "{no}" are one token; they are the two answers.')
    return score(model, questions, [[yes, no]] * len(questions)).softmax(-1)[:, 0]


def samples(
    model: Model, prompts: Sequence[str], count: int = 10, temperature: float = 1.0, seed: int = 0
) -> Int[Tensor, "prompt sample"]:
    """One-token answers drawn from the model, `count` for each prompt: what Kadavath et al. 2022 show it as its own guesses."""
    chances = (gather(model, "logits", prompts) / temperature).softmax(-1)
    return chances.multinomial(count, replacement=True, generator=torch.Generator().manual_seed(seed))


def knows(drawn: Int[Tensor, "prompt sample"], answers: Int[Tensor, " prompt"]) -> Float[Tensor, " prompt"]:
    """Share of a prompt's samples that are right: what P(IK) is to foretell."""
    return (drawn == answers[:, None]).float().mean(1)


def _as_tokens(model: Model, options: Sequence[Sequence[str]]) -> Int[Tensor, "prompt option"] | None:
    """The options as ids, where every one is a single token: then one pass a prompt will do."""
    try:
        known = {option: model.token(option) for option in {o for mine in options for o in mine}}
    except WrongToken:
        return None
    return torch.tensor([[known[option] for option in mine] for mine in options])


def _continued(model: Model, prompt: str, option: str, by: str) -> float:
    """Log-probability of an option of several tokens."""
    start, whole = (model.inputs(text).tokens[0] for text in (prompt, prompt + option))
    before = len(start)
    if len(whole) <= before or not torch.equal(whole[:before], start):
        raise WrongPrompt(
            f'"{option}" does not begin with a token of its own after "{prompt[-20:]}"; move the space between them.'
        )
    logs = model.run(prompt + option).logits[0, before - 1 : -1].float().log_softmax(-1)
    each = logs.gather(1, whole[before:, None])[:, 0]
    return float(each.sum() if by == "sum" else each.mean())
