"""Path expansion: the logits as a sum over every way from the embedding to them, patterns held.

A model of attention layers alone is, once its patterns are known, a sum of products: the direct path W_E W_U, one term for
each head, one for each pair of heads in different layers, and so on (Elhage et al. 2021, "path expansion trick"). The terms
add up to the logits. Norms are held at the scale they had in this run; where there are feed-forward layers, paths begin at
their outputs as well, and end in nothing but the logits.

The number of paths grows as (heads + 1) to the layers. `order` stops at that many heads in a row; what is longer comes out as
one term, so that the sum stays exact. What the expansion does not say is why the patterns are what they are: that is the QK
circuits'.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric, called
from patchclamp.core.progress import progress
from patchclamp.matrix.frozen import Frozen, Stream
from patchclamp.matrix.head import Head
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model

MOST = 200_000
"""Paths that are followed without asking for an order."""
ARROW = " → "
LONGER = "longer paths"
ENDING = "bias of the logits"


def expand(model: Model, prompt: Prompt, metric: Metric, order: int | None = None) -> Grid:
    """The metric (a logit, or a difference of two) as a sum over paths: Grid(path). Values add up to `baseline["metric"]`.

    >>> from patchclamp.matrix.paths import expand, group, order
    >>> grid = expand(model, clean, pc.logit_diff(" Mary", " John"), order=1)
    >>> group(grid, order).words("path")
    ['no head', '1 head', 'longer paths']
    >>> bool(abs(grid.values.sum() - grid.baseline["metric"]) < 1e-3)
    True
    """
    frozen = Frozen.of(model, prompt)
    bound = model.metric(metric, frozen.run)
    direction, constant = _direction(frozen, bound)
    rows = list(range(len(frozen.run.last)))
    names, cells = [], []
    for name, stream in progress(list_paths(frozen, order), count(frozen, order), "paths"):
        names.append(name)
        cells.append((frozen.ended(stream)[rows, frozen.run.last] * direction).sum(-1))
    if float(constant.abs().max()) > 0:
        names.append(ENDING)
        cells.append(constant)
    each, value = torch.stack(cells, 1).cpu(), bound(frozen.run.logits.float())
    return Grid(each.mean(0), ("path",), {"path": names}, bound.unit, f"Paths to the {bound.name}", each=each,
                baseline={"metric": float(value.mean())})  # fmt: skip


def list_paths(frozen: Frozen, order: int | None = None) -> Iterator[tuple[str, Stream]]:
    """Every path, as the name of its source and heads and what it is of the last stream. They add up to the last stream.

    >>> from patchclamp.matrix.frozen import Frozen
    >>> from patchclamp.matrix.paths import list_paths
    >>> frozen = Frozen.of(model, clean)
    >>> total = sum(stream for _, stream in list_paths(frozen, order=1))
    >>> bool(torch.allclose(total, model.run(clean, keep="blocks.3.out")["blocks.3.out"], atol=1e-3))
    True
    """
    if order is None and count(frozen, None) > MOST:
        raise Unserved(f"there are {count(frozen, None):,} paths; ask for those through at most two heads with order=2.")
    depth = len(frozen.passing) if order is None else order
    total: Tensor | float = 0.0
    for name, (layer, stream) in frozen.sources.items():
        for path, ended in _grown(frozen, name, stream, layer, depth):
            total = total + ended
            yield path, ended
    if order is not None and count(frozen, order) < count(frozen, None):
        last = frozen.model.anatomy.main.blocks[-1]
        yield LONGER, frozen.run[f"{last.path}.out"].float() - total


def count(frozen: Frozen, order: int | None = None) -> int:
    """How many paths there are, with at most `order` heads."""
    found = 0
    for layer, _ in frozen.sources.values():
        ways = [1]  # by number of heads
        for i in range(layer, len(frozen.passing)):
            heads = frozen.attention[i].W_O.shape[0] if i in frozen.attention else 0
            ways = [a + heads * b for a, b in zip([*ways, 0], [0, *ways])]
        found += sum(ways if order is None else ways[: order + 1])
    return found


def _grown(frozen: Frozen, name: str, stream: Stream, layer: int, depth: int) -> Iterator[tuple[str, Stream]]:
    """The path that goes straight on from here, and those that go through a head further up."""
    branches = []
    for i in range(layer, len(frozen.passing)):
        if depth and i in frozen.attention:
            branches.append((i, frozen.branches(i, stream)))
        stream = frozen.through(i, stream)
    yield name, stream
    for i, written in branches:
        for head in range(written.shape[1]):
            yield from _grown(frozen, f"{name}{ARROW}{i}.{head}", written[:, head], i + 1, depth - 1)


def group(grid: Grid, by: Callable[[str], str]) -> Grid:
    """Paths summed by what a function says of their names: `order`, `source`, `last`, or a function of your own.

    >>> from patchclamp.matrix.paths import last
    >>> last("embedding → 0.2 → 1.3"), last("embedding")
    ('1.3', 'straight on')
    """
    kinds = list(dict.fromkeys(by(name) for name in grid.words("path")))
    kinds = [kind for _, kind in sorted((_place(kind, i), kind) for i, kind in enumerate(kinds))]
    member = torch.tensor([[by(name) == k for name in grid.words("path")] for k in kinds]).to(grid.values)
    each = None if grid.each is None else grid.each @ member.T
    return Grid(member @ grid.values, ("path",), {"path": kinds}, grid.unit, f"{grid.title}, by {by.__name__}", each=each,
                baseline=grid.baseline)  # fmt: skip


def order(path: str) -> str:
    """Through how many heads a path goes."""
    n = path.count(ARROW)
    return path if path in (LONGER, ENDING) else "no head" if not n else f"{n} head{'s' * (n > 1)}"


def source(path: str) -> str:
    """What a path begins with."""
    return path.partition(ARROW)[0]


def last(path: str) -> str:
    """The head that writes to the logits."""
    return path if path in (LONGER, ENDING) else path.rpartition(ARROW)[2] if ARROW in path else "straight on"


def virtual(model: Model, prompt: Prompt, *heads: str) -> Grid:
    """The attention pattern of a virtual head: the product of its heads' patterns, in a run. Grid(query, key) of one prompt.

    >>> from patchclamp.matrix.paths import virtual
    >>> pattern = virtual(model, clean, "blocks.1.attn.z[head=2]", "blocks.3.attn.z[head=0]")
    >>> bool(torch.allclose(pattern.values.sum(-1), torch.ones(15), atol=1e-4))
    True
    """
    chain = Head.chain(model, heads)
    run = model.run(prompt, list(dict.fromkeys(f"{h.path}.pattern" for h in chain)))
    if run.tokens.shape[0] != 1:
        raise Unserved("a virtual head's pattern is shown for one prompt at a time.")
    made = run[f"{chain[0].path}.pattern"][0, chain[0].number].float()
    for head in chain[1:]:
        made = run[f"{head.path}.pattern"][0, head.number].float() @ made
    words = [f"{i} {w.strip()}" for i, w in enumerate(run.words[0])]
    title = f"Virtual head {', '.join(h.name for h in chain)}"
    return Grid(made.cpu(), ("query", "key"), {"query": words, "key": words}, "attention", title, scale="sequential")


def _place(kind: str, seen: int) -> tuple[int, int, int]:
    """Where a group stands: heads by layer and number after what is no head, what has no path of its own at the end."""
    head = re.fullmatch(r"(\d+)\.(\d+)", kind)
    if kind in (LONGER, ENDING):
        return 2, seen, 0
    return (1, int(head[1]), int(head[2])) if head else (0, seen, 0)


def _direction(frozen: Frozen, metric: Metric) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
    """How the metric reads what the unembedding reads, and what it is of nothing."""
    if called(metric)[0] not in ("logit", "logit difference"):
        raise Unserved(
            f"paths add up to a logit or a difference of two, not to a {called(metric)[0]}; use pc.logit, pc.logit_diff."
        )
    W_U, rows = frozen.model.weights["logits.W_U"].float(), torch.arange(len(frozen.run.last))
    gain, bias = (
        torch.as_tensor(t, device=W_U.device).expand_as(frozen.run.logits)[rows, frozen.run.last]
        for t in (frozen.gain, frozen.constant)
    )
    total, constant = torch.zeros_like(W_U[:, 0]).expand(len(rows), -1), torch.zeros_like(gain[:, 0])
    for sign, words in zip((1.0, -1.0), metric.tokens):
        said = [words] if isinstance(words, (int, str)) else list(words)
        ids = torch.tensor([int(said[i % len(said)]) for i in range(len(rows))])
        total = total + sign * (W_U[:, ids] * gain[rows, ids]).T
        constant = constant + sign * bias[rows, ids]
    return total, constant
