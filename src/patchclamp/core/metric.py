"""Metrics: one number per prompt from the logits (batch, pos, vocab).

Any function of the logits is a metric. The ones here know their tokens by word or id, their unit, and that they read one
position only, which lets a sweep skip every other row of the unembedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from patchclamp.core.axes import Answers, Logits, PerPrompt
from patchclamp.core.errors import ShapeMismatch, WrongToken
from patchclamp.core.run import Run

Word = str | int
Words = Word | Sequence[Word]


@dataclass(frozen=True, eq=False)
class Metric:
    """A named metric of the logits at the place where a prompt is answered: its last token, or a masked one."""

    name: str
    unit: str
    measure: Callable[..., PerPrompt]
    """(logits (batch, vocab), *ids (batch,)) -> (batch,)"""
    tokens: tuple[Words, ...] = ()
    """The tokens it is about, each one for all prompts or a list with one a prompt."""
    columns: tuple[int, ...] | None = None
    """For each prompt the column where it is answered; None means the last one."""
    alone: bool = False
    """Whether it reads the logits of its own tokens alone, so that a sweep need make no others."""

    def bind(self, read: Callable[[str], int], columns: Sequence[int] | None = None) -> Metric:
        """The same metric with its words turned into ids by a model's tokenizer."""
        return replace(
            self,
            tokens=tuple(_ids(t, read) for t in self.tokens),
            columns=self.columns if columns is None else tuple(columns),
        )

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens it is about, each once, where its words have been turned into ids."""
        each = [[t] if isinstance(t, (str, int)) else t for t in self.tokens]
        return tuple(sorted({int(i) for ids in each for i in ids}))

    def among(self, ids: Sequence[int]) -> Metric:
        """The same metric of logits that were made for these tokens only, in this order.

        >>> few = logit_diff(7, 3).among((3, 7))
        >>> few.tokens, few(torch.tensor([[[1.0, 5.0]]]))
        ((1, 0), tensor([4.]))
        """
        return replace(self, tokens=tuple(_ranked(t, list(ids)) for t in self.tokens))

    def __call__(self, logits: Logits) -> PerPrompt:
        """The metric of each prompt."""
        rows = torch.arange(logits.shape[0], device=logits.device)
        if self.columns is None:
            at = logits[:, -1]
        else:
            columns = self.columns * (logits.shape[0] // len(self.columns))
            at = logits[rows, torch.tensor(columns, device=logits.device)]
        precise = at.to(torch.promote_types(at.dtype, torch.float32))
        return self.measure(precise, *(self._one_a_row(t, logits) for t in self.tokens))

    def _one_a_row(self, token: Words, logits: Logits) -> Int[Tensor, " batch"]:
        ids = [token] if isinstance(token, (str, int)) else list(token)
        for word in ids:
            if isinstance(word, str):
                raise WrongToken(f'{self.name} has the word "{word}" but no tokenizer; use model.metric(...) or an id.')
            if not 0 <= word < logits.shape[-1]:
                raise WrongToken(f"{self.name}: there is no token {word} in a vocabulary of {logits.shape[-1]}.")
        rows = logits.shape[0]
        if rows % len(ids):
            raise WrongToken(f"{self.name} has {len(ids)} tokens for {rows} prompts; give one, or one a prompt.")
        return torch.tensor(ids * (rows // len(ids)), device=logits.device)


def read(metric: Callable[[Logits], PerPrompt], logits: Logits, batch: int) -> PerPrompt:
    """A metric of each prompt, for keeping: no gradient, float32, on the CPU.

    >>> read(lambda logits: logits[:, -1, 0], torch.zeros(2, 3, 4), 2)
    tensor([0., 0.])
    """
    found = metric(logits)
    if not isinstance(found, Tensor) or found.shape != (batch,):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ShapeMismatch(f"a metric gives one number per prompt, a tensor [{batch}]; this one gave {shape}.")
    return found.detach().float().cpu()


def called(metric: Callable[[Logits], PerPrompt]) -> tuple[str, str]:
    """What people call a metric, and its unit.

    >>> called(logit_diff(1, 2))
    ('logit difference', 'logits')
    """
    return getattr(metric, "name", getattr(metric, "__name__", "metric")), getattr(metric, "unit", "")


def logit_diff(answer: Words, wrong: Words) -> Metric:
    """The answer's logit minus the wrong answer's.

    >>> logits = torch.tensor([[[0.0, 3.0, 1.0]]])
    >>> logit_diff(1, 2)(logits)
    tensor([2.])
    """
    return Metric("logit difference", "logits", lambda at, a, b: _pick(at, a) - _pick(at, b), (answer, wrong), alone=True)


def logit(answer: Words) -> Metric:
    """The answer's logit.

    >>> logit(1)(torch.tensor([[[0.0, 3.0, 1.0]]]))
    tensor([3.])
    """
    return Metric("logit", "logits", _pick, (answer,), alone=True)


def prob(answer: Words) -> Metric:
    """The answer's probability.

    >>> prob(1)(torch.zeros(1, 1, 4))
    tensor([0.2500])
    """
    return Metric("probability", "probability", lambda at, a: _pick(at.softmax(-1), a), (answer,))


def nll(answer: Words) -> Metric:
    """The answer's surprisal, minus its log-probability, in nats.

    >>> nll(1)(torch.zeros(1, 1, 4))
    tensor([1.3863])
    """
    return Metric("negative log-likelihood", "nats", lambda at, a: -_pick(at.log_softmax(-1), a), (answer,))


def rank(answer: Words) -> Metric:
    """How many tokens are more probable than the answer: 0 is the top. It has no gradient.

    >>> rank(2)(torch.tensor([[[0.0, 3.0, 1.0]]]))
    tensor([1.])
    """
    return Metric("rank", "tokens", lambda at, a: (at > _pick(at, a)[:, None]).sum(-1).float(), (answer,))


def kl(reference: Run | Answers) -> Metric:
    """KL(reference || this): how far the prediction is from a reference run's, or from logits (batch, vocab), in nats.

    >>> kl(torch.zeros(1, 4))(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]))
    tensor([0.1074])
    """
    if isinstance(reference, Run):
        reference = reference.logits[range(len(reference.last)), reference.last]
    log_p = reference.detach().float().log_softmax(-1)

    def measure(at: Answers) -> PerPrompt:
        target = log_p.expand_as(at) if log_p.shape[0] == 1 else log_p.repeat(at.shape[0] // log_p.shape[0], 1)
        return (target.exp() * (target - at.log_softmax(-1))).sum(-1)

    return Metric("KL divergence", "nats", measure)


def _pick(at: Answers, ids: Int[Tensor, " batch"]) -> PerPrompt:
    return at.gather(-1, ids[:, None])[:, 0]


def _ids(token: Words, read: Callable[[str], int]) -> Words:
    if isinstance(token, (str, int)):
        return read(token) if isinstance(token, str) else int(token)
    return [read(t) if isinstance(t, str) else int(t) for t in token]


def _ranked(token: Words, ids: list[int]) -> Words:
    """Where tokens stand among those that logits were made for."""
    return ids.index(int(token)) if isinstance(token, (str, int)) else [ids.index(int(t)) for t in token]
