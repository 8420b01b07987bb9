"""Vocabulary: weights read as words, without any text.

A neuron's row of W_out is a direction of the stream, and so are a head's rows of W_O, a token's embedding, a probe or a
steering vector: each raises some logits and lowers others (Geva et al. 2021 and 2022 read feed-forward layers so; Dar et al.
2022 read all parameters). What writes into the stream is read with the unembedding; what reads from it, a column of W_in or
W_Q, with the embedding: the tokens that would feed it most. Everything nonlinear between is left out, and all norms but for
their weights: the scores order tokens, and those of different rows compare only as far as their lengths do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.axes import Numbers
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site, Span
from patchclamp.lenses.parts import Parts
from patchclamp.model.anatomy import Write
from patchclamp.model.model import Model
from patchclamp.model.unembed import LOGITS

WRITES, READS = {"W_O": "attn", "W_out": "mlp", "b_O": "attn", "b_out": "mlp"}, ("W_Q", "W_K", "W_V", "W_in", "W_gate", "W_U")


def vocabulary(model: Model, what: str | Site | Tensor, n: int = 8) -> Grid:
    """The `n` tokens that a direction, or each row of a weight, points at most: Grid(..., top), the tokens in `Grid.text`.

    `what` is a site of weights, or a tensor (..., d_model) of directions of the stream.

    >>> from patchclamp.lenses.vocabulary import vocabulary
    >>> vocabulary(model, "blocks.*.mlp.W_out[neuron=*]", n=3).shape
    {'layer': 4, 'neuron': 384, 'top': 3}
    >>> vocabulary(model, model.weights["logits.W_U"][:, model.token(" Mary")], n=1).text
    [' Mary']
    """
    if isinstance(what, Tensor):
        return _top(model, what, read=False, axes=("direction",) * (what.ndim - 1), labels={}, n=n, title="Directions as words")
    site = Site.parse(what)
    last = str(site.parts[-1])
    paths = model.places(site)
    if last not in (*WRITES, *READS, "W_E"):
        raise Unserved(f"{site} holds no directions of the stream; W_E, {', '.join((*WRITES, *READS))} do.")
    entry = model.weights.entries[paths[0]]
    own = [a for a in entry.axes if not isinstance(dict(site.index).get(a), int)]
    stars, labels = site.bare().stars, {}
    if len(stars) > 1 or "d_model" not in own:
        raise WrongAxis(f"{site}: rows are read whole, and layer by layer; take one star in the path and leave d_model alone.")
    weights = model.weights.folded() if last in READS else model.weights
    rows = [_through(model, path, weights[Site(Site.parse(path).parts, site.index)].float()) for path in paths]
    rows = [row.movedim(own.index("d_model"), -1) for row in rows]
    if stars:
        labels[stars[0]] = [str(site.star_values(p)[0]) for p in paths]
    for axis, span in site.index:
        if isinstance(span, Span):
            labels[axis] = [str(i) for i in span.of(model.weights[paths[0]].shape[entry.axes.index(axis)])]
    axes = (*stars[:1], *(a for a in own if a != "d_model"))
    if last == "W_E":
        labels["vocab"] = model.run_reader.vocabulary(rows[0].shape[0])
    return _top(model, torch.stack(rows) if stars else rows[0], last in READS, axes, labels, n, f"{site} as words")


def carries(model: Model, site: str | Site, words: Sequence[str | int], n: int = 8) -> Grid:
    """What heads write where they look at a word: its embedding through W_V and W_O, Grid(..., word, top).

    `site` names heads, `blocks.*.attn.z[head=*]`. Values are read with the unembedding; `Grid.details["rank"]` says how many
    tokens come before the word itself: 0 everywhere is a head that copies. The stream is taken to hold nothing but the word.

    >>> from patchclamp.lenses.vocabulary import carries
    >>> carries(model, "blocks.*.attn.z[head=*]", [" Mary", " John"], n=3).shape
    {'layer': 4, 'head': 8, 'word': 2, 'top': 3}
    """
    site = Site.parse(site)
    if site.parts[-1] != "z" or not site.index:
        raise Unserved(f"{site} names no heads; blocks.*.attn.z[head=*] does.")
    ids = [model.token(w) for w in words]
    x = model.weights["embed.W_E"][ids].float()
    found = []
    for path in model.places(site):
        parts = Parts.of(model, site, path)
        values, out = (model.weights.folded()[f"{parts.layer}.{m}"].float() for m in ("W_V", "W_O"))
        group = out.shape[0] // values.shape[0]
        centred = _norm_of(model, parts.write).centred(x) if parts.write.norm else x
        made = [centred @ values[head // group] @ out[head] for head in parts.entries]
        found.append(_through(model, f"{parts.layer}.W_O", torch.stack(made)))
    stars = site.stars
    rows = torch.stack(found)
    rows, axes = (rows, stars) if len(stars) == 2 else (rows.flatten(0, 1), (stars or ("head",)))
    entries = [str(i) for i in Parts.of(model, site, model.places(site)[0]).entries]
    labels: dict[str, Sequence[str]] = {"word": [str(w) for w in words], "head": entries}
    if stars and stars[0] == "layer":
        labels["layer"] = [str(site.star_values(p)[0]) for p in model.places(site)]
    return _top(model, rows, False, (*axes, "word"), labels, n, f"What {site} carries", own=torch.tensor(ids))


@dataclass(frozen=True, eq=False)
class _End:
    """The end of a model without its nonlinearity: a direction of the stream to a score for every token."""

    matrix: Float[Tensor, "d_model vocab"]

    @classmethod
    def of(cls, model: Model, read: bool) -> _End:
        weights, main = model.weights, model.anatomy.main
        if read:
            return cls(weights["embed.W_E"].float().T)
        if main.head > 1 or "logits.W_U" not in weights:
            raise Unserved(
                f"{model.name} has no single matrix between the stream and the logits, so no direction stands for words."
            )
        matrix = weights.folded()["logits.W_U"].float()
        centres = bool(main.norm) and weights.norm(main.norm).centres
        return cls(matrix - matrix.mean(0) if centres else matrix)


def _through(model: Model, path: str, rows: Tensor) -> Tensor:
    """Rows of a weight as they reach the stream, or as they meet it: through the norms' weights and factors beside them."""
    layer, _, name = path.rpartition(".")
    kind = WRITES.get(name)
    if kind is None and name not in READS[:-1]:
        return rows
    block = model.anatomy.block(path)
    write = block.write(layer.rpartition(".")[2])
    assert write is not None
    if kind is None:
        norm = _norm_of(model, write) if write.norm else None
        return rows - rows.mean(-2, keepdim=True) if norm is not None and norm.centres else rows
    for name in write.norms:
        norm = model.weights.norm(name)
        rows = norm.weight * norm.centred(rows)
    for factor in write.factors:
        rows = rows * factor
    return rows


