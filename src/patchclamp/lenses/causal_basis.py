"""Causal basis extraction: the directions that a lens reads, and whether the model reads them too.

Belrose et al. 2023. A lens could be right for reasons that the model does not have. So the direction is sought whose
erasure changes the lens's reading most, then the next one at right angles to it, and so on; each is then erased in the model
itself. Two things are asked: whether directions that matter to the lens matter to the model (Spearman's correlation of the two
influences), and whether they matter in the same way (stimulus-response alignment: the cosine, in Aitchison's geometry, of
what an erasure does to the reading and to the output).

Influence is KL(before || after), averaged over tokens, in bits. Beside every figure belongs that of random directions, which
`random_basis` makes. Each direction is a local optimum (L-BFGS from the best of several guesses), not a proven one.

What erasure by projection does is not only to forget. Along a direction that is half read and half merely varying it carries
what was never read into what is, so the direction of most influence need not lie among those that are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.agreement import rank_correlation
from patchclamp.core.edit import Edit
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.lenses.translator import Translator
from patchclamp.model.ending import Ending, Read, Rows
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model

Directions = Float[Tensor, "direction d_model"]
Erase = Callable[[Rows, Directions], Rows]
"""Takes away what the stream at many tokens says along orthonormal directions."""
GUESSES = 4
"""Eigenvectors of each kind that a search is begun from."""


def by_mean(stream: Rows, directions: Directions) -> Rows:
    """Every token gets the tokens' mean along the directions."""
    return stream - (stream - stream.mean(0)) @ directions.T @ directions


def by_resampling(stream: Rows, directions: Directions) -> Rows:
    """Every token gets another token's part along the directions, always the same one's."""
    order = torch.randperm(len(stream), generator=torch.Generator().manual_seed(0)).to(stream.device)
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # one cycle: no token gets its own
    return stream + (stream[other] - stream) @ directions.T @ directions


@dataclass(frozen=True, eq=False)
class Basis:
    """Orthonormal directions at the input of every block."""

    vectors: Float[Tensor, "layer direction d_model"]
    influence: Float[Tensor, "layer direction"] | None = None
    """On the lens, in bits, the strongest first; None for directions that were not sought."""


def causal_basis(
    model: Model, texts: Prompt, count: int, through: Translator | None = None, erase: Erase = by_mean, steps: int = 40
) -> Basis:
    """The directions that a lens relies on most, `count` of them at the input of every block.

    Without `through` the lens is the logit lens. All texts are one batch; some hundred tokens are enough.

    >>> from patchclamp.lenses.causal_basis import causal_basis
    >>> basis = causal_basis(model, [clean, corrupt], count=2, steps=5)
    >>> basis.vectors.shape, bool((basis.influence[:, 0] >= basis.influence[:, 1]).all())
    (torch.Size([4, 2, 128]), True)
    """
    passed = _passed(model, texts)
    if not 0 < count <= model.width:
        raise ShapeMismatch(f"the stream of {model.name} has {model.width} directions at right angles; {count} are asked for.")
    found = torch.zeros(model.layers, count, model.width)
    influence = torch.zeros(model.layers, count)
    for layer in progress(range(model.layers), label="causal basis"):
        stream = passed.streams[layer].float()
        changed = _influence_on(_reading(passed, layer, through), stream, erase)
        guesses = _guesses(_reading(passed, layer, through), stream)
        for n in range(count):
            found[layer, n] = _search(changed, found[layer, :n], guesses, steps)
            influence[layer, n] = float(changed(found[layer, n : n + 1])) / math.log(2)
        order = influence[layer].argsort(descending=True)
        found[layer], influence[layer] = found[layer][order], influence[layer][order]
    return Basis(found, influence)


def random_basis(model: Model, count: int, seed: int = 0) -> Basis:
    """As many orthonormal directions that mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(model.layers, model.width, count, generator=generator)
    return Basis(torch.linalg.qr(drawn).Q.mT.contiguous())


def influences(model: Model, texts: Prompt, basis: Basis, through: Translator | None = None, erase: Erase = by_mean) -> Grid:
    """What erasing each direction does to the lens's reading and to the model's output: Grid(on, layer, direction) in bits.

    >>> from patchclamp.lenses.causal_basis import influences, random_basis
    >>> influences(model, [clean, corrupt], random_basis(model, 3)).shape
    {'on': 2, 'layer': 4, 'direction': 3}
    """
    passed = _passed(model, texts)
    layers, count = basis.vectors.shape[:2]
    found = torch.zeros(2, layers, count)
    for layer in progress(range(layers), label="erasing directions"):
        changed = _influence_on(_reading(passed, layer, through), passed.streams[layer].float(), erase)
        for n, direction in enumerate(basis.vectors[layer]):
            found[0, layer, n] = float(changed(direction[None])) / math.log(2)
            after = _erased(passed, layer, direction[None], erase)
            found[1, layer, n] = float(_divergence(passed.logits, after).mean()) / math.log(2)
    labels = {"on": ["lens", "model"], "layer": [f"blocks.{i}.in" for i in range(layers)]}
    return Grid(found, ("on", "layer", "direction"), labels, unit="bits", title="Influence of directions", scale="sequential")


def faithfulness(found: Grid) -> Grid:
    """Spearman's correlation, layer by layer, between the influence of directions on the lens and on the model."""
    lens, model = found.at(on="lens").values, found.at(on="model").values
    values = torch.tensor([rank_correlation(a, b) for a, b in zip(lens, model)])
    return Grid(values, ("layer",), {"layer": found.words("layer")}, unit="rank correlation",
                title="Does the model rely on what the lens reads?")  # fmt: skip


