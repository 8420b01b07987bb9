"""Direct contributions: what each part of the model writes into the answer's logit, through nothing but the final norm.

The stream before the unembedding is a sum, so the logit is one too, once the norm's scale is held at the value it had in
this run (Elhage et al. 2021, "logit attribution"). Norms that stand in the stream or behind a layer (BERT, gemma 2) are
held in the same way, constant factors are followed, and a soft-cap keeps the gain it had. The parts add up to the logit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.axes import Answers, Cells, Directions, PerPrompt
from patchclamp.core.edit import Edit, zero
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid, by_stars
from patchclamp.core.metric import Metric, Words
from patchclamp.core.run import Run
from patchclamp.core.site import Site, Span
from patchclamp.model.anatomy import Block, Write
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model
from patchclamp.model.norms import normed


def decompose(model: Model, prompt: Prompt, metric: Metric) -> Grid:
    """The metric (a logit, or a difference of two) as a sum over everything that wrote into the stream.

    Grid(component): the embedding, each block's attention and feed-forward layer, norm biases, the unembedding's bias.
    They add up to `Grid.baseline["metric"]`.

    >>> parts = pc.decompose(model, clean, pc.logit(" Mary"))
    >>> list(parts.words("component"))[:3]
    ['embedding', '0 attn', '0 mlp']
    >>> bool(abs(parts.values.sum() - parts.baseline["metric"]) < 1e-4)
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

    >>> pc.direct(model, clean, "blocks.*.attn.z[head=*]", pc.logit_diff(" Mary", " John")).shape
    {'layer': 4, 'head': 8}
    """
    site = Site.parse(sites)
    paths = model.places(site)
    fixed = [a for a, v in site.index if not isinstance(v, Span)]
    if fixed:
        raise WrongAxis(f'{site} fixes "{fixed[0]}"; a direct contribution is to the answer, take stars and then grid.at(...).')
    reading = Reading.of(model, prompt, metric, paths)
    spans = {a: v for a, v in site.index if isinstance(v, Span)}
    cells = torch.stack([reading.of_site(p, list(spans)) for p in paths], 1)
    chosen = {axis: list(span.of(cells.shape[2 + i])) for i, (axis, span) in enumerate(spans.items())}
    for i, entries in enumerate(chosen.values()):
        cells = cells.index_select(2 + i, torch.tensor(entries, device=cells.device))
    made, axes, labels = by_stars(site, paths, cells)
    labels |= {axis: reading.labels(paths[0], axis, entries) for axis, entries in chosen.items()}
    return reading.grid(made, axes, labels, f"Direct contributions to the {metric.name} of {site}")


@dataclass(frozen=True, eq=False)
class Reading:
    """One run, and for every write of every block the direction along which it is read."""

    model: Model
    inputs: Inputs
    run: Run
    rows: Int[Tensor, " batch"]
    """For each prompt the column of its answer."""
    value: PerPrompt
    """The metric, prompt by prompt."""
    constant: PerPrompt
    """What the metric would be with nothing in the stream: the unembedding's bias."""
    along: dict[str, Directions]
    """Block path to the direction along which its writes are read; `""` for the first block's input."""
    biases: PerPrompt
    """What the norms' biases contribute."""

    @classmethod
    def of(cls, model: Model, prompt: Prompt, metric: Metric, sites: tuple[str, ...] = ()) -> Reading:
        blocks = _servable(model)
        inputs = model.inputs(prompt)
        run = _kept(model, inputs, blocks, sites)
        if run.output is None:
            raise Unserved(f"{model.name} returns no logits, so there is no logit to take apart; load it with its head.")
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
        return cls(model, inputs, run, rows, value, constant, {**along, "": top}, biases)

    def components(self) -> Iterator[tuple[str, PerPrompt]]:
        """Name and contribution of everything that adds up to the metric."""
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
            shifted = any(step.kind == "shift" for block in blocks for step in block.steps)
            yield "norm biases and shifts" if shifted else "norm biases", self.biases
        if bool(self.constant.abs().max() > 0):
            yield "unembedding bias", self.constant

    def at(self, path: str) -> Cells:
        """The value of a place at the answer's position."""
        return self.run[path][range(len(self.rows)), self.rows].float()

    def of_site(self, path: str, stars: list[str]) -> Cells:
        """The contributions of one place along the starred axes, in their order; summed over its others."""
        values, axes = self._parts(path)
        for star in stars:
            if star not in axes:
                has = f"the parts of {path} are along {' and '.join(axes)}" if axes else f"{path} contributes as a whole"
                raise WrongAxis(f'a direct contribution is to the answer, and has no axis "{star}"; {has}.')
        left = ["batch", *(a for a in axes if a in stars)]
        summed = values.sum([i + 1 for i, a in enumerate(axes) if a not in stars]) if set(axes) - set(stars) else values
        return summed.permute([left.index(a) for a in ("batch", *stars)])

    def _parts(self, path: str) -> tuple[Cells, tuple[str, ...]]:
        """What the parts of one place contribute, and the axes that tell them apart."""
        site = Site.parse(path)
        last, outer = site.parts[-1], path.rpartition(".")[0]
        if last == "out" and outer in self.along:
            return self._dot(self.at(path), self.along[outer]), ()
        if path == self._first:
            return self._dot(self.at(path), self.along[""]), ()
        if path == "embed.out":
            return self._dot(self.at(path), self.along[""]) * self._embedding(), ()
        block = next((b for b in self.model.anatomy.main.blocks if path.startswith(b.path + ".")), None)
        write = block.write(str(site.parts[-2])) if block is not None and len(site.parts) > 1 else None
        found = {"z": self._heads, "act": self._neurons, "pattern": self._sources}.get(str(last))
        if write is None or found is None:
            raise Unserved(
                f"{path} does not write into the stream by itself; heads (attn.z), neurons (mlp.act), attn.out and mlp.out do."
            )
        return found(path, outer, write)

    def labels(self, path: str, axis: str, entries: list[int]) -> list[str]:
        """Words for the entries of an axis: the tokens, where they are those of one prompt."""
        ids = self.inputs.ids(path, axis) if axis == "key" and self.inputs.batch == 1 else []
        if axis != "key" or len(ids) != self.run.stored(Site.parse(path))[0].shape[-1]:
            return [str(i) for i in entries]
        words = self.run.reader.words(ids)
        return [f"{i} {words[i].strip() or repr(words[i])}" for i in entries]

    def grid(self, cells: Cells, axes: tuple[str, ...], labels: dict[str, list[str]], title: str) -> Grid:
        """The cells averaged over prompts, with the metric they are parts of."""
        cells = cells.detach()
        baseline = {"metric": float(self.value.mean())}
        return Grid(cells.mean(0), axes, labels, unit="logits", title=title, each=cells, baseline=baseline,
                    note="The scale of each norm is held at its value in this run.")  # fmt: skip

    def _heads(self, path: str, outer: str, write: Write) -> tuple[Float[Tensor, "batch head"], tuple[str, ...]]:
        into = self._into(outer, write)
        read = torch.einsum("hed,bd->bhe", self.model.weights[f"{outer}.W_O"].float(), into)
        return (self.at(path) * read).sum(-1), ("head",)

    def _neurons(self, path: str, outer: str, write: Write) -> tuple[Float[Tensor, "batch neuron"], tuple[str, ...]]:
        return self.at(path) * (self._into(outer, write) @ self.model.weights[f"{outer}.W_out"].float().T), ("neuron",)

    def _sources(self, path: str, outer: str, write: Write) -> tuple[Float[Tensor, "batch head key"], tuple[str, ...]]:
        """What each head brings from each token: pattern times value, through the output matrix."""
        if f"{outer}.gate" in self.model.anatomy.places:
            raise Unserved(f"{path}: a gate stands between the pattern and the output matrix; take {outer}.z instead.")
        pattern = self.run[path][range(len(self.rows)), :, self.rows].float()
        values = self.run[f"{outer}.v"].float().repeat_interleave(write.heads // write.kv_heads, dim=2)
        read = torch.einsum("hed,bd->bhe", self.model.weights[f"{outer}.W_O"].float(), self._into(outer, write))
        return torch.einsum("bhk,bkhe,bhe->bhk", pattern, values, read), ("head", "key")

    def _into(self, outer: str, write: Write) -> Directions:
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

    @property
    def _first(self) -> str:
        return f"{self.model.anatomy.main.blocks[0].path}.in"

    def _embedding(self) -> float:
        """The factor between the token embedding and the first block, found by nudging; a norm there is refused."""
        generator = torch.Generator().manual_seed(0)
        before = self.run[self._first].float()
        nudge = torch.randn(self.run["embed.out"].shape, generator=generator).to(before) * self.run["embed.out"].float().std()
        moved = self.model.edit(Edit("embed.out", lambda value: value + nudge.to(value.dtype)))
        change = moved.run(self.inputs, self._first, logits=False)[self._first].float() - before
        factor = float((change * nudge).sum() / (nudge * nudge).sum())
        if (change - factor * nudge).norm() > (1e-2 if self.model.dtype == torch.float32 else 5e-2) * change.norm():
            raise Unserved(f"embed.out reaches the first block through more than a factor; take {self._first} instead.")
        return factor

    @staticmethod
    def _dot(value: Directions, direction: Directions) -> PerPrompt:
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


def _direction(model: Model, inputs: Inputs, end: str, metric: Metric, run: Run) -> tuple[Directions, PerPrompt]:
    """How the metric reads the last places of the stream, and what it is when nothing is there."""
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


def _logit(at: Answers, ids: Int[Tensor, " batch"]) -> PerPrompt:
    return at.gather(-1, ids[:, None])[:, 0]


def _each(metric: Metric):
    return lambda logits: metric(logits)


def _through(model: Model, run: Run, rows: Int[Tensor, " batch"], block: Block, top: Directions, biases: PerPrompt,
             along: dict[str, Directions]) -> tuple[Directions, PerPrompt]:  # fmt: skip
    """Back through one block: where each of its writes is read, and the direction before it."""
    streams = _streams(model, run, rows, block)
    for step, before, after in reversed(list(zip(block.steps, streams, streams[1:]))):
        if step.kind == "write":
            along.update({f"{block.path}.{name}": top for name in step.writes})
        elif step.kind == "scale":
            top = top * step.factor
        elif step.kind == "shift":
            biases = biases + top @ (step.shift + torch.zeros_like(top[0]))
        else:
            norm = model.weights.norm(step.norm)
            biases = biases + top @ norm.bias
            top = norm.pull_back(top, norm.scale(before, after))
    return top, biases


def _streams(model: Model, run: Run, rows: Int[Tensor, " batch"], block: Block) -> list[Directions]:
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
        elif step.kind == "shift":
            stream = stream + step.shift
        else:
            with torch.no_grad():
                stream = normed(model.hf.get_submodule(step.norm), stream[:, None])[:, 0]
        found.append(stream.float())
    return found
