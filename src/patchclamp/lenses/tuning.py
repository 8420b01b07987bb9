"""Tuning: the loop that trains a tuned lens, all layers at once, on any stream of text.

The model passes a batch once. Every layer's translated stream is then read out by the model's own end, and pulled towards the
model's own answer: the loss is KL(output || reading), averaged over tokens (Belrose et al. 2023). Its gradient at the
logits is the difference of two distributions, so no graph over the vocabulary is ever kept; logits are made some tokens at
a time and forgotten.

The loss of a step is measured before the step is taken, on text that the lens has not met (unless a list of texts is read
again), so the history of a training is an evaluation too.

What it does not know: whether the text is like the text that the lens will be used on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from patchclamp.core.checkpoint import keep, resume
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.journal import digest
from patchclamp.core.progress import progress
from patchclamp.model.ending import Ending, Read, Rows, Tail
from patchclamp.model.model import Model

PIECE = 1 << 19
"""Logits that are made at a time on a CPU: few enough to stay in its cache. Elsewhere a hundred times as many."""
FEWEST = 128
"""Tokens below which a product with a large matrix is slow."""
IMPOSSIBLE = -1e30
"""The logit of a token that cannot be, where minus infinity times nothing would be not a number."""
PATIENCE = 30.0
"""Seconds between two checkpoints."""

Texts = Iterable[Any]
"""Strings, lists or tensors of token ids; a tensor (row, pos) counts as its rows. A sequence is read again when it ends."""
Choose = Callable[[Iterable[nn.Parameter]], Optimizer]


def sgd(parameters: Iterable[nn.Parameter], rate: float = 1.0, momentum: float = 0.9, decay: float = 1e-3) -> Optimizer:
    """Nesterov's gradient descent, as in the paper; `rate` is what a steady gradient moves a weight by."""
    return SGD(parameters, rate * (1 - momentum), momentum, weight_decay=decay, nesterov=True)


def adam(parameters: Iterable[nn.Parameter], rate: float = 1e-3, momentum: float = 0.9, decay: float = 1e-3) -> Optimizer:
    """Adam (with AMSGrad, so that the rate does decay), the other choice of the authors' package."""
    return Adam(parameters, rate, (momentum, 0.999), weight_decay=decay, amsgrad=True)


class Translators(nn.Module):
    """What is trained: a change of the stream for every block's input, zero at first, so that it begins as the logit lens."""

    def __init__(self, layers: int, width: int, steps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers, width, width))
        self.bias = nn.Parameter(torch.zeros(layers, width))
        self.register_buffer("history", torch.full((steps, layers), float("nan")))
        self.history: Tensor


@dataclass(frozen=True)
class Plan:
    """How a lens is trained."""

    steps: int = 250
    batch: int = 64
    """Texts a step."""
    optimizer: Choose = sgd
    warmup: float = 0.0
    """Share of the steps in which the rate rises; it then falls, in a straight line, to nothing."""
    clip: float = 1.0
    """The longest gradient of all translators together."""
    precision: torch.dtype = torch.float32
    """What logits are computed in. bfloat16 is faster where the processor has it."""

    def rate(self, step: int) -> float:
        """The share of the full rate at a step."""
        rise = round(self.warmup * self.steps)
        return (step + 1) / rise if step < rise else (self.steps - step) / max(self.steps - rise, 1)


def tuning(model: Model, texts: Texts, plan: Plan, every: int, folder: Path | None) -> Iterator[tuple[int, Translators]]:
    """Train; hand out what is there after every so many steps and at the end. Stopped at any moment, it goes on from there."""
    batches = grouped(texts, plan.batch)
    first = next(batches, None)
    if first is None:
        raise WrongPrompt("a tuned lens is trained on text, and there is none.")
    made = Translators(model.layers, model.width, plan.steps).to(model.device)
    weights = [made.weight, made.bias]
    optimizer = plan.optimizer(weights)
    rates = [group["lr"] for group in optimizer.param_groups]
    recipe = _recipe(model, plan, optimizer, first)
    start = resume(folder, recipe, made, optimizer) if folder is not None else 0
    batches = itertools.islice(itertools.chain([first], batches), start, None)
    done, whole, due = start, True, time.monotonic() + PATIENCE
    if start == plan.steps:
        yield start, made
    try:
        for step in progress(range(start, plan.steps), plan.steps - start, f"tuned lens of {model.name}"):
            texts_now = next(batches, None)
            if texts_now is None:
                raise WrongPrompt(f"the texts ended after {step} of {plan.steps} steps; give more of them, or steps={step}.")
            made.history[step] = learn(made, Ending.of(model, model.inputs(texts_now)), plan.precision)
            nn.utils.clip_grad_norm_(weights, plan.clip)
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * plan.rate(step)
            whole = False
            optimizer.step()
            done, whole = step + 1, True
            if folder is not None and (time.monotonic() > due or done == plan.steps):
                keep(folder, recipe, made, optimizer, done)
                due = time.monotonic() + PATIENCE
            if done % every == 0 or done == plan.steps:
                yield done, made
    except BaseException:
        if folder is not None and whole and done > start:
            keep(folder, recipe, made, optimizer, done)
        raise


@torch.no_grad()
def learn(made: Translators, passed: Ending, precision: torch.dtype = torch.float32) -> Float[Tensor, " layer"]:
    """The mean divergence of every layer on one batch; its gradient is left at the translators."""
    made.weight.grad, made.bias.grad = torch.empty_like(made.weight), torch.empty_like(made.bias)
    pull = Pull(passed, precision)
    found = torch.zeros(len(passed.streams), device=made.weight.device)
    for layer, stream in enumerate(passed.streams):
        here = stream.float()
        translated = torch.addmm(here + made.bias[layer], here, made.weight[layer].T)
        found[layer], slope = pull(translated.to(stream.dtype))
        torch.mm(slope.T, here, out=made.weight.grad[layer])
        torch.sum(slope, 0, out=made.bias.grad[layer])
    return found


