"""Model: a Hugging Face model in place, plus its edits. A value: editing gives another model on the same weights.

run        one forward pass, and whatever activations are asked for
edit       the same model with changes
generate   text, with the edits holding at every token
sites      every place there is
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from patchclamp.core.edit import Edit
from patchclamp.core.errors import UnknownSite, Unserved, WrongAxis
from patchclamp.core.metric import Metric
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.model.anatomy import Anatomy
from patchclamp.model.body import Body
from patchclamp.model.forward import Forward
from patchclamp.model.inputs import Inputs, Prompt, device_of, find_logits, prepare, takes
from patchclamp.model.sites import SiteTable
from patchclamp.model.tokens import Tokenizer, token
from patchclamp.model.weights import Weights, changed, of_weights, overlay

Sites = str | Site | Iterable[str | Site]
"""One site or pattern, or several."""


@dataclass(frozen=True, eq=False)
class Model:
    """Made by `pc.load`. Two models are equal where they share a module and hold the same edits.

    >>> model.layers, model.heads, model.width
    (4, 8, 128)
    >>> without = model.edit(pc.zero("blocks.1.attn.out"))
    >>> without.hf is model.hf, without == model
    (True, False)
    """

    body: Body
    edits: tuple[Edit, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.body is other.body and self.edits == other.edits

    def __hash__(self) -> int:
        return hash((id(self.body), self.edits))

    def __repr__(self) -> str:
        edits = f" edited by {', '.join(map(repr, self.edits))}" if self.edits else ""
        return f"Model({self.name}{edits})"

    @property
    def hf(self) -> nn.Module:
        """The module itself, as it was loaded."""
        return self.body.module

    @property
    def name(self) -> str:
        return self.body.name

    @property
    def tokenizer(self) -> Tokenizer:
        return self.body.tokenizer

    @property
    def run_reader(self) -> _Lazy:
        """What turns the ids of this model's runs into words, once somebody looks."""
        return _Lazy(self.body)

    @property
    def anatomy(self) -> Anatomy:
        """Where every place is; read from one small pass on first need."""
        return self.body.anatomy

    @property
    def width(self) -> int:
        """Numbers in the residual stream."""
        return self.anatomy.main.width

    @property
    def layers(self) -> int:
        """Blocks of the stack that leads to the output."""
        return len(self.anatomy.main.blocks)

    @property
    def heads(self) -> int:
        """Attention heads a block (of the first block that has attention)."""
        return next((w.heads for b in self.anatomy.main.blocks for w in b.writes if w.name == "attn"), 0)

    @property
    def device(self) -> torch.device:
        return device_of(self.hf)

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.hf.parameters()), torch.float32)

    @cached_property
    def sites(self) -> SiteTable:
        """Every place: its axes and its shape."""
        inner = [
            f"{p}.{w}" for e in self.edits if e.kind == "splice" for p in self.places(e.site) for w in ("latents", "error")
        ]
        return SiteTable(self.name, self.anatomy, (*self.anatomy.places, *inner))

    @cached_property
    def weights(self) -> Weights:
        """The weights under canonical names, as this model (with its edits) has them."""
        return Weights(self.hf, self.anatomy, self._changed)

    def places(self, site: str | Site) -> tuple[str, ...]:
        """The concrete sites that a site or pattern names."""
        site = Site.parse(site)
        if of_weights(site):
            return tuple(Weights(self.hf, self.anatomy, {}).places(site.bare()))
        if site.parts[-1] in ("latents", "error") and not site.raw:
            return self._inner(site)
        return self.body.expand(site.bare())

    def _inner(self, site: Site) -> tuple[str, ...]:
        outer = Site(site.parts[:-1])
        spliced = [p for e in self.edits if e.kind == "splice" for p in self.places(e.site)]
        found = [p for p in self.body.expand(outer) if p in spliced]
        if not found:
            raise UnknownSite(f'no dictionary is spliced at "{outer}"; model.edit(pc.splice("{outer}", dictionary)) opens it.')
        return tuple(f"{p}.{site.parts[-1]}" for p in found)

    # ---- the four verbs ------------------------------------------------------------------------------------------

    def edit(self, *edits: Edit) -> Model:
        """The same model with these changes, after those it already has. The weights are shared; this model is as before."""
        model = self
        for edit in edits:
            if not isinstance(edit, Edit):
                raise TypeError(f"model.edit takes edits such as pc.zero(site); got {type(edit).__name__}.")
            model = replace(model, edits=(*model.edits, edit))
            model._check(edit)
        return model

    @torch.no_grad()
    def run(self, prompt: Prompt, keep: Sites = (), *, logits: bool = True, grad: bool = False, bos: bool | None = None,
            decoder: Prompt = None) -> Run:  # fmt: skip
        """One forward pass over a prompt, several, ids, a chat, or a processor's output.

        `keep` names the activations to keep. With `logits=False` the pass stops as soon as they are there. With
        `grad=True` the run can be asked for the gradient of a metric at every place kept. `bos` overrides what the
        tokenizer does about the beginning-of-sequence token; `decoder` is what an encoder-decoder has written so far.

        >>> model.run(clean, keep="blocks.*.out", logits=False)
        Run(15 tokens, kept 4 places)
        """
        inputs = self.inputs(prompt, bos, decoder)
        forward = self.forward(inputs, keep, grad=grad, stop=not logits)
        output = forward.run(lambda: self.call(inputs, grad))
        return self.result(inputs, forward, find_logits(output))

    @torch.no_grad()
    def generate(
        self, prompt: Prompt, max_new_tokens: int = 20, keep: Sites = (), *, bos: bool | None = None, **sampling: Any
    ) -> Run:
        """Continue a prompt, the edits holding at every token; greedy unless `do_sample=True` and its kin say otherwise.

        What comes back is a run over prompt and continuation: `print(run)`, `run.new`, and the activations kept at each
        token. Further arguments go to the Hugging Face model's own `generate`.

        >>> model.generate(clean, 1).new
        ('Mary',)
        """
        from patchclamp.model.generate import generate

        return generate(self, prompt, max_new_tokens, keep, bos, sampling)

    # ---- what they are made of -----------------------------------------------------------------------------------

    def inputs(self, prompt: Prompt, bos: bool | None = None, decoder: Prompt = None) -> Inputs:
        """A prompt as the module takes it; what this made before is taken as it is."""
        if isinstance(prompt, Inputs):
            return prompt
        return prepare(self.hf, lambda: self.tokenizer, lambda: self.body.padding, prompt, bos, decoder)

    def forward(self, inputs: Inputs, keep: Sites = (), **options: Any) -> Forward:
        """A pass being prepared: the edits in place, and what is to be kept."""
        keeps = [] if not keep else [Site.parse(s) for s in ([keep] if isinstance(keep, (str, Site)) else keep)]
        forward = Forward(self.hf, lambda: self.anatomy, inputs.windows, inputs.batch, **options)
        for edit in self.edits:
            if not of_weights(edit.site):
                for path in self.places(edit.site):
                    forward.edit(path, edit)
        forward.overlay = self._overlay
        for site in keeps:
            if of_weights(site):
                raise Unserved(f'{site} is a weight, the same in every run; read it with model.weights["{site}"].')
            for path in self.places(site):
                forward.keep(path, site)
        return forward

    def call(self, inputs: Inputs, grad: bool = False, **more: Any) -> Any:
        """The module's own forward."""
        if takes(self.hf, "use_cache"):
            more.setdefault("use_cache", False)
        with torch.set_grad_enabled(grad):
            return self.hf(**inputs.arguments, **more)

    def result(self, inputs: Inputs, forward: Forward, output: Tensor | None, **more: Any) -> Run:
        """The run that a pass leaves behind."""
        answers = inputs.answers(self.tokenizer) if _masks(self.hf) else None
        return Run(
            inputs.tokens,
            inputs.windows,
            forward.kept,
            output,
            answers,
            reader=self.run_reader,
            model=self.name,
            **more,
        )

    def token(self, word: str | int) -> int:
        """The id of a word that is one token."""
        return token(self.tokenizer, word)

    def metric(self, metric: Any, run: Run | None = None) -> Any:
        """A metric with its words turned into ids, reading the place where this run's prompts are answered."""
        if not isinstance(metric, Metric):
            return metric
        last = [] if run is None or not run.tokens.shape[1] else run.last
        elsewhere = any(column + 1 != run.tokens.shape[1] for column in last) if run is not None else False
        return metric.bind(self.token, last if elsewhere else None)

    def bake(self) -> Model:
        """The edits written into a copy of the weights: an ordinary module, which saves and loads anywhere.

        Edits of weights are written as they are; of activations only those that are the same as a change of weights
        (zeroed heads, neurons, attention or feed-forward layers; directions taken out of what layers write).
        `model.bake().hf.save_pretrained(folder)` keeps it.
        """
        from patchclamp.model.bake import bake

        return bake(self)

    @cached_property
    def _changed(self) -> dict[str, Tensor]:
        """The parameters that weight edits change, by name: their new values."""
        return changed(self.hf, self.anatomy, [e for e in self.edits if of_weights(e.site)]) if self.edits else {}

    @cached_property
    def _overlay(self) -> dict[tuple[int, bool], Tensor]:
        return overlay(self.hf, self._changed)

    def _check(self, edit: Edit) -> None:
        """An edit that names no place, or an axis the place has not, is an error now, not when it fails to fire."""
        for path in self.places(edit.site)[:1]:
            axes = self._axes(path)
            for axis, _ in edit.site.index if axes else ():
                if axis not in axes:
                    raise WrongAxis(f'{edit.site} has no axis "{axis}"; its axes are {" ".join(axes)}.')

    def _axes(self, path: str) -> tuple[str, ...]:
        """The axes of a concrete site, where the anatomy knows them."""
        if path in self.anatomy.places:
            return self.anatomy.places[path].axes
        return Weights(self.hf, self.anatomy, {}).entries[path].axes if of_weights(Site.parse(path)) else ()


@dataclass(frozen=True)
class _Lazy:
    """The body's reader, its tokenizer loaded when a word is wanted."""

    body: Body

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        return self.body.reader.words(ids)

    def text(self, ids: Sequence[int]) -> str:
        return self.body.reader.text(ids)

    def vocabulary(self, size: int) -> Sequence[str]:
        return self.body.reader.vocabulary(size)


def _masks(module: nn.Module) -> bool:
    """Whether a model is of the kind that fills in masked tokens."""
    return "MaskedLM" in type(module).__name__ or (hasattr(module, "can_generate") and not module.can_generate())  # type: ignore[operator]
