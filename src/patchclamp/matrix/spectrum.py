"""Spectrum: the singular directions of a weight, read in the vocabulary; and whether neurons undo what they read.

`directions` splits a matrix of the model into rank-one parts, each of which reads one direction of the stream and writes
another (Millidge & Black 2022), and names the tokens nearest to what is read or written. `peaked` is a control the names
need: how far the top token of a direction stands out, beside directions drawn at random. Singular vectors of nearly equal
singular values are mixed at will, and their signs are arbitrary, so both ends of a direction are named.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.matrix.circuit import Circuit, reading
from patchclamp.matrix.factored import SVD, Factored, effective_rank
from patchclamp.matrix.head import Head, outward
from patchclamp.model.model import Model

TOP = 6
"""Tokens named for each direction."""


def matrix(model: Model, site: str | Site) -> Factored:
    """The matrix of a site: a head's OV (`blocks.1.attn.z[head=2]`) or QK (`.scores[head=2]`), a layer's `W_in`, `W_gate`,
    `W_out`.

    What reads the stream has the norm before it folded in, and what writes to it the norms and factors behind it. Rows are
    what is read; of QK, rows are queries and columns are keys, before any rotation.
    """
    path = Site.parse(site)
    last = str(path.parts[-1])
    if last in ("z", "scores"):
        head = Head.of(model, Site((*path.parts[:-1], "z"), path.index))
        return head.ov if last == "z" else head.qk
    block = model.anatomy.block(model.weights.places(path.bare())[0])
    if last in ("W_in", "W_gate"):
        weight = reading(model, path.path, model.anatomy.main.blocks.index(block))
    elif last == "W_out" and (write := block.write(str(path.parts[-2]))) is not None:
        weight = outward(model, write, model.weights[path].float())
    else:
        raise WrongAxis(
            f"{site} is no head (blocks.1.attn.z[head=2], or .scores for its QK), and no layer's W_in, W_gate, W_out."
        )
    one = torch.eye(min(weight.shape), device=weight.device)
    return Factored(weight, one) if weight.shape[0] >= weight.shape[1] else Factored(one, weight)


def spectrum(model: Model, sites: str | Site) -> Grid:
    """Singular values of one matrix, or of those of a pattern: Grid(direction) or Grid(component, direction).

    `baseline` holds the effective rank of a single one; of several it is in `details`.

    >>> from patchclamp.matrix.spectrum import spectrum
    >>> grid = spectrum(model, "blocks.1.attn.z[head=2]")
    >>> grid.axes, bool(1 < grid.baseline["effective rank"] <= 16)
    (('direction',), True)
    """
    site = Site.parse(sites)
    if not site.stars:
        values = matrix(model, site).singular_values().cpu()
        return Grid(values, ("direction",), unit="singular value", title=f"Spectrum of {site}", scale="sequential",
                    baseline={"effective rank": effective_rank(values)})  # fmt: skip
    rows, names = [], []
    heads = str(site.parts[-1]) in ("z", "scores")
    for place in model.places(site) if heads else model.weights.places(site.bare()):
        concrete = Site(Site.parse(place).parts, site.index)
        for one, name in _each(model, concrete):
            rows.append(matrix(model, one).singular_values().cpu())
            names.append(name)
    rank = min(len(r) for r in rows)
    values = torch.stack([r[:rank] for r in rows])
    ranks = torch.tensor([effective_rank(r) for r in rows])
    return Grid(values, ("component", "direction"), {"component": names}, "singular value", f"Spectra of {site}",
                scale="sequential", details={"effective rank": ranks[:, None].expand_as(values)})  # fmt: skip


def directions(model: Model, site: str | Site, n: int = 8, side: str = "written") -> Grid:
    """The strongest singular directions of a weight, and the tokens at both of their ends: Grid(direction, end).

    `side` is `written` (into the stream) or `read` (from it); of a QK circuit, `query` or `key`. Cells hold how far the top
    token stands out (see `peaked`), `text` the top tokens. Directions are read with W_U through the last norm's weight, as
    the logit lens reads, whichever side it is.

    >>> from patchclamp.matrix.spectrum import directions
    >>> grid = directions(model, "blocks.3.attn.z[head=2]", n=3)
    >>> grid.shape, len(grid.text[0][0].split(",")) >= 6
    ({'direction': 3, 'end': 2}, True)
    """
    found = matrix(model, site).svd()
    rows = _side(found, side, model.width, site)[:n]
    ending = reading(model, "logits.W_U", model.layers)
    logits = rows @ ending
    words = model.run_reader.vocabulary(ending.shape[1])
    cells, text = [], []
    for sign in (1, -1):
        cells.append(peaked(sign * logits))
        text.append(
            [", ".join(str(words[i]) for i in row) for row in (sign * logits).topk(min(TOP, logits.shape[1])).indices.tolist()]
        )
    drawn = torch.randn(256, model.width, generator=torch.Generator().manual_seed(0)).to(ending)
    random = peaked(drawn @ ending)
    names = [f"{i} ({s:.3g})" for i, s in enumerate(found.S[:n].tolist())]
    usual, rare = float(random.mean()), float(random.quantile(0.95))
    note = f"Random directions: {usual:.1f}, one in twenty above {rare:.1f}."
    return Grid(
        torch.stack(cells, 1).cpu(), ("direction", "end"), {"direction": names, "end": ["+", "−"]}, "standard deviations",
        f"What is {side} by {site}", note, "sequential", list(map(list, zip(*text))),
        baseline={"random": usual, "random, 95 %": rare},
    )  # fmt: skip


def peaked(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """How far the top token of each row stands out: above the mean of all, in standard deviations.

    >>> from patchclamp.matrix.spectrum import peaked
    >>> [round(float(p), 1) for p in peaked(torch.eye(100)[:1])]
    [9.9]
    """
    return (logits.amax(1) - logits.mean(1)) / logits.std(1).clamp(min=1e-12)


def vocabulary(model: Model, site: str | Site, side: str = "written") -> Circuit:
    """Every neuron of a layer in the vocabulary: rows of `W_out`, or columns of `W_in` with `side="read"`.

    >>> from patchclamp.matrix.spectrum import vocabulary
    >>> vocabulary(model, "blocks.2.mlp")
    Circuit(blocks.2.mlp, written: 384 neuron x 1097 logit, through 128)
    """
    path = str(Site.parse(site))
    if side not in ("written", "read"):
        raise ValueError(f'side is "written" or "read", not {side!r}.')
    weight = matrix(model, f"{path}.{'W_out' if side == 'written' else 'W_in'}")
    rows = weight.full() if side == "written" else weight.full().T
    ending = reading(model, "logits.W_U", model.layers)
    names = [str(i) for i in range(len(rows))]
    words = (names, model.run_reader.vocabulary(ending.shape[1]))
    return Circuit(Factored(rows, ending), ("neuron", "logit"), words, f"{path}, {side}", "logits")


def in_out(model: Model, sites: str | Site = "blocks.*.mlp", letter: str = "W_in") -> Grid:
    """The cosine between what each neuron reads and what it writes: Grid(layer, neuron). Near -1 it takes away what it finds.

    `letter` may be `W_gate`, the other side of a gated layer. The norm before the layer is folded in. `baseline` holds
    the standard deviation that unrelated directions would have, 1 / sqrt(d_model).

    >>> from patchclamp.matrix.spectrum import in_out
    >>> grid = in_out(model)
    >>> grid.shape, bool(grid.values.abs().max() <= 1)
    ({'layer': 4, 'neuron': 384}, True)
    """
    site, made, names = Site.parse(sites), [], []
    for path in model.weights.places(f"{site}.{letter}"):
        place = path.rpartition(".")[0]
        block = model.anatomy.block(path)
        write = block.write(place.rpartition(".")[2])
        assert write is not None
        read = reading(model, path, model.anatomy.main.blocks.index(block))
        written = outward(model, write, model.weights[f"{place}.W_out"].float())
        made.append(torch.nn.functional.cosine_similarity(read.T, written, dim=1))
        names.append(str(Site.parse(place).layer))
    if len({len(m) for m in made}) > 1:
        raise Unserved(f"{sites} names layers of different width; take them one by one.")
    title = f"What neurons read against what they write, {letter}"
    return Grid(torch.stack(made).cpu(), ("layer", "neuron"), {"layer": names}, "cosine", title,
                baseline={"unrelated, standard deviation": model.width**-0.5})  # fmt: skip


def _side(found: SVD, side: str, width: int, site: str | Site) -> Float[Tensor, "rank d_model"]:
    sides = ("query", "key") if str(Site.parse(site).parts[-1]) == "scores" else ("read", "written")
    if side not in sides:
        raise ValueError(f'side is "{sides[0]}" or "{sides[1]}" for {site}, not {side!r}.')
    rows = found.U.T if side == sides[0] else found.V
    if rows.shape[1] != width:
        raise WrongAxis(f"{site}: its {side} side is neurons, not the stream; take the other one.")
    return rows


def _each(model: Model, site: Site) -> list[tuple[Site, str]]:
    """The single matrices of a place, one a head where it has heads."""
    if str(site.parts[-1]) not in ("z", "scores"):
        return [(site, site.path)]
    write = model.anatomy.block(site.path).write(str(site.parts[-2]))
    number = dict(site.index).get("head")
    chosen = range(write.heads if write else 0) if not isinstance(number, int) else [number]
    return [(site.at(head=i), f"{site.layer}.{i}") for i in chosen]
