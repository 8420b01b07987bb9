"""The tuned lens: for every layer an affine map that carries the stream into the basis that the model's end reads.

Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens". The logit lens reads every layer as
if it were the last; where a model turns, stretches or shifts its stream on the way, that says more about the lens than about
the layer. A tuned lens learns each layer's map by distillation: its reading is to be the model's own answer. What it shows is
what an affine map can make of a layer, which is more than the layer's own basis says and may be more than the model uses there
(`causal_basis` asks).

As in the authors' package, the map is added to the stream, `h + (h A^T + b)`, so that nothing learnt is the logit lens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.lenses.tuning import Choose, Plan, Texts, Translators, fingerprint, sgd, tuning
from patchclamp.model.model import Model


@dataclass(frozen=True, eq=False)
class TunedLens:
    """A translator for the input of every block; `pc.lens(model, prompt, through=tuned)` reads through it.

    >>> from itertools import islice
    >>> from patchclamp.specimens.town.corpus import documents
    >>> from patchclamp.specimens.town.world import town
    >>> tuned = pc.TunedLens.train(model, documents(town(0), "a lens"), steps=10, batch=8)
    >>> held_out = list(islice(documents(town(0), "held out"), 20))
    >>> bits = tuned.evaluate(model, held_out)
    >>> bits.axes, bool((bits.at(lens="tuned").values < bits.at(lens="logit").values).all())
    (('lens', 'layer'), True)
    """

    weight: Float[Tensor, "layer d_model d_model"]
    """What is added to the stream at the input of each block: a matrix, rows first as in `torch.nn.Linear`, ..."""
    bias: Float[Tensor, "layer d_model"]
    """... and a vector."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The model it was trained on, how, and for how many steps."""
    title: ClassVar[str] = "Tuned lens"
    history: Float[Tensor, "step layer"] | None = None
    """KL(output || reading) in nats, of every step's text before the step was taken."""

    @classmethod
    def train(
        cls,
        model: Model,
        texts: Texts,
        steps: int = 250,
        batch: int = 64,
        optimizer: Choose = sgd,
        warmup: float = 0.0,
        precision: torch.dtype = torch.float32,
        folder: str | Path | None = None,
    ) -> TunedLens:
        """Train on a stream of texts (strings or token ids), `batch` of them a step, until the steps are done.

        The rate falls in a straight line to nothing at the last step, after rising for a share `warmup` of them. With a
        `folder` the training is kept there every half minute and when it is stopped; the same call then goes on, provided
        that the texts begin anew as they did before. `precision` is what logits are computed in meanwhile; bfloat16 is what
        the authors' package takes, and faster where the processor has it.
        """
        *_, last = cls.stages(model, texts, steps, steps, batch, optimizer, warmup, precision, folder)
        return last

    @classmethod
    def stages(
        cls,
        model: Model,
        texts: Texts,
        every: int,
        steps: int = 250,
        batch: int = 64,
        optimizer: Choose = sgd,
        warmup: float = 0.0,
        precision: torch.dtype = torch.float32,
        folder: str | Path | None = None,
    ) -> Iterator[TunedLens]:
        """The lens after every so many steps, to be looked at while it is trained; leaving the loop stops the training.

        >>> from patchclamp.specimens.town.corpus import documents
        >>> from patchclamp.specimens.town.world import town
        >>> for tuned in pc.TunedLens.stages(model, documents(town(0), "a lens"), every=2, steps=8, batch=8):
        ...     if float(tuned.history[-1].sum()) < 12:
        ...         break
        >>> tuned.about["steps"]
        4
        """
        plan = Plan(steps, batch, optimizer, warmup, precision=precision)
        for done, made in tuning(model, texts, plan, every, Path(folder) if folder is not None else None):
            yield cls._of(model, made, done)

    @classmethod
    def untrained(cls, model: Model) -> TunedLens:
        """The lens that changes nothing: the logit lens.

        >>> pc.TunedLens.untrained(model)("blocks.1.in", torch.ones(128)).unique()
        tensor([1.])
        """
        return cls._of(model, Translators(model.layers, model.width, 0), 0)

    @classmethod
    def _of(cls, model: Model, made: Translators, steps: int) -> TunedLens:
        weight, bias, history = (t.detach().cpu().clone() for t in (made.weight, made.bias, made.history[:steps]))
        return cls(weight, bias, {"model": model.name, "unembedding": fingerprint(model), "steps": steps}, history)

    def __call__(self, path: str, stream: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The stream at the input or the output of a block, as the model's end would read it; the last output as it is."""
        layer = self._layer(path)
        if stream.shape[-1] != self.bias.shape[-1]:
            raise ShapeMismatch(
                f"{path} has width {stream.shape[-1]} and this lens {self.bias.shape[-1]}: it was trained on "
                f"{self.about.get('model', 'another model')}."
            )
        if layer == len(self.bias):
            return stream
        return self.translated(layer, stream.float()).to(stream.dtype)

    def translated(self, layer: int, stream: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """The input of a block, in single precision, as the model's end would read it."""
        weight, bias = self.weight[layer].to(stream.device), self.bias[layer].to(stream.device)
        return stream + torch.nn.functional.linear(stream, weight, bias)

    def evaluate(self, model: Model, texts: Texts, batch: int = 64) -> Grid:
        """How far readings are from the output, through the logit lens and through this one: Grid(lens, layer) in bits.

        See `patchclamp.lenses.evaluate`. The model may be another of the same shape: a fine-tune, an earlier checkpoint.
        """
        from patchclamp.lenses.evaluate import evaluate

        return evaluate({"logit": TunedLens.untrained(model), "tuned": self}, model, texts, batch)

    def save(self, folder: str | Path) -> Path:
        """Write to a folder: numbers as safetensors, the rest as a readable card."""
        from patchclamp.lenses import tuned_format

        return tuned_format.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> TunedLens:
        """Read what `save` wrote. `tuned_format.read` opens lenses of the `tuned-lens` package."""
        from patchclamp.lenses import tuned_format

        return tuned_format.load(folder)

    def _layer(self, path: str) -> int:
        """Which block's input a place is; the number of blocks for the last one's output."""
        site = Site.parse(path)
        side = site.parts[-1]
        if site.layer is None or len(site.parts) != 3 or side not in ("in", "out"):
            raise Unserved(f"a tuned lens reads the stream between blocks, blocks.*.in or blocks.*.out; {path} is neither.")
        layer = site.layer + (side == "out")
        if layer > len(self.bias) - (side == "in"):
            raise Unserved(f"{path} is beyond this lens, which was trained on a model of {len(self.bias)} blocks.")
        return layer