def alignment(
    model: Model, texts: Prompt, basis: Basis, through: Translator | None = None, erase: Erase = by_resampling
) -> Grid:
    """Whether erasing all directions of a layer moves the reading and the output the same way: Grid(layer) of cosines.

    Stimulus and response are changes of log-probabilities. The inner product weighs tokens by the probability that the
    model gives them, and log-probabilities are centred under the same weights: Aitchison's geometry with a reference measure.

    >>> from patchclamp.lenses.causal_basis import alignment, random_basis
    >>> alignment(model, [clean, corrupt], random_basis(model, 3)).axes
    ('layer',)
    """
    passed = _passed(model, texts)
    weight, before = passed.logits.float().softmax(-1), passed.logits.float().log_softmax(-1)
    values = torch.zeros(len(basis.vectors))
    for layer in progress(range(len(values)), label="stimulus and response"):
        stream, read, directions = passed.streams[layer].float(), _reading(passed, layer, through), basis.vectors[layer]
        with torch.no_grad():
            stimulus = read(erase(stream, directions.to(stream.device))).log_softmax(-1) - read(stream).log_softmax(-1)
        response = _erased(passed, layer, directions, erase).float().log_softmax(-1) - before
        values[layer] = float(aitchison(stimulus, response, weight).mean())
    labels = {"layer": [f"blocks.{i}.in" for i in range(len(values))]}
    return Grid(values, ("layer",), labels, unit="cosine", title="Stimulus-response alignment")


def aitchison(one: Read, other: Read, weight: Read) -> Float[Tensor, " token"]:
    """The cosine of two changes of log-probabilities under a reference measure.

    >>> from patchclamp.lenses.causal_basis import aitchison
    >>> change = torch.randn(3, 7)
    >>> aitchison(change, 2 * change + 5, torch.rand(3, 7)).round(decimals=4)
    tensor([1., 1., 1.])
    """
    weight = weight / weight.sum(-1, keepdim=True)
    one, other = (x - (weight * x).sum(-1, keepdim=True) for x in (one, other))
    norms = ((weight * x * x).sum(-1).sqrt() for x in (one, other))
    return (weight * one * other).sum(-1) / math.prod(norms).clamp(min=1e-12)  # type: ignore[attr-defined]


def _passed(model: Model, texts: Prompt) -> Ending:
    passed = Ending.of(model, model.inputs(texts))
    if len(passed.logits) < 2:
        raise WrongPrompt("what a direction says is what differs between tokens; give texts of two tokens at least.")
    return passed


def _reading(passed: Ending, layer: int, through: Translator | None) -> Callable[[Rows], Read]:
    def read(stream: Rows) -> Read:
        carried = stream if through is None else through(f"blocks.{layer}.in", stream)
        return passed.read(carried.to(passed.logits.dtype)).float()

    return read


def _divergence(before: Read, after: Read) -> Float[Tensor, " token"]:
    """KL(before || after) in nats."""
    p, q = before.float().log_softmax(-1), after.float().log_softmax(-1)
    return torch.where(p.isinf(), 0, p.exp() * (p - q)).sum(-1)


def _influence_on(read: Callable[[Rows], Read], stream: Rows, erase: Erase) -> Callable[[Directions], Tensor]:
    """The mean divergence that erasing directions makes, as a function of them."""
    with torch.no_grad():
        before = read(stream)
    return lambda directions: _divergence(before, read(erase(stream, directions.to(stream.device)))).mean()


def _erased(passed: Ending, layer: int, directions: Directions, erase: Erase) -> Read:
    """The model's logits with directions erased at the input of a block, at every token."""
    mask = passed.tokens

    def change(value: Tensor) -> Tensor:
        made = value.clone()
        made[mask] = erase(value[mask].float(), directions.to(value.device)).to(value.dtype)
        return made

    end = passed.end
    return end.model.edit(Edit(f"blocks.{layer}.in", change)).run(end.inputs).logits[mask]


def _guesses(read: Callable[[Rows], Read], stream: Rows) -> Directions:
    """Where to begin: what varies most, what the reading is most sensitive to, and both together."""
    here = stream.detach().requires_grad_()
    with torch.enable_grad():
        said = read(here).log_softmax(-1)
        drawn = torch.multinomial(said.detach().exp(), 1, generator=torch.Generator(said.device).manual_seed(0))
        (slope,) = torch.autograd.grad(said.gather(-1, drawn).sum(), here)
    spread = torch.cov(stream.T)
    sensitive = slope.T @ slope / len(slope)
    both = spread @ sensitive + sensitive @ spread
    return torch.cat([torch.linalg.eigh(m.cpu()).eigenvectors[:, -GUESSES:].T for m in (spread, sensitive, both)])


def _search(
    changed: Callable[[Directions], Tensor], known: Directions, guesses: Float[Tensor, "guess d_model"], steps: int
) -> Tensor:
    """The unit vector at right angles to the known ones whose erasure changes most."""

    def at_right_angles(v: Tensor) -> Tensor:
        v = v - (v @ known.T) @ known
        return v / v.norm(dim=-1, keepdim=True).clamp(min=1e-12)

    fresh = torch.randn(GUESSES, guesses.shape[-1], generator=torch.Generator().manual_seed(len(known)))
    starts = at_right_angles(torch.cat([guesses, fresh]))
    starts = starts[starts.norm(dim=-1) > 0.5]
    with torch.no_grad():
        best = max(starts, key=lambda v: float(changed(v[None])))
    v = best.clone().requires_grad_()
    search = torch.optim.LBFGS([v], max_iter=steps, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        loss = -changed(at_right_angles(v)[None])
        (v.grad,) = torch.autograd.grad(loss, [v])  # and nothing is left on the model's weights
        return loss

    with torch.enable_grad():
        search.step(step)  # type: ignore[arg-type]
    made = at_right_angles(v.detach())
    return made if made.isfinite().all() else best
