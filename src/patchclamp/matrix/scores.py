"""Scores of heads and of pairs of heads, from the weights alone, each beside what random matrices would score.

`copying` asks whether attending to a token makes that token likelier: the eigenvalues of the OV circuit W_E W_V W_O W_U are
mostly positive in a head that copies, and sum(real part) / sum(magnitude) is near 1 (Elhage et al. 2021). `composition` asks
how much of what one head writes another reads: the norm of the product of their matrices, over the product of their norms.
Both come with heads of the same singular values turned at random, which is stricter than random numbers: only the directions
differ from the real head's.

A score says that a path is open, not that the model uses it. Positive eigenvalues may share one direction, so that all tokens
raise all of some few; norms, rotation and feed-forward layers in between are not in the product.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.matrix.circuit import reading
from patchclamp.matrix.factored import orthogonal
from patchclamp.matrix.head import Head, after, carried
from patchclamp.matrix.sources import Source, tokens
from patchclamp.model.model import Model

INTO = {"q": "queries", "k": "keys", "v": "values"}


def copying(model: Model, source: Source | None = None, draws: int = 20, seed: int = 0) -> Grid:
    """Of each head, how far the eigenvalues of its full OV circuit are positive: Grid(layer, head), from -1 to 1.

    `details` hold, head by head, the mean and the spread of the score over random heads with the same singular values, and
    how many spreads the head lies above them. `source` may be `sources.effective(model)`, where the first block rewrites the
    embedding.

    >>> from patchclamp.matrix.scores import copying
    >>> grid = copying(model, draws=5)
    >>> grid.shape, bool((grid.values.abs() <= 1).all()), list(grid.details)
    ({'layer': 4, 'head': 8}, True, ['random', 'spread', 'above'])
    """
    heads, source = Head.all(model), source or tokens(model)
    heads = [h for h in heads if h.layer >= source.layer]
    if not heads:
        raise Unserved(f"no head comes after block {source.layer - 1}, where this source enters.")
    generator = torch.Generator().manual_seed(seed)
    rank = max(h.output.shape[0] for h in heads)
    turns = [tuple(orthogonal(model.width, rank, generator).double() for _ in range(2)) for _ in range(draws)]
    layers = {layer: [h for h in heads if h.layer == layer] for layer in dict.fromkeys(h.layer for h in heads)}
    found: dict[tuple[int, int], list[float]] = {}
    for layer, here in progress(layers.items(), len(layers), "copying"):
        table = _table(here[0], source)
        width = here[0].output.shape[0]
        turned = [right[:, :width].T @ table @ left[:, :width] for left, right in turns]
        found |= {(layer, head.number): _copies(head, table, turned) for head in here}
    made, labels = _laid_out(found)
    score, random, spread = made.unbind(-1)
    details = {"random": random, "spread": spread, "above": (score - random) / spread.clamp(min=1e-6)}
    return Grid(score, ("layer", "head"), labels, "share of eigenvalues", "Copying: how positive the OV circuit is",
                details=details, note="Beside it: random heads with the same singular values.")  # fmt: skip


def _table(head: Head, source: Source) -> Float[Tensor, "d_model d_model"]:
    """From what a head's layer writes, through the vocabulary, to what it reads."""
    ending = reading(head.model, "logits.W_U", head.layer + 1) * _column(after(head, f"what {head.name} writes"))
    return (ending @ _read(head, source)).cpu().double()


def _copies(head: Head, table: Tensor, turned: list[Tensor]) -> list[float]:
    """The score, and mean and spread of it over random heads."""
    left, right = head._raw("W", "V").cpu().double(), head.output.cpu().double()
    values = _singular(left, right)
    random = torch.tensor([_positive(small * values) for small in turned])
    return [_positive(right @ table @ left), float(random.mean()), float(random.std(correction=min(1, len(random) - 1)))]


def _read(head: Head, source: Source) -> Tensor:
    """Rows as the head's norm hands them on: (row, d_model)."""
    factor = carried(head.model, source.layer, head.layer, f"the way to head {head.name}")
    linear = [
        source._unit(head, rows * factor) - (head.norm.bias if head.norm and source.biased else 0.0) for rows in source._some()
    ]
    return torch.cat(linear)


def _positive(small: Float[Tensor, "d_head d_head"]) -> float:
    found = torch.linalg.eigvals(small)
    return float(found.real.sum() / found.abs().sum().clamp(min=1e-30))


