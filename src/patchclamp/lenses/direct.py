"""Direct contributions: what each part of the model writes into the answer's logit, through nothing but the final norm.

The stream before the unembedding is a sum, so the logit is one too, once the norm's scale is held at the value it had in
this run (Elhage et al. 2021, "logit attribution"). Norms that stand in the stream or behind a layer (BERT, gemma 2) are
held in the same way, constant factors are followed, and a soft-cap keeps the gain it had. The parts add up to the logit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from patchclamp.core.edit import zero
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric, Words
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.model.anatomy import Block, Write
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model


def decompose(model: Model, prompt: Prompt, metric: Metric) -> Grid:
    """The metric (a logit, or a difference of two) as a sum over everything that wrote into the stream.

    Grid(component): the embedding, each block's attention and feed-forward layer, norm biases, the unembedding's bias.
    They add up to `Grid.baseline["metric"]`.

    >>> import patchclamp as pc
    >>> town = pc.load("specimen:town")
    >>> parts = pc.decompose(town, "When Mary and John went to the store, John gave a drink to", pc.logit(" Mary"))
    >>> bool(abs(parts.values.sum() - parts.baseline["metric"]) < 1e-3)
    True
    """
    reading = Reading.of(model, prompt, metric)
    names, parts = zip(*reading.components())
    return reading.grid(
        torch.stack(parts, 1), ("component",), {"component": list(names)}, f"Direct contributions to the {metric.name}"
    )


def direct(model: Model, prompt: Prompt, sites: str | Site, metric: Metric) -> Grid:
    """How much each place writes into the metric directly, in logits; every star of `sites` is an axis.

    Sites that write: `embed.out`, `blocks.*.attn.out`, `blocks.*.mlp.out`; heads, `blocks.*.attn.z[head=*]`; neurons,
    `blocks.*.mlp.act[neuron=*]`; and what a head brings from each token, `blocks.*.attn.pattern[head=*, key=*]`.

    >>> import patchclamp as pc
    >>> town = pc.load("specimen:town")
    >>> prompt = "When Mary and John went to the store, John gave a drink to"
    >>> pc.direct(town, prompt, "blocks.*.attn.z[head=*]", pc.logit_diff(" Mary", " John")).axes
    ('layer', 'head')
    """
    site = Site.parse(sites)
    paths = model.places(site)
    fixed = [a for a, v in site.index if not isinstance(v, Span)]
    if fixed:
        raise WrongAxis(f'{site} fixes "{fixed[0]}"; a direct contribution is to the answer, take stars and then grid.at(...).')
    reading = Reading.of(model, prompt, metric, paths)
    stars = [a for a, v in site.index if isinstance(v, Span)]
    cells = torch.stack([reading.of_site(p, stars) for p in paths], 1)
    labels: dict[str, list[str]] = (
        {site.stars[0]: [str(site.star_values(p)[0]) for p in paths]} if len(paths) > 1 or site.stars[:1] == ("layer",) else {}
    )
    if not labels:
        cells = cells[:, 0]
    if "key" in stars and len(reading.run.words) == 1:
        labels["key"] = [f"{i} {w.strip() or repr(w)}" for i, w in enumerate(reading.run.words[0])]
    return reading.grid(
        cells,
        (*list(labels)[: cells.ndim - 1 - len(stars)], *stars),
        labels,
        f"Direct contributions to the {metric.name} of {site}",
    )


@dataclass(frozen=True, eq=False)
class Reading:
    """One run, and for every write of every block the direction along which it is read."""

    model: Model
    run: Run
    rows: Tensor
    """For each prompt the column of its answer."""
    value: Tensor
    """The metric, prompt by prompt."""
    constant: Tensor
    """What the metric would be with nothing in the stream: the unembedding's bias."""
    along: dict[str, Tensor]
    """Block path to the direction (batch, d_model) along which its writes are read; `""` for the first block's input."""
    biases: Tensor
    """What the norms' biases contribute."""

    @classmethod
    def of(cls, model: Model, prompt: Prompt, metric: Metric, sites: tuple[str, ...] = ()) -> Reading:
        blocks = _servable(model)
        inputs = model.inputs(prompt)
        run = _kept(model, inputs, blocks, sites)
        bound = model.metric(metric, run)
        rows = torch.tensor(run.last)
        end = "norm.out" if model.anatomy.main.norm else f"{blocks[-1].path}.out"
        top, constant = _direction(model, inputs, end, bound, run)
        value = bound(run.logits)
        biases = torch.zeros_like(value)
        if model.anatomy.main.norm:
            final = model.weights.norm(model.anatomy.main.norm)
            x, y = (run[s][range(len(rows)), rows].float() for s in (f"{blocks[-1].path}.out", "norm.out"))
            biases = biases + top @ final.bias
            top = final.pull_back(top, final.scale(x, y))
        along = {}
        for block in reversed(blocks):
            top, biases = _through(model, run, rows, block, top, biases, along)
        return cls(model, run, rows, value, constant, {**along, "": top}, biases)

    def components(self) -> Iterator[tuple[str, Tensor]]:
        """Name and contribution (batch,) of everything that adds up to the metric."""
        blocks = self.model.anatomy.main.blocks
        yield "embedding", self._dot(self.at(f"{blocks[0].path}.in"), self.along[""])
        for block in blocks:
            for write in block.writes:
                name = f"{block.path.rsplit('.', 1)[-1]} {write.name}"
                yield (
                    name,
                    self._dot(self.at(f"{block.path}.{write.name}.out"), self.along[f"{block.path}.{write.name}"]),
                )
        if bool(self.biases.abs().max() > 0):
            yield "norm biases", self.biases
        if bool(self.constant.abs().max() > 0):
            yield "unembedding bias", self.constant

    def at(self, path: str) -> Tensor:
        """The value of a place at the answer's position."""
        return self.run[path][range(len(self.rows)), self.rows].float()

    def of_site(self, path: str, stars: list[str]) -> Tensor:
        """(batch, *stars) contributions of one place."""
        site = Site.parse(path)
        last, outer = site.parts[-1], path.rpartition(".")[0]
        if last == "out" and outer in self.along:
            return self._dot(self.at(path), self.along[outer])
        if path in ("embed.out", f"{self.model.anatomy.main.blocks[0].path}.in"):
            return self._dot(self.at(path), self.along[""])
        block = self.model.anatomy.block(path)
        write = block.write(str(site.parts[-2]))
        found = {"z": self._heads, "act": self._neurons, "pattern": self._sources}.get(str(last))
        if write is None or found is None:
            raise Unserved(
                f"{path} does not write into the stream by itself; heads (attn.z), neurons (mlp.act), attn.out and mlp.out do."
            )
        values, axes = found(path, outer, write)
        return values.sum([i + 1 for i, a in enumerate(axes) if a not in stars]) if set(axes) - set(stars) else values

    def grid(self, cells: Tensor, axes: tuple[str, ...], labels: dict[str, list[str]], title: str) -> Grid:
        """The cells averaged over prompts, with the metric they are parts of."""
        cells = cells.detach()
        baseline = {"metric": float(self.value.mean())}
        return Grid(cells.mean(0), axes, labels, unit="logits", title=title, each=cells, baseline=baseline,
                    note="The scale of each norm is held at its value in this run.")  # fmt: skip

    def _heads(self, path: str, outer: str, write: Write) -> tuple[Tensor, tuple[str, ...]]:
        into = self._into(outer, write)
        read = torch.einsum("hed,bd->bhe", self.model.weights[f"{outer}.W_O"].float(), into)
        return (self.at(path) * read).sum(-1), ("head",)

    def _neurons(self, path: str, outer: str, write: Write) -> tuple[Tensor, tuple[str, ...]]:
        return self.at(path) * (self._into(outer, write) @ self.model.weights[f"{outer}.W_out"].float().T), ("neuron",)

    def _sources(self, path: str, outer: str, write: Write) -> tuple[Tensor, tuple[str, ...]]:
        """What each head brings from each token: pattern times value, through the output matrix."""
        if f"{outer}.gate" in self.model.anatomy.places:
            raise Unserved(f"{path}: a gate stands between the pattern and the output matrix; take {outer}.z instead.")
        pattern = self.run[path][range(len(self.rows)), :, self.rows].float()
        values = self.run[f"{outer}.v"].float().repeat_interleave(write.heads // write.kv_heads, dim=2)
        read = torch.einsum("hed,bd->bhe", self.model.weights[f"{outer}.W_O"].float(), self._into(outer, write))
        return torch.einsum("bhk,bkhe,bhe->bhk", pattern, values, read), ("head", "key")

    def _into(self, outer: str, write: Write) -> Tensor:
        """The direction read at the output of a write's last matrix: back through the norms and factors behind it."""
        if not write.linear:
            raise Unserved(f"{outer} reaches the stream through more than its output matrix, so its parts do not add up.")
        direction = self.along[outer]
        for factor in reversed(write.factors):
            direction = direction * factor
        for norm in reversed(write.norms):
            read = self.model.weights.norm(norm)
            direction = read.pull_back(direction, read.scale(self.at(f"@{norm}.in"), self.at(f"@{norm}.out")))
        return direction

    @staticmethod
    def _dot(value: Tensor, direction: Tensor) -> Tensor:
        return (value * direction).sum(-1)


def _servable(model: Model) -> tuple[Block, ...]:
    main = model.anatomy.main
    if not main.blocks or any(not b.steps for b in main.blocks) or f"{main.blocks[0].path}.in" not in model.anatomy.places:
        raise Unserved(f"{model.name} has blocks whose output is not a sum that was seen to add up; no direct contributions.")
    if main.head > 1:
        raise Unserved(f"{model.name} turns the stream into logits through {main.head} matrices with a nonlinearity between; "
                       "contributions would not add up.")  # fmt: skip
    return main.blocks


def _kept(model: Model, inputs: Inputs, blocks: tuple[Block, ...], sites: tuple[str, ...]) -> Run:
    places = model.anatomy.places
    wanted = {f"{b.path}.{n}" for b in blocks for n in ("in", "out", *(f"{w.name}.out" for w in b.writes))}
    wanted |= {"norm.out"} if model.anatomy.main.norm else set()
    wanted |= set(sites)
    wanted |= {s.replace(".pattern", ".v") for s in sites if s.endswith(".pattern")}
    raw = {f"@{n}.{side}" for b in blocks for w in b.writes for n in w.norms for side in ("in", "out")} if sites else set()
    run = model.run(inputs, [*(p for p in places if p in wanted), *sorted(raw)])
    for one, two in zip(blocks, blocks[1:]):
        if not torch.allclose(run[f"{one.path}.out"], run[f"{two.path}.in"], rtol=1e-4, atol=1e-4):
            raise Unserved(
                f"{model.name} changes the stream between {one.path} and {two.path}; contributions would not add up."
            )
    return run


def _direction(model: Model, inputs: Inputs, end: str, metric: Metric, run: Run) -> tuple[Tensor, Tensor]:
    """How the metric reads the last places of the stream (batch, d_model), and what it is when nothing is there."""
    graph = model.run(inputs, end, grad=True)
    empty = model.edit(zero(end)).run(inputs).logits
    logits, rows = graph.logits, range(len(run.last))
    total: Tensor | float = 0.0
    constant = metric(empty)
    y = run[end][rows, run.last].float()
    for sign, token in _tokens(metric):
        one = Metric(metric.name, metric.unit, _logit, (token,), metric.columns)
        slope = graph.gradient(_each(one), retain=True)[end][rows, run.last].float()
        linear = (slope * y).sum(-1)
        gain = (one(logits.detach()) - one(empty)) / torch.where(linear.abs() < 1e-12, torch.ones_like(linear), linear)
        total = total + sign * slope * gain[:, None]  # a soft-cap keeps the gain it had; without one the gain is 1
    assert isinstance(total, Tensor)
    return total.detach(), constant.detach()


def _tokens(metric: Metric) -> list[tuple[float, Words]]:
    if metric.name not in ("logit", "logit difference"):
        raise Unserved(
            f"contributions add up to a logit or a difference of two, not to a {metric.name}; use pc.logit or pc.logit_diff."
        )
    return list(zip((1.0, -1.0), metric.tokens))


def _logit(at: Tensor, ids: Tensor) -> Tensor:
    return at.gather(-1, ids[:, None])[:, 0]


def _each(metric: Metric):
    return lambda logits: metric(logits)


def _through(model: Model, run: Run, rows: Tensor, block: Block, top: Tensor, biases: Tensor, along: dict[str, Tensor]):
    """Back through one block: where each of its writes is read, and the direction before it."""
    streams = _streams(model, run, rows, block)
    for step, before, after in reversed(list(zip(block.steps, streams, streams[1:]))):
        if step.kind == "write":
            along.update({f"{block.path}.{name}": top for name in step.writes})
        elif step.kind == "scale":
            top = top * step.factor
        else:
            norm = model.weights.norm(step.norm)
            biases = biases + top @ norm.bias
            top = norm.pull_back(top, norm.scale(before, after))
    return top, biases


def _streams(model: Model, run: Run, rows: Tensor, block: Block) -> list[Tensor]:
    """The stream at the answer's position before each step of a block, and after the last."""
    at = range(len(rows))
    stream = run[f"{block.path}.in"][at, rows]
    found = [stream.float()]
    for step in block.steps:
        if step.kind == "write":
            for name in step.writes:
                stream = stream + run[f"{block.path}.{name}.out"][at, rows]
        elif step.kind == "scale":
            stream = stream * step.factor
        else:
            with torch.no_grad():
                stream = model.hf.get_submodule(step.norm).forward(stream[:, None])[:, 0]
        found.append(stream.float())
    return found
