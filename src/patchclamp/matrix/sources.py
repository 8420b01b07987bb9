"""Sources: vectors as they stand in the residual stream, which circuits start from.

Tokens (what the embedding puts into the stream), positions (where a model learns a vector for each), neurons (what each
writes), a stream read from a run, and any of these as an earlier head passes them on. How tokens and positions enter is found
by asking: the stream at the first block, on a few random tokens, is taken apart into a multiple of the embedding and one
vector a position. Where that does not hold, tokens are asked for one by one, if each enters in a way of its own (a norm of
the embedding, as in bloom); if places matter as well, as in BERT, it is refused.

With a norm before a head, a row is divided by its own length, as if nothing else stood in the stream. For tokens at the first
block of a model without learned positions that is what the model does; further up it is a convention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.matrix.factored import BLOCK
from patchclamp.matrix.head import Head, after, carried, height, norm_before
from patchclamp.model.model import Model
from patchclamp.model.norms import normed


@dataclass(frozen=True, eq=False)
class Source:
    """Rows of the stream, each with a word; `right` where they are known as a product only."""

    model: Model
    left: Float[Tensor, "row inner"]
    axis: str
    words: Sequence[str]
    right: Float[Tensor, "inner d_model"] | None = None
    layer: int = 0
    """At the input of which block they stand."""
    biased: bool = True
    """Whether the biases of queries, keys and values come with these rows: with tokens they do, with positions not."""
    passed: tuple[str, ...] = field(default=())
    """The heads it came through."""

    def __len__(self) -> int:
        return self.left.shape[0]

    def rows(self, chosen: slice | Tensor | Sequence[int]) -> Float[Tensor, "some d_model"]:
        """Some of the rows, multiplied out."""
        some = self.left[chosen if isinstance(chosen, (slice, Tensor)) else list(chosen)].float()
        return some if self.right is None else some @ self.right

    def read(self, head: Head, letter: str) -> Float[Tensor, "row d_head"]:
        """What a head makes of each row as its query, key or value: `letter` is `Q`, `K` or `V`."""
        if head.layer < self.layer:
            raise ShapeMismatch(f"{head.name} comes before block {self.layer}, where these rows enter the stream.")
        factor = carried(self.model, self.layer, head.layer, f"the way to head {head.name}")
        weight = head._raw("W", letter)
        made = [self._unit(head, rows * factor) @ weight for rows in self._some()]
        return torch.cat(made) + (head._raw("b", letter) if self.biased else 0.0)

    def through(self, site: str | Site) -> Source:
        """These rows as a head that looks at them writes them: `W_V W_O` of each. An induction head's keys come this way."""
        head = Head.of(self.model, site)
        left = self.read(head, "V") - (0.0 if not self.biased else head.bias("V"))
        right = head.output * after(head, f"what {head.name} writes")
        return replace(self, left=left, right=right, layer=head.layer + 1, biased=False, passed=(*self.passed, head.name))

    def _some(self) -> Iterator[Tensor]:
        step = max(BLOCK // (self.left if self.right is None else self.right).shape[1], 1)
        for first in range(0, len(self), step):
            yield self.rows(slice(first, first + step))

    def _unit(self, head: Head, rows: Float[Tensor, "some d_model"]) -> Float[Tensor, "some d_model"]:
        """Rows as the norm before a head hands them on."""
        if head.norm is None:
            return rows
        module = self.model.hf.get_submodule(norm_before(head.block, head.write))
        with torch.no_grad():
            made = normed(module, rows.to(self.model.dtype)[None])[0].float()
        return made if self.biased else made - head.norm.bias


def tokens(model: Model, pos: int | None = None) -> Source:
    """Every token of the vocabulary as the embedding puts it into the stream; with `pos`, at that position.

    >>> from patchclamp.matrix.sources import tokens
    >>> len(tokens(model)), tokens(model).words[model.token(" Mary")]
    (1097, ' Mary')
    """
    embedding = model.weights["embed.W_E"]
    words = model.run_reader.vocabulary(len(embedding))
    if height(model) and _alone(model):
        return Source(model, _each(model, f"{model.anatomy.main.blocks[0].path}.in"), "token", words)
    factor, places = _entry(model, 1 if pos is None else pos + 1)
    rows = embedding.float() * factor
    return Source(model, rows if pos is None else rows + places[pos], "token", words)


def positions(model: Model, count: int) -> Source:
    """The vectors that a model adds for each of the first `count` positions; refused where it learns none."""
    _, places = _entry(model, count)
    if float(places.norm()) < 1e-3 * float(model.weights["embed.W_E"].float().norm(dim=1).mean()):
        raise Unserved(f"{model.name} adds no vector for positions (they are rotary, or relative, or there are none).")
    return Source(model, places, "pos", [str(i) for i in range(count)], biased=False)


def neurons(model: Model, site: str | Site) -> Source:
    """What each neuron of a layer writes: rows of `blocks.0.mlp.W_out`, for what they do to later heads and to the logits."""
    rows = model.weights[site].float()
    path = Site.parse(site)
    block = model.anatomy.block(path.path)
    write = block.write(str(path.parts[-2]))
    if str(path.parts[-1]) != "W_out" or write is None or not write.linear or write.norms:
        raise Unserved(f"{site}: rows that neurons write are those of a W_out that goes straight into the stream.")
    for factor in write.factors:
        rows = rows * factor
    layer = model.anatomy.main.blocks.index(block)
    return Source(model, rows, "neuron", [str(i) for i in range(len(rows))], layer=layer + 1, biased=False)


def effective(model: Model, site: str | Site = "blocks.0.out") -> Source:
    """What the first blocks make of each token alone, without any context: the embedding that later layers meet.

    Models whose first feed-forward layer undoes the embedding copy from here (Wang et al. 2022 read copying heads this way).
    """
    path = Site.parse(site)
    if path.layer is None or path.parts[-1] != "out" or len(path.parts) != 3:
        raise Unserved(f"an effective embedding is the output of a block, blocks.0.out; not {site}.")
    rows = _each(model, path)
    return Source(model, rows, "token", model.run_reader.vocabulary(len(rows)), layer=path.layer + 1)


def stream(model: Model, rows: Float[Tensor, "row d_model"], layer: int = 0, words: Sequence[str] = ()) -> Source:
    """Any vectors at the input of a block: `run["blocks.1.in"][0]` with `layer=1`."""
    return Source(model, rows.float(), "row", words or [str(i) for i in range(len(rows))], layer=layer)


def _each(model: Model, site: str | Site) -> Float[Tensor, "vocab d_model"]:
    """What stands at a place of the stream where a token is all there is."""
    size, made = model.weights["embed.W_E"].shape[0], []
    starts = range(0, size, 1024)
    for first in progress(starts, len(starts), "tokens"):
        ids = torch.arange(first, min(first + 1024, size))[:, None]
        made.append(model.run(ids, site, logits=False)[site][:, 0].float())
    return torch.cat(made)


def _alone(model: Model) -> bool:
    """Whether tokens enter the first block through more than a factor, but each in a way of its own: an embedding that is
    normed."""
    first, ids = f"{model.anatomy.main.blocks[0].path}.in", ordinary(model, 2, 4)
    one, other = (model.run(x, first, logits=False)[first].float() for x in (ids, ids.flip(1)))
    if (one - other.flip(1)).norm() > _slack(model) * one.norm():
        return False  # the place matters
    embedded = model.weights["embed.W_E"][ids.to(model.device)].float()
    if embedded.shape != one.shape:
        return True
    return bool((one - _slope(embedded, one) * embedded).norm() > _slack(model) * one.norm())


def _slope(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / (one * one).sum())


def _slack(model: Model) -> float:
    return 1e-3 if model.dtype == torch.float32 else 3e-2


def _entry(model: Model, count: int) -> tuple[float, Float[Tensor, "pos d_model"]]:
    """The factor between the embedding and the stream, and the vector added at each of the first positions."""
    if not height(model):
        return 1.0, torch.zeros(count, model.weights["embed.W_E"].shape[1])
    first = f"{model.anatomy.main.blocks[0].path}.in"
    ids = ordinary(model, 4, max(count, 2))
    run = model.run(ids, first, logits=False)
    embedded, seen = model.weights["embed.W_E"][ids.to(model.device)].float(), run[first].float()
    one, other = embedded[1:] - embedded[:1], seen[1:] - seen[:1]
    if one.shape != other.shape:
        raise Unserved(f"{model.name}: what enters the first block is not of the embedding's width.")
    factor = _slope(one, other)
    if (other - factor * one).norm() > _slack(model) * other.norm():
        raise Unserved(f"{model.name}: the embedding reaches the first block through more than a factor and a vector for "
                       "each position (a norm?); start from sources.stream(model, rows) instead.")  # fmt: skip
    return factor, (seen - factor * embedded).mean(0)[:count]


def ordinary(model: Model, batch: int, count: int) -> Tensor:
    """Random tokens, clear of the special ones."""
    size = model.weights["embed.W_E"].shape[0]
    config = getattr(model.hf, "config", None)
    special = {v for n, v in vars(config).items() if n.endswith("token_id") and isinstance(v, int)} if config else set()
    usable = torch.tensor([i for i in range(size) if i not in special] or list(range(size)))
    return usable[torch.randint(len(usable), (batch, count), generator=torch.Generator().manual_seed(0))]