def composition(model: Model, into: str = "k", draws: int = 20, seed: int = 0) -> Grid:
    """How much of what each head writes is read by each later head as `into`: Grid(reader, writer), less the random score.

    `into` is "q", "k" or "v", the receiver's input. The score is |W_OV M| / (|W_OV| |M|), Frobenius norms, with M the matrix
    through which the reader looks: W_Q W_K^T from its query or its key side, or W_V W_O. `details`: the `score` itself, the
    mean and the spread of `random` pairs with the same singular values, and how many spreads a pair lies `above` them. A pair
    that cannot compose is not a number. Rotation and norms of queries are left out.

    >>> from patchclamp.matrix.scores import composition
    >>> composition(model, "k").shape
    {'reader': 24, 'writer': 24}
    """
    if into not in INTO:
        raise ValueError(f'into is "q", "k" or "v", not {into!r}.')
    heads = Head.all(model)
    lowest, highest = min(h.layer for h in heads), max(h.layer for h in heads)
    writing, listening = [h for h in heads if h.layer < highest], [h for h in heads if h.layer > lowest]
    if not writing:
        raise Unserved(f"{model.name} has one layer of heads, so none can read what another writes.")
    writers, readers = [_written(h) for h in writing], [_looks(h, into) for h in listening]
    if len({b.shape for _, b in writers} | {a.T.shape for a, _ in readers}) > 1:
        raise Unserved(f"{model.name} has heads of different width; their pairs are compared one by one with Factored.norm().")
    score = _products(writing, listening, writers, readers).T
    tops, bottoms = (torch.stack([_singular(a, b) for a, b in side]) for side in (writers, readers))
    drawn = torch.where(score.isnan().T, torch.nan, _random(tops, bottoms, model.width, draws, seed))
    mean, spread = drawn.mean(0).T, drawn.std(0).T
    cells = [c.float() for c in (score - mean, score, mean, spread, (score - mean) / spread.clamp(min=1e-9))]
    return Grid(cells[0], ("reader", "writer"), {"reader": [h.name for h in listening], "writer": [h.name for h in writing]},
                "score above random", f"{into.upper()}-composition: what a head writes, as another's {INTO[into]}",
                "Random pairs have the same singular values.",
                details=dict(zip(("score", "random", "spread", "above"), cells[1:])))  # fmt: skip


def _written(head: Head) -> tuple[Tensor, Tensor]:
    return head.weight("V").cpu().double(), head.output.cpu().double()


def _looks(head: Head, into: str) -> tuple[Tensor, Tensor]:
    """The matrix through which a head reads the stream, as two factors."""
    if into == "v":
        return _written(head)
    one, other = ("Q", "K") if into == "q" else ("K", "Q")
    return head.weight(one).cpu().double(), head.weight(other).T.cpu().double()


def _products(writing: list[Head], listening: list[Head], writers: list, readers: list) -> Float[Tensor, "writer reader"]:
    """|A B| / (|A| |B|) for every pair of layers, through matrices no wider than a head; not a number where none can read."""
    before = torch.stack([torch.linalg.qr(a, mode="r")[1] for a, _ in writers])
    output = torch.stack([b for _, b in writers])
    looks = torch.stack([a @ torch.linalg.qr(b.T, mode="r")[1].T for a, b in readers])
    found = torch.full((len(writing), len(listening)), torch.nan, dtype=torch.float64)
    low, high = _by_layer(writing), _by_layer(listening)
    pairs = [(one, other) for one in low for other in high if one < other]
    for one, other in progress(pairs, len(pairs), "composition"):
        w, r = low[one], high[other]
        way = after(writing[w[0]], "it") * carried(writing[0].model, one + 1, other, "it")
        written = before[w] @ (output[w] * (way.cpu().double() if isinstance(way, Tensor) else way))
        steps = torch.einsum("wid,rdj->wrij", written, looks[r])
        sizes = written.flatten(1).norm(dim=1)[:, None] * looks[r].flatten(1).norm(dim=1)[None]
        found[torch.tensor(w)[:, None], torch.tensor(r)[None]] = steps.flatten(2).norm(dim=2) / sizes.clamp(min=1e-30)
    return found


def _by_layer(heads: list[Head]) -> dict[int, list[int]]:
    """The places in the list of each layer's heads."""
    return {layer: [i for i, h in enumerate(heads) if h.layer == layer] for layer in dict.fromkeys(h.layer for h in heads)}


def _random(
    one: Float[Tensor, "writer rank"], other: Float[Tensor, "reader rank"], width: int, draws: int, seed: int
) -> Tensor:
    """The score of pairs with these singular values, their directions drawn at random: (draw, writer, reader)."""
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        overlap = (
            (orthogonal(width, one.shape[1], generator).T @ orthogonal(width, other.shape[1], generator)).double().square()
        )
        found.append(torch.einsum("wi,ij,rj->wr", one.square(), overlap, other.square()).sqrt())
    return torch.stack(found) / (one.norm(dim=1)[:, None] * other.norm(dim=1)[None]).clamp(min=1e-30)


def _singular(left: Tensor, right: Tensor) -> Float[Tensor, " rank"]:
    one, other = torch.linalg.qr(left, mode="r")[1], torch.linalg.qr(right.T, mode="r")[1]
    return torch.linalg.svdvals(one @ other.T)


def _column(factor: float | Tensor) -> float | Tensor:
    return factor[:, None] if isinstance(factor, Tensor) and factor.ndim else factor


def _laid_out(cells: dict[tuple[int, int], list[float]]) -> tuple[Tensor, dict[str, list[str]]]:
    layers, numbers = sorted({layer for layer, _ in cells}), max(n for _, n in cells) + 1
    made = torch.full((len(layers), numbers, 3), torch.nan)
    for (layer, number), values in cells.items():
        made[layers.index(layer), number] = torch.tensor(values)
    return made, {"layer": [str(layer) for layer in layers]}