def _norm_of(model: Model, write: Write):
    return model.weights.norm(write.norm)


def _top(model: Model, rows: Numbers, read: bool, axes: tuple[str, ...], labels: dict, n: int, title: str,
         own: Int[Tensor, " word"] | None = None) -> Grid:  # fmt: skip
    """The greatest scores of every row, a few rows at a time: rows times vocabulary may be more than there is memory."""
    end, flat = _End.of(model, read), rows.detach().reshape(-1, rows.shape[-1])
    words = model.run_reader.vocabulary(end.matrix.shape[1])
    values, tokens, ranks = [], [], []
    ids = None if own is None else own.repeat(len(flat) // len(own))
    room = max(LOGITS // end.matrix.shape[1], 1)
    for first in range(0, len(flat), room):
        scores = flat[first : first + room].to(end.matrix.device) @ end.matrix
        found = scores.topk(min(n, scores.shape[-1]))
        values.append(found.values.cpu())
        tokens.append(found.indices)
        if ids is not None:
            mine = scores.gather(-1, ids[first : first + room, None].to(scores.device))
            ranks.append((scores > mine).sum(-1, keepdim=True).expand(-1, found.values.shape[-1]).float().cpu())
    shape = (*rows.shape[:-1], -1)
    details = {"rank": torch.cat(ranks).reshape(shape)} if ranks else {}
    named = _nested(torch.cat(tokens).reshape(shape).tolist(), words)
    note = "Scores are logits per unit of length, all norms left out but for their weights."
    return Grid(torch.cat(values).reshape(shape), (*axes, "top"), {a: w for a, w in labels.items() if a in axes}, unit="score",
                title=title, text=named, details=details, note=note)  # fmt: skip


def _nested(tokens: list | int, words: Sequence[str]) -> list:
    return words[tokens] if isinstance(tokens, int) else [_nested(t, words) for t in tokens]  # type: ignore[return-value]
