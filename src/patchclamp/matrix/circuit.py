"""The QK and OV circuits of heads: where any token would look, and what it would then say.

    qk   source -> W_Q . W_K -> source      the score of a key under a query
    ov   source -> W_V W_O [-> W_V W_O ...] -> W_U      what is added to the logits of an attended token

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". Both are kept as factors and shown in parts. Several
heads in a row make a virtual head (V-composition); a source `through` an earlier head makes a composed QK circuit. Nothing
here knows how often a token occurs, or what else stands in the stream: it is what the weights would do, not what the model
does.

Without norms the numbers are exact: scores, and logits at full attention. With a norm before the head each row is divided as if
it stood alone in the stream; norms further on contribute their weights, and what they divide by is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.matrix.factored import Factored
from patchclamp.matrix.head import Head, after, carried, height, norm_before, single
from patchclamp.matrix.sources import Source, ordinary, tokens
from patchclamp.matrix.turn import turn
from patchclamp.model.model import Model

Word = str | int
SHOWN = 12
"""Rows and columns of a picture, if nothing else is asked."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """A factored matrix whose rows and columns have words."""

    factored: Factored
    axes: tuple[str, str]
    words: tuple[Sequence[str], Sequence[str]]
    title: str = ""
    unit: str = ""
    note: str = ""

    def __repr__(self) -> str:
        (rows, columns), (one, other) = self.factored.shape, self.axes
        return f"Circuit({self.title}: {rows} {one} x {columns} {other}, through {self.factored.rank})"

    def grid(self, rows: Iterable[Word] | None = None, columns: Iterable[Word] | None = None) -> Grid:
        """The part of some rows and columns, by word or number; by default those with the largest entries."""
        chosen_rows, chosen_columns = (None if c is None else self._ids(i, c) for i, c in enumerate((rows, columns)))
        part = self.factored[
            slice(None) if chosen_rows is None else chosen_rows, slice(None) if chosen_columns is None else chosen_columns
        ]
        if chosen_rows is None or chosen_columns is None:
            best = part.top(SHOWN if rows is columns else 4 * SHOWN, "magnitude")
            chosen_rows = chosen_rows or list(dict.fromkeys(r for r, _, _ in best))[:SHOWN]
            chosen_columns = chosen_columns or list(dict.fromkeys(c for _, c, _ in best))[:SHOWN]
        labels = {
            a: [self.words[i][j] for j in ids] for i, (a, ids) in enumerate(zip(self.axes, (chosen_rows, chosen_columns)))
        }
        values = self.factored[chosen_rows, chosen_columns].full().cpu()
        return Grid(values, self.axes, labels, self.unit, self.title, self.note)

    def top(self, n: int = 10, by: str = "largest") -> list[tuple[dict[str, str], float]]:
        """The strongest entries of the whole matrix with their words; a block of rows at a time, so it may take a while.

        >>> from patchclamp.matrix.circuit import ov
        >>> len(ov(model, "blocks.3.attn.z[head=2]").top(3))
        3
        """
        found = self.factored.top(n, by)
        return [({self.axes[0]: self.words[0][r], self.axes[1]: self.words[1][c]}, value) for r, c, value in found]

    def row(self, word: Word) -> Grid:
        """One row: what a token looks at, or what it would have said."""
        (i,) = self._ids(0, [word])
        title = f"{self.title}, {self.axes[0]} {self.words[0][i]!r}"
        return Grid(
            self.factored[i, slice(None)].full()[0].cpu(),
            self.axes[1:],
            {self.axes[1]: self.words[1]},
            self.unit,
            title,
            self.note,
        )

    def column(self, word: Word) -> Grid:
        """One column: which tokens look at this one, or would have said it."""
        return self.T.row(word)

    @property
    def T(self) -> Circuit:
        """Rows and columns exchanged."""
        return replace(self, factored=self.factored.T, axes=self.axes[::-1], words=self.words[::-1])

    def show(self) -> None:
        """Draw the rows and columns with the largest entries."""
        self.grid().show()

    def html(self) -> str:
        """The same as one self-contained HTML page."""
        return self.grid().html()

    def _repr_html_(self) -> str:
        return self.grid()._repr_html_()

    def __rich__(self) -> Any:
        return self.grid().__rich__()

    def _ids(self, axis: int, chosen: Iterable[Word]) -> list[int]:
        words, found = self.words[axis], []
        for word in chosen:
            if isinstance(word, str) and word not in words:
                raise WrongAxis(f'the axis "{self.axes[axis]}" has no entry {word!r}.')
            at = words.index(word) if isinstance(word, str) else word
            if not -len(words) <= at < len(words):
                raise WrongAxis(
                    f'the axis "{self.axes[axis]}" has {len(words)} entries, 0 to {len(words) - 1}; {at} is outside.'
                )
            found.append(at % len(words))
        return found


def qk(model: Model, head: str | Site, query: Source | None = None, key: Source | None = None, distance: int = 0) -> Circuit:
    """The score that a head gives each key under each query, the query standing `distance` tokens after the key.

    Sources default to the vocabulary. The distance matters where positions are rotary; where a model learns positions, take
    `sources.positions` for one or both of them, or `tokens(model, pos=7)`. Softmax comes after, so only differences within a
    row matter.

    >>> from patchclamp.matrix.circuit import qk
    >>> qk(model, "blocks.1.attn.z[head=2]", distance=1)
    Circuit(QK circuit of 1.2, 1 token back: 1097 query x 1097 key, through 16)
    """
    found = Head.of(model, head)
    query, key = query or tokens(model), key or tokens(model)
    how = turn(found, distance)
    left = how.queries(query.read(found, "Q")) * how.scale
    right = how.keys(key.read(found, "K"))
    if how.bias:
        left, right = (
            torch.cat([part, torch.full_like(part[:, :1], one)], 1) for part, one in ((left, how.bias), (right, 1.0))
        )
    notes = [_convention(found, query, key)] if found.norm is not None else []
    notes += ["Scores are capped afterwards."] if how.capped else []
    back = f", {distance} token{'s' * (distance > 1)} back" if distance else ""
    return Circuit(
        Factored(left, right.T), (_axis("query", query), _axis("key", key)), (query.words, key.words),
        f"QK circuit of {found.name}{_via(query, 'query')}{_via(key, 'key')}{back}", "score", " ".join(notes),
    )  # fmt: skip


def ov(model: Model, *heads: str | Site, source: Source | None = None, to: str = "logits.W_U") -> Circuit:
    """What a row adds to each logit when it is attended to; through several heads, first to last, that of the virtual head.

    `to` is any matrix that reads the stream: `logits.W_U`, or the neurons of `blocks.3.mlp.W_in`. The bias of values comes with
    the row (attention adds up to one); `b_O` belongs to no head.

    >>> from patchclamp.matrix.circuit import ov
    >>> ov(model, "blocks.1.attn.z[head=2]", "blocks.3.attn.z[head=0]")
    Circuit(OV circuit of 1.2, 3.0: 1097 source x 1097 logit, through 16)
    """
    chain = Head.chain(model, heads)
    source = source or tokens(model)
    made = Factored(source.read(chain[0], "V"), chain[0].output)
    for one, other in zip(chain, chain[1:]):
        made = Factored(made.left, made.right * _way(model, one, other.layer)) @ other.ov
    ending, words = _reader(model, to, chain[-1])
    factored = made @ ending
    normed = chain[0].norm is not None or any(h.write.norms for h in chain)
    note = "Up to the numbers that norms on the way divide by." if normed or model.anatomy.main.norm else ""
    unit = "logits" if to == "logits.W_U" else "pre-activation"
    title = (
        f"OV circuit of {', '.join(h.name for h in chain)}{_via(source, 'source')}{'' if unit == 'logits' else f' into {to}'}"
    )
    return Circuit(
        factored, (_axis("source", source), "logit" if unit == "logits" else "neuron"), (source.words, words), title, unit, note
    )


def direct(model: Model, source: Source | None = None, to: str = "logits.W_U") -> Circuit:
    """What a row says through no head at all: `W_E W_U`, the bigrams of a model without layers. `to` as in `ov`.

    >>> from patchclamp.matrix.circuit import direct
    >>> direct(model).factored.rank
    128
    """
    source = source or tokens(model)
    ending, words = _reader(model, to, None, source.layer)
    unit = "logits" if to == "logits.W_U" else "pre-activation"
    rows = Factored(source.left.float(), source.right) if source.right is not None else None
    factored = rows @ ending if rows is not None else Factored(source.left.float(), ending)
    note = "Up to the number that the last norm divides by." if height(model) and model.anatomy.main.norm else ""
    if not height(model):
        _is_all(model, factored)
    axes = (_axis("source", source), "logit" if unit == "logits" else "neuron")
    return Circuit(factored, axes, (source.words, words), f"Direct path{_via(source, 'source')}", unit, note)


def reading(model: Model, to: str, layer: int) -> Tensor:
    """The matrix through which something reads the stream as it stands at the input of a block, norms folded in."""
    path = Site.parse(to)
    if to == "logits.W_U":
        single(model)
        norm, last = model.anatomy.main.norm if height(model) else "", height(model)
    else:
        block = model.anatomy.block(model.weights.places(path)[0])
        write = block.write(str(path.parts[-2]))
        if write is None or str(path.parts[-1]) not in ("W_in", "W_gate"):
            raise Unserved(f"{to} does not read the stream; logits.W_U, blocks.i.mlp.W_in and W_gate do.")
        norm, last = norm_before(block, write), model.anatomy.main.blocks.index(block)
    weight = model.weights[path].float()
    if norm:
        read = model.weights.norm(norm)
        weight = read.weight[:, None] * weight
        weight = weight - weight.mean(0) if read.centres else weight
    factor = carried(model, layer, last, f"the way to {to}")
    return weight * (factor[:, None] if isinstance(factor, Tensor) else factor)


def _reader(model: Model, to: str, head: Head | None, layer: int = 0) -> tuple[Tensor, Sequence[str]]:
    """What reads the stream behind a head, or from a block on, and words for its columns."""
    start = layer if head is None else head.layer + 1
    inside = to != "logits.W_U" and head is not None and model.anatomy.block(model.weights.places(to)[0]) is head.block
    if inside and head is not None and not head.block.mid_after:
        raise Unserved(f"{to} reads the same stream as {head.name}, not what that writes (a parallel block).")
    weight = reading(model, to, head.layer if inside and head is not None else start)
    factor = 1.0 if head is None or inside else after(head, f"what {head.name} writes")
    weight = weight * (factor[:, None] if isinstance(factor, Tensor) else factor)
    size = weight.shape[1]
    return weight, model.run_reader.vocabulary(size) if to == "logits.W_U" else [str(i) for i in range(size)]


def _way(model: Model, one: Head, layer: int) -> float | Tensor:
    what = f"what {one.name} writes"
    return after(one, what) * carried(model, one.layer + 1, layer, what)


def _is_all(model: Model, table: Factored) -> None:
    """Of a model without blocks nothing could be read but its two ends; that they are all there is to it is seen here."""
    ids = ordinary(model, 8, 1)
    seen = model.run(ids).logits[:, -1].float()
    if (table[ids[:, 0], slice(None)].full().to(seen) - seen).norm() > 1e-3 * seen.norm():
        raise Unserved(f"{model.name} has no stack of blocks that could be read, and is more than W_E W_U.")


def _convention(head: Head, *sources: Source) -> str:
    alone = all(s.axis == "row" or (head.layer == 0 and s.axis == "token" and not s.passed) for s in sources)
    return "" if alone else "Each row is divided by its own length, as if it stood alone in the stream."


def _axis(role: str, source: Source) -> str:
    return role if source.axis == "token" else f"{role} {source.axis}"


def _via(source: Source, role: str) -> str:
    return f", {role} through {' and '.join(source.passed)}" if source.passed else ""
