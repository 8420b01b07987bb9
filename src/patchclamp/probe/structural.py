"""The structural probe: does a linear map of the stream lay sentences out so that distances are steps through their tree?

Hewitt & Manning 2019 ("A structural probe for finding syntax in word representations"): a matrix B is learned such that the
squared length of B (h_i - h_j) is the number of steps from word i to word j. What counts is the order of the distances: for
each word, the Spearman correlation of its predicted and true distances to the others, averaged over words, then sentences of a
length, then lengths.

Three things give a high score without any syntax, and are measured beside it: the order of words (neighbours in a text are
neighbours in its tree), the words themselves (an article is close to *some* noun) and the architecture (attention drawn by lot
mixes neighbours). Comparing words of one class only (`places`: the nouns) takes the second away. A word's distance to itself is
left out here; counted, it lifts every score, those of the controls too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.gather import every
from patchclamp.model.model import Model
from patchclamp.model.untrained import untrained

SOURCES = ("trained", "untrained", "word order")


@dataclass(frozen=True, eq=False)
class Structure:
    """A structural probe.

    >>> found = Structure(torch.eye(3))
    >>> found(torch.tensor([[0.0, 0, 0], [1, 1, 0]]))
    tensor([[0., 2.],
            [2., 0.]])
    """

    projection: Float[Tensor, "d rank"]

    def __call__(self, x: Float[Tensor, "*rows word d"]) -> Float[Tensor, "*rows word word"]:
        """Predicted steps between all words."""
        low = x @ self.projection
        return (low[..., :, None, :] - low[..., None, :, :]).square().sum(-1)


def structure(model: Model, site: str | Site, texts: Sequence[str], places: Sequence[Sequence[int]],
              trees: Sequence[Tensor], *, rank: int = 32, steps: int = 600, folds: int = 2, seed: int = 0) -> Grid:  # fmt: skip
    """Held-out Spearman correlations of the model, of an untrained one and of word order: Grid(source, layer).

    `places` are the tokens to be compared, for each text; `trees` the steps between them. Equal texts are on one side of a
    split.

    >>> from random import Random
    >>> from patchclamp.specimens.town.parse import nested
    >>> texts, places, trees = corpus(Random(0), 40)
    >>> grid = structure(model, "blocks.*.out", texts, places, trees, steps=20)
    >>> grid.axes, grid.words("source")
    (('source', 'layer'), ['trained', 'untrained', 'word order'])
    """
    site = Site.parse(site)
    if len(site.bare().stars) != 1 or site.index:
        raise WrongAxis(f"{site}: a structural probe is asked over layers, at whole places; write blocks.*.out.")
    _check(texts, places, trees)
    weights = _weights(trees)
    order = torch.tensor(list(map(list(dict.fromkeys(texts)).index, texts)))
    marks = [weights * agreement([_apart(p) for p in places], trees)]
    paths = model.places(site)
    work = [(one, path) for one in (model, untrained(model, seed)) for path in paths]
    for one, path in progress(work, label="structural probes"):
        x = _words(one, path, texts, places)
        found = torch.zeros(len(texts))
        for fold in range(folds):
            out = order % folds == fold
            probe = fit([a for a, o in zip(x, out) if not o], [t for t, o in zip(trees, out) if not o], rank, steps, seed)
            held = out.nonzero()[:, 0].tolist()
            found[out] = agreement([probe(x[i]) for i in held], [trees[i] for i in held])
        marks.append(weights * found)
    each = torch.stack([torch.stack(marks[1 : len(paths) + 1]), torch.stack(marks[len(paths) + 1 :]),
                        marks[0].expand(len(paths), -1)]).movedim(-1, 0)  # fmt: skip
    labels = {"source": list(SOURCES), "layer": [str(site.star_values(p)[0]) for p in paths]}
    note = f"Rank {rank}, held out in {folds} folds; the mean over words, sentences of a length, lengths."
    return Grid(each.mean(0), ("source", "layer"), labels, "Spearman correlation", f"Tree distances in {site}", note, each=each)


def fit(x: Sequence[Tensor], trees: Sequence[Tensor], rank: int = 32, steps: int = 600, seed: int = 0,
        rate: float = 3e-3, batch: int = 128) -> Structure:  # fmt: skip
    """Learn the projection: the least absolute error of the squared distances, every sentence counting alike."""
    chance = torch.Generator().manual_seed(seed)
    inputs, truth, weight = _padded(x, trees)
    scale = torch.cat(list(x)).std().clamp(min=1e-12)
    b = (torch.randn(inputs.shape[-1], rank, generator=chance) * 0.4 / inputs.shape[-1] ** 0.5).requires_grad_()
    optimizer = torch.optim.Adam([b], lr=rate)
    inputs = inputs / scale
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        rows = torch.randint(len(inputs), (batch,), generator=chance)
        loss = ((Structure(b)(inputs[rows]) - truth[rows]).abs() * weight[rows]).sum() / batch
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Structure(b.detach() / scale)


def agreement(said: Sequence[Tensor], trees: Sequence[Tensor]) -> Float[Tensor, " text"]:
    """For each sentence: the Spearman correlation of a word's distances to the others, averaged over words.

    Words to which all others are equally far have no order, and are left out.
    """
    from scipy.stats import rankdata

    found = []
    for guess, truth in zip(said, trees):
        marks = []
        for i in range(len(truth)):
            others = [j for j in range(len(truth)) if j != i]
            a, b = rankdata(guess[i, others].numpy()), rankdata(truth[i, others].numpy())
            if b.std() > 0:
                marks.append(float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())) if a.std() > 0 else 0.0)
        if not marks:
            raise WrongPrompt("a sentence's words are all equally far apart, so there is no order to be found; leave it out.")
        found.append(sum(marks) / len(marks))
    return torch.tensor(found)


def attachment(said: Sequence[Tensor], trees: Sequence[Tensor]) -> Float[Tensor, " text"]:
    """For each sentence the share of the tree's edges that the smallest tree through the predicted distances has (UUAS)."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    found = []
    for guess, truth in zip(said, trees):
        edges = (minimum_spanning_tree((guess + 1e-6).numpy()).toarray() > 0) if len(guess) > 1 else None
        if edges is None:
            raise WrongPrompt("a tree of one word has no edges.")
        real = (truth == 1).numpy()
        if int(real.sum()) // 2 != len(truth) - 1:
            raise WrongPrompt("these words are no whole tree, so its edges are not among them; take all words of a sentence.")
        found.append(float(((edges | edges.T) & real).sum() / real.sum()))
    return torch.tensor(found)


