"""Two worlds small enough to be learned in seconds, of which everything is known.

`bigrams` is a table of which token follows which, for a model without layers: all it can be is that table (Elhage et al.
2021). `skip_trigrams` are sentences in which an early word and the last one decide what comes next, as in keep ... in mind,
keep ... at bay; one head that serves both cannot tell their endings apart by more than the direct path lets it. That is what
the paper calls bugs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchclamp.core.progress import progress
from patchclamp.model.load import load
from patchclamp.model.model import Model
from patchclamp.model.specimen import Specimen, SpecimenConfig

KEEP, HOLD, IN, AT, MIND, BAY, FAST, PLACE = 4, 5, 6, 7, 8, 9, 10, 11
"""Four fillers are below them; above are four endings that no rule names."""
RULES = {(KEEP, IN): MIND, (KEEP, AT): BAY, (HOLD, IN): PLACE, (HOLD, AT): FAST}
"""(early word, last word) to what comes next; without an early word any of the eight endings does."""
VOCAB, ENDINGS = 16, range(8, 16)

Batch = tuple[Int[Tensor, "batch pos"], Int[Tensor, " batch"]]


def network(seed: int = 0, **options) -> Specimen:
    """A specimen before training: no norm, no positions, no biases."""
    torch.manual_seed(seed)
    plain = {"vocab": VOCAB, "d_model": 16, "d_head": 8, "d_mlp": 0, "norm": "none", "positional": "none", "bias": False}
    return Specimen(SpecimenConfig(**{**plain, "initializer_range": 0.2, **options})).eval()


def table(seed: int = 0) -> Float[Tensor, "vocab vocab"]:
    """How often each token follows each."""
    return torch.softmax(3 * torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed)), 1)


def bigrams(seed: int = 0, steps: int = 300) -> Model:
    """A model without layers that has seen tokens and their successors, drawn from `table(seed)`.

    >>> from patchclamp.matrix.worlds import bigrams
    >>> bigrams(steps=1).run([[3, 4]]).logits.shape
    torch.Size([1, 2, 16])
    """
    chances = table(seed)

    def batch(draw: torch.Generator) -> Batch:
        x = torch.randint(VOCAB, (256, 1), generator=draw)
        return x, torch.multinomial(chances[x[:, 0]], 1, generator=draw)[:, 0]

    return _taught(network(seed, layers=0), batch, steps, 3e-2, seed)


def sentences(n: int, draw: torch.Generator) -> Batch:
    """Six tokens each, an early word or none among the first five, `in` or `at` the last; and what comes next."""
    x = torch.randint(0, KEEP, (n, 6), generator=draw)
    which, place = torch.randint(0, 3, (n,), generator=draw), torch.randint(0, 5, (n,), generator=draw)
    for i, word in enumerate((KEEP, HOLD)):
        x[which == i, place[which == i]] = word
    x[:, -1] = torch.where(torch.rand(n, generator=draw) < 0.5, IN, AT)
    y = torch.randint(ENDINGS.start, ENDINGS.stop, (n,), generator=draw)
    for (word, query), ending in RULES.items():
        y[(x[:, -1] == query) & (x == word).any(1)] = ending
    return x, y


def skip_trigrams(seed: int = 0, steps: int = 600) -> Model:
    """A model of one head that has learned the rules from sentences."""
    return _taught(network(seed, layers=1, heads=1), lambda draw: sentences(128, draw), steps, 1e-2, seed)


def ending(model: Model, word: int, query: int) -> Float[Tensor, " vocab"]:
    """How likely the model finds each token after `word`, fillers and `query`."""
    return model.run(torch.tensor([[0, word, 1, 2, 3, query]])).logits[0, -1].softmax(-1)


def _taught(module: Specimen, batch: Callable[[torch.Generator], Batch], steps: int, rate: float, seed: int) -> Model:
    """Adam, its rate falling to nothing."""
    optimizer = torch.optim.Adam(module.train().parameters(), lr=rate)
    draw = torch.Generator().manual_seed(seed)
    for step in progress(range(steps), steps, "learning"):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        x, y = batch(draw)
        loss = F.cross_entropy(module(x).logits[:, -1], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return load(module.eval())
