"""Patchscopes: a model is asked, in words, what a vector means.

Ghandeharioun et al. 2024. The stream at one token of a source prompt is put in the place of a token of another prompt, at a
layer of choice, and the model goes on from there. With a prompt that repeats what it is given ("cat -> cat; 1135 -> 1135; ?")
it names the token that the vector holds; with others it describes it. Put in after the last block at the last token, it is
the logit lens, exactly; through a map, one model reads another. What it cannot tell apart: what the vector holds, and what
the reader makes up; a control is the same prompt with a vector of another token, or none (`Inspection.plain`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import Directions
from patchclamp.core.edit import patch
from patchclamp.core.errors import ShapeMismatch, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.lenses.affine import Affine
from patchclamp.model.gather import every
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model

IDENTITY = "cat -> cat\n1135 -> 1135\nhello -> hello\n?"
"""The paper's prompt that asks for a token to be said again: its last token gives way to the vector."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """A prompt with a place in it, to which vectors are brought: `into` names one token, `blocks.2.out[pos=-1]`.

    >>> from patchclamp.lenses.patchscope import Inspection
    >>> asks = Inspection(model, "When Mary and John went to the store, Mary gave a drink to", "blocks.0.in[pos=4]")
    >>> asks.read(model, "Alice said that she was happy.", "blocks.0.in[pos=1]", new=1).new
    ('Alice',)
    """

    reader: Model
    prompt: Prompt
    into: str | Site
    through: Callable[[Tensor], Tensor] | None = None
    """From the source's stream to the reader's, where they are not the same: any map, e.g. `mapping(...)`."""

    def read(self, model: Model, prompt: Prompt, source: str | Site, new: int = 10) -> Run:
        """What the reader writes, greedily, given the vector at `source` (`blocks.5.out[pos=3]`) of a prompt in a model."""
        vector = _vectors(model, prompt, [_fixed(source)])[0]
        return self.given(vector).generate(self.prompt, new)

    def given(self, vector: Directions | Float[Tensor, " d_model"]) -> Model:
        """The reader as it is with a vector put in."""
        vector = vector if self.through is None else self.through(vector)
        if vector.shape[-1] != self.reader.width:
            raise ShapeMismatch(
                f"a vector of {vector.shape[-1]} numbers does not fit {self.reader.name}, which has {self.reader.width}; "
                "give a map between the two: through=mapping(...)."
            )
        return self.reader.edit(patch(self.place, vector))

    def plain(self, new: int = 10) -> Run:
        """What the reader writes with nothing put in: the control."""
        return self.reader.generate(self.prompt, new)

    def grid(self, model: Model, prompt: Prompt, source: str | Site = "blocks.*.out[pos=-1]") -> Grid:
        """What the reader says next for every layer of the source and every layer of `into`: Grid(source, target).

        Either site may have a star over blocks. Values are the probability of the top token, `Grid.text` names it.

        >>> from patchclamp.lenses.patchscope import Inspection
        >>> asks = Inspection(model, "When Mary and John went to the store, Mary gave a drink to", "blocks.*.in[pos=4]")
        >>> asks.grid(model, "Alice said that she was happy.", "blocks.*.in[pos=1]").shape
        {'source': 4, 'target': 4}
        """
        source = Site.parse(source)
        paths, targets = model.places(source), self.reader.places(Site.parse(self.into))
        vectors = _vectors(model, prompt, [Site(Site.parse(p).parts, source.index) for p in paths])
        copies, rows = _copies(self.reader, self.prompt, len(vectors)), []
        for target in targets:
            asked = replace(self, into=Site(Site.parse(target).parts, self.place.index))
            run = asked.given(vectors).run(copies)
            rows.append(run.logits[range(len(vectors)), run.last].float().softmax(-1))
        said = torch.stack(rows, 1).max(-1)
        words = self.reader.run_reader.vocabulary(rows[0].shape[-1])
        labels = {"source": [_short(p) for p in paths], "target": [_short(t) for t in targets]}
        return Grid(said.values.cpu(), ("source", "target"), labels, unit="probability", title="Patchscope", scale="sequential",
                    text=[[words[t] for t in row] for row in said.indices.tolist()])  # fmt: skip

    @property
    def place(self) -> Site:
        """`into` with its token counted from the beginning: while generating, the newest token is another at every step."""
        site = Site.parse(self.into)
        pos = dict(site.index).get("pos")
        if not isinstance(pos, int):
            raise WrongAxis(f"{site} is to take the place of one token; say which: {site.path}[pos=-1].")
        length = len(self.reader.inputs(self.prompt).windows[""].tokens(0))
        return site.at(pos=pos if pos >= 0 else length + pos)


def patchscope(
    model: Model,
    prompt: Prompt,
    source: str | Site,
    asking: Prompt,
    into: str | Site,
    *,
    reader: Model | None = None,
    through: Callable[[Tensor], Tensor] | None = None,
    new: int = 10,
) -> Run:
    """The vector at `source` of a prompt, put into another prompt at `into`, and what is written then: `run.new`.

    The reader is the model itself, or another one, with a map `through` where their streams differ.

    >>> from patchclamp.lenses.patchscope import patchscope
    >>> asking = "When Mary and John went to the store, Mary gave a drink to"
    >>> patchscope(model, "Yesterday Oscar came home.", "blocks.0.out[pos=2]", asking, "blocks.0.out[pos=4]", new=1).new
    ('Oscar',)
    """
    return Inspection(reader or model, asking, into, through).read(model, prompt, source, new)


def mapping(model: Model, site: str | Site, reader: Model, into: str | Site, texts: list) -> Affine:
    """The affine map, fitted by least squares, from a place of one model to a place of another, over all tokens of some texts.

    Both must cut a text into the same tokens.

    >>> from patchclamp.lenses.patchscope import mapping
    >>> mapping(model, "blocks.1.out", model, "blocks.1.out", [clean, corrupt]).weight.shape
    torch.Size([128, 128])
    """
    ours, theirs = every(model, site, texts), every(reader, into, texts)
    if not torch.equal(ours.prompt, theirs.prompt) or not torch.equal(ours.pos, theirs.pos):
        raise ShapeMismatch(
            f"{model.name} and {reader.name} cut these texts into different tokens, so theirs cannot be paired."
        )
    return Affine.fit(ours.value, theirs.value)


def _vectors(model: Model, prompt: Prompt, sites: list[Site]) -> Float[Tensor, "site d_model"]:
    """The stream at each of some sites of one prompt."""
    run = model.run(prompt, sites, logits=False)
    if run.tokens.shape[0] > 1:
        raise WrongAxis(f"a vector comes from one prompt; got {run.tokens.shape[0]}.")
    return torch.cat([run[site] for site in sites])


def _fixed(source: str | Site) -> Site:
    site = Site.parse(source)
    if site.stars or not isinstance(dict(site.index).get("pos"), int):
        raise WrongAxis(
            f"{site} names no single vector; take one layer and one token, blocks.5.out[pos=-1], or ask for the grid."
        )
    return site


def _copies(model: Model, prompt: Prompt, n: int) -> Tensor:
    """The prompt's ids n times over."""
    return model.inputs(prompt).tokens[:1].expand(n, -1)


def _short(path: str) -> str:
    return path.removeprefix("blocks.")
