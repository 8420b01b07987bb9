"""Skip-trigrams: what a head does with three tokens, and the mistakes it cannot help making.

A head that sees `source ... query` and then makes `out` likelier is a skip-trigram, as in keep ... in mind (Elhage et al.
2021). How much it looks is a number of (query, source), the QK circuit; what it then says is a number of (source, out), the
OV circuit. So a head that has keep ... in mind and keep ... at bay has keep ... in bay as well: no number belongs to all
three tokens. Those cross terms are called bugs there.

The strength of a trigram is its OV entry times the share of attention that the source gets from the query against a
bystander, a token of average score. It says what the head adds, not what the model says: the direct path knows (query, out)
and may take a bug back in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.errors import WrongToken
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.matrix.circuit import Circuit, ov, qk
from patchclamp.matrix.factored import Factored
from patchclamp.matrix.sources import Source
from patchclamp.model.model import Model

Word = str | int
Wanted = tuple[Word, Word, Word]
"""Source, query, out."""


@dataclass(frozen=True)
class Trigram:
    """source ... query -> out, and what a head does about it."""

    source: str
    query: str
    out: str
    looks: float
    """The share of attention the source gets, if one bystander of average score stands beside it."""
    says: float
    """What full attention to it would add to the logit, above the average over the vocabulary."""

    @property
    def strength(self) -> float:
        """What it adds to the logit, above the average."""
        return self.looks * self.says

    def __str__(self) -> str:
        return f"{self.source} ...{self.query} ->{self.out}  {self.strength:+.2f} ({self.looks:.0%} of {self.says:+.2f})"


@dataclass(frozen=True, eq=False)
class Trigrams:
    """The two circuits of one head, centred: scores in each row, logits in each row."""

    scores: Circuit
    said: Circuit

    @classmethod
    def of(cls, model: Model, head: str | Site, source: Source | None = None, distance: int = 0) -> Trigrams:
        """Of a head; `distance` matters where positions are rotary."""
        scores, said = qk(model, head, source, source, distance), ov(model, head, source=source)
        average = scores.factored.right.mean(1, keepdim=True)
        one = Factored(scores.factored.left, scores.factored.right - average)
        other = Factored(said.factored.left, said.factored.right - said.factored.right.mean(1, keepdim=True))
        return cls(_with(scores, one), _with(said, other))

    def one(self, source: Word, query: Word, out: Word) -> Trigram:
        """One trigram, by word or number."""
        (s,), (q,), (o,) = self.scores._ids(1, [source]), self.scores._ids(0, [query]), self.said._ids(1, [out])
        looks = float(self.scores.factored[q, s].full().sigmoid())
        return self._named(s, q, o, looks, float(self.said.factored[s, o].full()))

    def strongest(self, n: int = 10, queries: int = 8, outs: int = 8, own: bool = False) -> list[Trigram]:
        """The strongest of a head: for every source the queries that look at it most, and the outs it raises most.

        Three different tokens each; with `own`, also those that repeat a token, which are most of what copying heads do.

        >>> from patchclamp.matrix.trigrams import Trigrams
        >>> len(Trigrams.of(model, "blocks.3.attn.z[head=2]", distance=2).strongest(5))
        5
        """
        looks, by = _best(self.scores.factored.T, queries)
        says, what = _best(self.said.factored, outs)
        strength = looks.sigmoid()[:, :, None] * says[:, None, :]
        source = torch.arange(len(looks), device=strength.device)[:, None, None]
        same = (by[:, :, None] == what[:, None, :]) | (source == what[:, None, :]) | (source == by[:, :, None])
        strength = strength if own else torch.where(same, -torch.inf, strength)
        found = []
        for flat in strength.flatten().topk(min(n, strength.numel())).indices.tolist():
            s, rest = divmod(flat, by.shape[1] * what.shape[1])
            i, j = divmod(rest, what.shape[1])
            if strength[s, i, j] > -torch.inf:
                found.append(self._named(s, int(by[s, i]), int(what[s, j]), float(looks[s, i].sigmoid()), float(says[s, j])))
        return found

    def bugs(self, wanted: Sequence[Wanted]) -> list[Trigram]:
        """The cross terms of trigrams that share a source: each query with the outs of the others, strongest first.

        `wanted` are trigrams as the head should have them, ("keep", " in", " mind"), ("keep", " at", " bay").
        """
        asked = {tuple(w) for w in wanted}
        found = [
            self.one(source, query, other)
            for source, query, _ in wanted
            for again, _, other in wanted
            if again == source and (source, query, other) not in asked
        ]
        if not found:
            raise WrongToken("bugs come from trigrams that share a source and differ in query and out; give two such at least.")
        return sorted(dict.fromkeys(found), key=lambda t: -t.strength)

    def grid(self, source: Word, queries: Sequence[Word], outs: Sequence[Word]) -> Grid:
        """Strengths for one source: Grid(query, out). It is a product of a column and a row, whatever one would like it to
        be."""
        (s,) = self.scores._ids(1, [source])
        q, o = self.scores._ids(0, queries), self.said._ids(1, outs)
        values = (self.scores.factored[q, s].full().sigmoid() @ self.said.factored[s, o].full()).cpu()
        labels = {"query": [self.scores.words[0][i] for i in q], "out": [self.said.words[1][i] for i in o]}
        title = f"{self.scores.words[1][s]!r} ... query -> out, {self.said.title.removeprefix('OV circuit of ')}"
        return Grid(values, ("query", "out"), labels, "logits", title)

    def _named(self, s: int, q: int, o: int, looks: float, says: float) -> Trigram:
        return Trigram(self.scores.words[1][s], self.scores.words[0][q], self.said.words[1][o], looks, says)


def _with(circuit: Circuit, factored: Factored) -> Circuit:
    return Circuit(factored, circuit.axes, circuit.words, circuit.title, circuit.unit, circuit.note)


def _best(factored: Factored, n: int) -> tuple[Float[Tensor, "row best"], Int[Tensor, "row best"]]:
    """The largest entries of every row, and their columns."""
    found = [block.topk(min(n, block.shape[1]), 1) for _, block in factored.blocks()]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
