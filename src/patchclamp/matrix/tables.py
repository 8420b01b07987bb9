"""Tables: all there is to a model of one attention head, and a bound on its accuracy that runs it on nothing.

Without norms and positions, one head is three tables of vocabulary by vocabulary (Elhage et al. 2021): what a token says
directly (W_E W_U), how it scores another (QK), what another says through it (OV). The model is these tables, so they can be
laid out in a wider model whose weights are the tables themselves, and there each can be exchanged for what one believes it to
be.

`bound` is on the task of naming the largest token of a list. After Gross et al. 2024, "Compact Proofs of Model Performance
via Mechanistic Interpretability": lists are sorted into cases by their last, largest and second largest token; in each,
attention to the largest is bounded from the score table, and the margin of its logit from each table's worst entry. A share
of all lists is then known to be answered rightly, without an input being tried. It is arithmetic in double precision with
some room for rounding, not a formal proof, and as a bound it is loose: worst entries of different tables do not meet in any
one list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.matrix.circuit import direct, ov, qk
from patchclamp.matrix.head import Head
from patchclamp.matrix.sources import ordinary, tokens
from patchclamp.model.model import Model
from patchclamp.model.specimen import Specimen, SpecimenConfig

ROUNDING = 1e-4
"""A logit's lead that counts: the model itself is computed in single precision."""
CHUNK = 1 << 14


@dataclass(frozen=True, eq=False)
class Tables:
    """What a one-head model is made of, in double precision. `Tables.of(model)` reads them, and checks that they are all of it.

    >>> from patchclamp.matrix.tables import Tables, bound
    >>> tables = Tables.of(pc.load("specimen:maximum"))
    >>> bool((tables.values.argmax(1) == torch.arange(64)).all()), bound(tables).share > 0.5
    (True, True)
    """

    direct: Float[Tensor, "vocab vocab"]
    """What the last token says by itself: (token, logit)."""
    scores: Float[Tensor, "vocab vocab"]
    """(query, key)"""
    values: Float[Tensor, "vocab vocab"]
    """What a token looked at says, at full attention: (token, logit)."""
    width: int = 0
    """Of the stream of the model they come from, for what brute force would cost."""

    @classmethod
    def of(cls, model: Model) -> Tables:
        heads = Head.all(model)
        if len(heads) != 1 or model.layers != 1 or [w.name for w in model.anatomy.main.blocks[0].writes] != ["attn"]:
            raise Unserved(f"{model.name} is not one attention head alone, so three tables are not all of it.")
        if model.anatomy.main.norm or heads[0].norm is not None:
            raise Unserved(f"{model.name} has norms; what they divide by depends on the list, and is in no table.")
        site, source = heads[0].site, tokens(model)
        said = direct(model, source).factored.double().full() + _constant(heads[0])
        found = cls(said, qk(model, site, source, source).factored.double().full(),
                    ov(model, site, source=source).factored.double().full(), model.width)  # fmt: skip
        lists = ordinary(model, 32, 3)
        missed = (found.logits(lists) - model.run(lists).logits[:, -1].cpu().double()).abs().max()
        if float(missed) > 1e-3:
            raise Unserved(f"{model.name} is not its three tables (off by {float(missed):.2g}): positions matter to it.")
        return found

    @property
    def vocab(self) -> int:
        return len(self.direct)

    def logits(self, lists: Int[Tensor, "list pos"]) -> Float[Tensor, "list vocab"]:
        """What the model says at the end of each list, looked up."""
        pattern = self.scores[lists[:, -1:], lists].softmax(-1)
        return self.direct[lists[:, -1]] + torch.einsum("lp,lpv->lv", pattern, self.values[lists])

    def specimen(self) -> Specimen:
        """The same model with the tables for weights: the stream has one place for each token read and one for each said.

        `blocks.0.attn.W_Q` holds the scores and `blocks.0.attn.W_O` the values, so an edit of either exchanges a table.
        """
        n = self.vocab
        module = Specimen(SpecimenConfig(vocab=n, layers=1, heads=1, d_model=2 * n, d_head=n, d_mlp=0, norm="none",
                                         positional="none", bias=False, scale=1.0)).eval()  # fmt: skip
        attention, one, none = module.blocks[0].attn, torch.eye(n), torch.zeros(n, n)
        for parameter, value in (
            (module.embed.weight, torch.cat([one, none], 1)),
            (module.unembed.weight, torch.cat([self.direct.T, one.double()], 1)),
            (attention.q.weight, torch.cat([self.scores.T, none.double()], 1)),  # type: ignore[union-attr]
            (attention.k.weight, torch.cat([one, none], 1)),  # type: ignore[union-attr]
            (attention.v.weight, torch.cat([one, none], 1)),  # type: ignore[union-attr]
            (attention.o.weight, torch.cat([none.double(), self.values.T], 0)),  # type: ignore[union-attr]
        ):
            parameter.data = value.float().contiguous()
        return module

    def ideal(self) -> Tables:
        """The algorithm that the tables seem to carry out: look at tokens in proportion to their size, and say what is seen.

        Scores become one slope times the token's number, the same for every query (rank one); values a multiple of the
        identity. Both sizes are fitted to the tables; the direct path stays.
        """
        n = self.vocab
        number = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
        slope = float((self.scores @ number).mean() / (number @ number))
        own = float(self.values.diagonal().mean() - self.values.mean())
        return replace(self, scores=slope * number.expand(n, n).clone(), values=own * torch.eye(n, dtype=torch.float64))

    def grids(self) -> tuple[Grid, Grid, Grid]:
        """The tables as grids: direct, scores, values."""
        said = ("token", "logit")
        return (
            Grid(self.direct.float(), said, unit="logits", title="Direct path"),
            Grid(self.scores.float(), ("query", "key"), unit="score", title="QK circuit"),
            Grid(self.values.float(), said, unit="logits", title="OV circuit"),
        )