def corpus(
    rng, count: int, links: tuple[int, ...] = (2, 3), nouns: bool = True
) -> tuple[list[str], list[list[int]], list[Tensor]]:
    """Texts of the town whose last sentence has a tree: texts, the tokens to be compared, the steps between them.

    `nouns` compares the nouns only, of which the words alone do not tell what they are in their sentence; else all words.
    """
    from patchclamp.specimens.town.parse import nested

    found = [nested(rng, links) for _ in range(count)]
    among = [tree.nouns if nouns else tree.inside for _, tree, _ in found]
    places = [[1 + start + i for i in own] for (_, _, start), own in zip(found, among)]  # after <bos>
    return (
        [text for text, _, _ in found],
        places,
        [torch.tensor(tree.distances(own)) for (_, tree, _), own in zip(found, among)],
    )


def _words(model: Model, path: str, texts: Sequence[str], places: Sequence[Sequence[int]]) -> list[Tensor]:
    rows = every(model, path, texts)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(rows.prompt).cumsum(0)])
    return [rows.value[int(starts[i]) + torch.tensor(list(own))] for i, own in enumerate(places)]


def _apart(places: Sequence[int]) -> Tensor:
    where = torch.tensor(list(places)).float()
    return (where[:, None] - where).abs()


def _weights(trees: Sequence[Tensor]) -> Float[Tensor, " text"]:
    """Such that a mean over texts is a mean over lengths."""
    lengths = Counter(map(len, trees))
    return torch.tensor([len(trees) / (len(lengths) * lengths[len(t)]) for t in trees])


def _padded(x: Sequence[Tensor], trees: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    most = max(map(len, x))
    inputs, truth, weight = torch.zeros(len(x), most, x[0].shape[1]), *torch.zeros(2, len(x), most, most)
    for i, (a, t) in enumerate(zip(x, trees)):
        n = len(a)
        inputs[i, :n], truth[i, :n, :n], weight[i, :n, :n] = a, t, 1 / n**2
    return inputs, truth, weight


def _check(texts: Sequence, places: Sequence, trees: Sequence[Tensor]) -> None:
    if not len(texts) == len(places) == len(trees):
        raise ShapeMismatch(
            f"{len(texts)} texts, {len(places)} lists of places and {len(trees)} trees; give one of each a text."
        )
    for n, (own, tree) in enumerate(zip(places, trees)):
        if tree.shape != (len(own), len(own)):
            raise ShapeMismatch(
                f"text {n} has {len(own)} places and a tree of {list(tree.shape)}; give the steps between them."
            )