class Pull:
    """How far readings are from the output of one batch, and which way at the stream they would come nearer."""

    def __init__(self, passed: Ending, precision: torch.dtype) -> None:
        self.passed, self.precision = passed, precision
        logits = passed.logits.float()
        self.banned = not bool(logits.amin().isfinite())
        """Whether the model's own end forbids tokens."""
        self.truth = logits.softmax(-1)
        self.product: Tensor | None = None
        self.certain = self._agreed(logits, self.truth) - _whole(logits, self.truth)
        self.tokens, vocab = self.truth.shape
        room = PIECE if self.truth.device.type == "cpu" else 100 * PIECE
        size = min(max(room // vocab, FEWEST), self.tokens)
        self.pieces = [slice(n, min(n + size, self.tokens)) for n in range(0, self.tokens, size)]
        if passed.tail is not None:  # memory that is used again and again: fresh memory costs more than a softmax
            self.weight = passed.tail.weight.detach().to(precision)
            self.wide, self.reading, self.product = (self.truth.new_empty(size, vocab) for _ in range(3))
            self.narrow = self.wide if precision == torch.float32 else self.wide.to(precision)

    def __call__(self, stream: Rows) -> tuple[Tensor, Rows]:
        """The mean divergence over all tokens, and its slope at the stream."""
        stream = stream.requires_grad_()
        tail = self.passed.tail
        with torch.enable_grad():
            normed = stream if tail is None else tail.norm(stream)
        slopes, total = torch.empty_like(normed), torch.zeros((), device=stream.device)
        for some in self.pieces:
            loss, slopes[some] = self._whatever(stream[some], some) if tail is None else self._linear(tail, normed[some], some)
            total += loss
        if tail is not None:
            (slopes,) = torch.autograd.grad(normed, stream, slopes)
        return total / self.tokens, slopes.float() / self.tokens

    def _whatever(self, stream: Rows, some: slice) -> tuple[Tensor, Rows]:
        """Some tokens through an end of any kind."""
        stream = stream.detach().requires_grad_()
        said = self.passed.read(stream)
        wide = said.detach().float()
        reading = wide.softmax(-1)
        loss = self._loss(wide, reading, some)
        return loss, torch.autograd.grad(said, stream, reading.sub_(self.truth[some]).to(said.dtype))[0]

    def _linear(self, tail: Tail, normed: Rows, some: slice) -> tuple[Tensor, Rows]:
        """Some tokens through a matrix."""
        wide, narrow, reading = (t[: len(normed)] for t in (self.wide, self.narrow, self.reading))
        torch.mm(normed.detach().to(self.precision), self.weight.T, out=narrow)
        if narrow.dtype != wide.dtype:
            wide.copy_(narrow)
        if tail.bias is not None:
            wide += tail.bias.detach()
        torch.softmax(wide, -1, out=reading)
        loss = self._loss(wide, reading, some)
        off = reading.sub_(self.truth[some])
        return loss, torch.mm(off if narrow.dtype == off.dtype else narrow.copy_(off), self.weight).to(normed.dtype)

    def _loss(self, said: Read, reading: Read, some: slice) -> Tensor:
        """The sum of the divergences of some tokens."""
        return (self.certain[some] - self._agreed(said, self.truth[some]) + _whole(said, reading)).sum()

    def _agreed(self, said: Read, truth: Read) -> Float[Tensor, " token"]:
        """The logit that the output expects."""
        said = said.clamp(min=IMPOSSIBLE) if self.banned else said
        room = None if self.product is None else self.product[: len(said)]
        return torch.mul(truth, said, out=room).sum(-1)


def _whole(said: Read, reading: Read) -> Float[Tensor, " token"]:
    """The logarithm of the sum of exponentials, where the softmax is known already."""
    return said.amax(-1) - reading.amax(-1).log()


def grouped(texts: Texts, size: int) -> Iterator[list]:
    """Texts as rows, so many at a time."""
    if isinstance(texts, str):
        raise WrongPrompt("a single string is no stream of texts; give a list, or anything that can be iterated over.")
    rows = _rows(texts)
    while some := list(itertools.islice(rows, size)):
        yield some


def _rows(texts: Texts) -> Iterator[Any]:
    again = isinstance(texts, (Sequence, Tensor)) and len(texts) > 0
    for text in itertools.chain.from_iterable(itertools.repeat(texts)) if again else texts:
        if isinstance(text, Tensor):
            yield from text.tolist() if text.ndim == 2 else [text.tolist()]
        else:
            yield text


def _recipe(model: Model, plan: Plan, optimizer: Optimizer, first: list) -> dict[str, Any]:
    """What has to be the same for a training to go on."""
    groups = [{k: v for k, v in g.items() if isinstance(v, (int, float, list, tuple)) and k != "params"}
              for g in optimizer.param_groups]  # fmt: skip
    return {
        "what": "tuned lens", "model": model.name, "weights": fingerprint(model), "steps": plan.steps, "batch": plan.batch,
        "optimizer": f"{type(optimizer).__name__} {groups}", "warmup": plan.warmup, "clip": plan.clip,
        "precision": str(plan.precision), "texts": digest(str(first)),
    }  # fmt: skip


def fingerprint(model: Model) -> str:
    """A short name for a model's unembedding and its edits."""
    head = model.hf.get_output_embeddings() if hasattr(model.hf, "get_output_embeddings") else None  # type: ignore[operator]
    return digest(*([] if head is None else [head.weight]), *map(repr, model.edits))