@dataclass(frozen=True, eq=False)
class Bound:
    """What is known of a model's accuracy without running it."""

    share: float
    """At least this share of all lists is answered rightly."""
    length: int
    sure: Bool[Tensor, "query largest"]
    """For each last and each largest token, whether all of their lists are."""
    work: int
    """Multiplications, roughly, that it took, the tables included."""
    brute: int
    """Multiplications, roughly, that trying every list takes."""

    def grid(self) -> Grid:
        """Which lists are known to be right, by their last and their largest token: 1, 0, or nothing where there are none."""
        n = len(self.sure)
        there = torch.arange(n)[:, None] <= torch.arange(n)[None]
        values = torch.where(there, self.sure.float(), torch.nan)
        return Grid(
            values, ("last", "largest"), unit="known", title=f"Known right from the weights: {self}", scale="sequential"
        )

    def __str__(self) -> str:
        return f"at least {self.share:.1%} of lists of {self.length}, at 1/{self.brute / max(self.work, 1):,.0f} of brute force"


def bound(tables: Tables, length: int = 2) -> Bound:
    """A lower bound on the share of lists of a length whose largest token the model names last, from its tables alone."""
    if length < 2:
        raise ValueError("a list has two tokens at least.")
    n, last = tables.vocab, length - 1
    lead, lag = _leads(tables.direct), _leads(tables.values)
    below = lag if length == 2 else lag.cummin(0).values  # what other tokens than the largest cost it: up to the second largest
    score, worst = tables.scores, tables.scores.cummax(1).values  # (query, second): the most that any token up to it scores
    sure, right = torch.ones(n, n, dtype=torch.bool), 0
    query, second = torch.arange(n)[:, None], torch.arange(n)[None]
    for largest in range(n):
        gap = [(torch.exp(s - score[:, largest : largest + 1])) for s in (score, worst)]
        itself = torch.exp(score.diagonal() - score[:, largest])[:, None]
        others = torch.where(
            query == largest, gap[0] + (length - 2) * gap[1],
            torch.where(query == second, itself + (length - 2) * gap[1], itself + gap[0] + max(length - 3, 0) * gap[1]),
        )  # fmt: skip
        attention = 1 / (1 + others)  # at least so much goes to the largest token
        full = lead[:, largest][:, None] + lag[largest, largest]
        least = lead[:, largest][:, None] + attention * lag[largest, largest] + (1 - attention) * below[:, largest][None]
        held = torch.minimum(full.expand_as(least), least) > ROUNDING
        count = _lists(query, second, largest, last)
        right += int((held & (count > 0)).long().mul(count).sum())
        alone = bool(full[largest] > ROUNDING)
        right += alone
        sure[:, largest] = (held | (count == 0)).all(1) & (alone | (torch.arange(n) != largest))
    sure &= query <= second
    work = 3 * n * n * tables.width + (n**2 if length == 2 else n**3 // 3) * 8
    forward = length * 3 * tables.width**2 + tables.width**2 + tables.width * n
    return Bound(right / n**length, length, sure, work, n**length * forward)


def accuracy(model: Model | Tables, length: int = 2) -> float:
    """The share of all lists of a length whose largest token is named last, by trying every one of them."""
    vocab = model.vocab if isinstance(model, Tables) else model.weights["embed.W_E"].shape[0]
    right = 0
    for lists in progress(every_list(vocab, length), -(-(vocab**length) // CHUNK), "lists"):
        said = model.logits(lists) if isinstance(model, Tables) else model.run(lists).logits[:, -1]
        right += int((said.argmax(-1).cpu() == lists.max(1).values).sum())
    return right / vocab**length


def every_list(vocab: int, length: int) -> Iterator[Int[Tensor, "list pos"]]:
    """All lists of a length, some at a time."""
    for first in range(0, vocab**length, CHUNK):
        number = torch.arange(first, min(first + CHUNK, vocab**length))
        yield torch.stack([number // vocab**i % vocab for i in reversed(range(length))], 1)


def _leads(table: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    """By how much each entry exceeds the largest other entry of its row."""
    top = table.topk(2, 1)
    other = torch.where(torch.arange(table.shape[1])[None] == top.indices[:, :1], top.values[:, 1:], top.values[:, :1])
    return table - other


def _lists(query: Tensor, second: Tensor, largest: int, first: int) -> Int[Tensor, "query second"]:
    """How many lists have this last, largest and second largest token; `first` is how many tokens come before the last."""
    with_one = (second + 2) ** first - (second + 1) ** first
    with_both = (second + 2) ** first - 2 * (second + 1) ** first + second**first
    found = torch.where((query == largest) | (query == second), with_one, with_both)
    return torch.where((second < largest) & ((query == largest) | (query <= second)), found, 0)


def _constant(head: Head) -> Float[Tensor, " vocab"]:
    """What the output's bias says, whatever the list."""
    w = head.model.weights
    return w[f"{head.path}.b_O"].cpu().double() @ w["logits.W_U"].cpu().double()
