"""Likelihood: how probable a model finds whole texts, in nats.

A causal model reads a text once, and its tokens' log-probabilities add up. A masked one is asked for each token with that one
masked and all others in sight; the sum is the pseudo-log-likelihood (Salazar et al. 2020, "Masked language model scoring"),
which is no probability but can be compared between texts of equal length.

The first token of a text has a probability only where something stands before it: the beginning-of-sequence token, where the
tokenizer has one. A word of several tokens is too easy for a masked model, which sees its other tokens (Kauf & Ivanova 2023);
that is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.core.run import Run
from patchclamp.model.inputs import rows
from patchclamp.model.ordinary import size

if TYPE_CHECKING:
    from patchclamp.model.model import Model

ROOM = 1 << 25
"""Logits that are held at a time, at most."""
BATCH = 128
"""Texts that are read at a time, at most."""


def log_probability(model: Model, texts: Sequence, bos: bool | None = True) -> Float[Tensor, " text"]:
    """The log-probability of each text, all its tokens together. Texts may be ids.

    `bos`: whether the beginning-of-sequence token goes before a text, where there is one; None leaves it to the tokenizer, as
    it always is for a masked model.

    >>> from patchclamp.model.likelihood import log_probability
    >>> said = log_probability(model, ["Mary and John went to the store.", "Mary and John went to the the."])
    >>> bool(said[0] > said[1])
    True
    """
    if not len(texts):
        raise WrongPrompt("there is no text to be read.")
    if masked(model):
        return _masked(model, [rows(model.tokenizer, t)[0] for t in texts])
    return _causal(model, [rows(model.tokenizer, t, bos)[0] for t in texts])


def masked(model: Model) -> bool:
    """Whether a model fills in masked tokens; one that neither does so nor reads from left to right is refused."""
    if getattr(getattr(model.hf, "config", None), "is_encoder_decoder", False):
        raise Unserved(f"{model.name} reads one text and writes another; it gives no probability to one text alone.")
    if "MaskedLM" in type(model.hf).__name__:
        if getattr(model.tokenizer, "mask_token_id", None) is None:
            raise Unserved(f"{model.name} fills in masked tokens, but its tokenizer has no mask token.")
        return True
    return False


def _causal(model: Model, ids: list[list[int]]) -> Float[Tensor, " text"]:
    short = next((n for n, row in enumerate(ids) if len(row) < 2), None)
    if short is not None:
        raise WrongPrompt(f"text {short} is {len(ids[short])} token, and nothing stands before it; a longer one is needed.")
    found = torch.zeros(len(ids), dtype=torch.float64)
    for batch in batches([len(row) for row in ids], size(model)):
        run = model.run([ids[i] for i in batch])
        for r, i in enumerate(batch):
            found[i] = surprisals(run, r).neg().double().sum()
    return found.float()


def surprisals(run: Run, row: int = 0) -> Float[Tensor, " pos"]:
    """Minus the log-probability of every token of one prompt but the first, in nats.

    >>> from patchclamp.model.likelihood import surprisals
    >>> surprisals(model.run(clean)).shape, len(model.run(clean).words[0])
    (torch.Size([14]), 15)
    """
    columns = list(run.windows[""].tokens(row))
    logits, said = run.logits[row, columns[:-1]].detach().float(), run.tokens[row, columns[1:]]
    return (logits.logsumexp(-1) - logits.gather(-1, said[:, None])[:, 0]).cpu()


def _masked(model: Model, ids: list[list[int]]) -> Float[Tensor, " text"]:
    special = set(model.tokenizer.all_special_ids) - {model.tokenizer.unk_token_id}
    asked = [(i, p) for i, row in enumerate(ids) for p, token in enumerate(row) if token not in special]
    found = torch.zeros(len(ids), dtype=torch.float64)
    for batch in batches([len(ids[i]) for i, _ in asked], size(model)):
        held = [asked[n] for n in batch]
        run = model.run([[*ids[i][:p], model.tokenizer.mask_token_id, *ids[i][p + 1 :]] for i, p in held])
        for r, (i, p) in enumerate(held):
            logits = run.logits[r, run.windows[""].tokens(r)[p]].detach().double()
            found[i] += float(logits[ids[i][p]] - logits.logsumexp(-1))
    return found.float()


def batches(lengths: Sequence[int], wide: int = 1) -> Iterator[list[int]]:
    """Which texts go together: those of similar length, as many as there is room for."""
    order, now = sorted(range(len(lengths)), key=lengths.__getitem__), list[int]()
    for i in order:
        if now and (len(now) == BATCH or (len(now) + 1) * lengths[i] * wide > ROOM):
            yield now
            now = []
        now.append(i)
    if now:
        yield now
