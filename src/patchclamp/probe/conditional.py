"""Conditional steering: a model is steered on those prompts only that a condition holds for (CAST, Lee et al. 2024).

At one site the prompt is looked at: how far its activations, averaged over its tokens, lie along a condition's direction. Above
a threshold the edits hold, for this prompt and for all that is generated after it; below, nothing is changed, bit for bit.
Prompts of one batch are judged one by one.

The paper compares by cosine after a tanh; here it is the plain projection, so that `condition.middle`, halfway between the two
kinds that the direction was made from, is the threshold to begin with. It should be read as it was found: `pooled` over the
prompt's tokens, or, with `pos=-1` in the site, at the last one.

What it does not know: a prompt that goes on. It is judged when it is read, not by what is generated; without a key-value cache,
where all is read again at each token, what was generated counts as prompt.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import Part
from patchclamp.core.edit import Edit, Here
from patchclamp.core.errors import WrongAxis, WrongPrompt
from patchclamp.core.site import Site
from patchclamp.probe.direction import Direction
from patchclamp.probe.steering import ends, own_positions


@dataclass(eq=False)
class Verdicts:
    """What was decided about the prompts of the pass that is running; each thread has its own."""

    own: threading.local = field(default_factory=threading.local)

    def write(self, rows: Tensor) -> None:
        """Keep the verdict on each row."""
        self.own.rows = rows

    def read(self, rows: int, here: Here) -> Tensor:
        """The verdict on each row of a value."""
        known: Tensor | None = getattr(self.own, "rows", None)
        if known is None or len(known) != rows:
            raise RuntimeError(f"{here.site} is to be steered before the condition was looked at, or for other prompts.")
        return known


def conditional(site: str | Site, condition: Direction | Float[Tensor, " d"], edits: Edit | tuple[Edit, ...], *,
                above: float = -math.inf, below: float = math.inf) -> tuple[Edit, ...]:  # fmt: skip
    """Edits that hold only on prompts whose projection on a direction, at a site, lies `above` and `below` some numbers.

    The site comes before the edits in the model. Without `above` and `below`, a direction's own middle is the threshold.

    >>> from patchclamp.probe.conditional import conditional
    >>> shows, good, bad = ("film", "play"), ("lovely", "superb", "perfect"), ("dull", "boring", "terrible")
    >>> liked, disliked = ([f"The {show} was {word}. We went home" for show in shows for word in said] for said in (good, bad))
    >>> joy = pc.contrast(model, "blocks.*.out", liked, disliked)
    >>> sober = conditional("blocks.1.out[pos=-1]", joy.at(layer=1), pc.steer("blocks.2.out", -1.5 * joy.at(layer=2)))
    >>> happy, sad = "The film was lovely. We went home", "The film was dull. We went home"
    >>> run = model.edit(*sober).run([happy, sad])
    >>> torch.equal(run.logits[1], model.run([happy, sad]).logits[1])
    True
    >>> run.next().at(prompt=0).top(1)[0][0]
    {'vocab': ' bored'}
    """
    looked = Site.parse(site)
    edits = (edits,) if isinstance(edits, Edit) else tuple(edits)
    if (above, below) == (-math.inf, math.inf):
        if not isinstance(condition, Direction):
            raise WrongPrompt("a condition that is a bare vector has no middle; say above= or below= which projection it holds")
        above = float(condition.middle)
    if any(value not in (-1,) for axis, value in looked.index if axis == "pos"):
        raise WrongAxis(f"{looked}: a condition reads the prompt's last token, pos=-1, or without pos all of them.")
    vector = condition.vector if isinstance(condition, Direction) else torch.as_tensor(condition)
    verdicts = Verdicts()
    params = {"vector": vector, "above": above, "below": below, "verdicts": verdicts}
    for edit in edits:
        if "pos" in dict(edit.site.index):
            raise WrongAxis(f"{edit.site}: a conditional edit holds at all tokens of the prompts it is for; leave pos out.")
        if looked.layer is not None and edit.site.layer is not None and looked.layer > edit.site.layer:
            raise WrongAxis(f"{edit!r} comes before its condition, {looked}; look at an earlier layer.")
    whole = Site(looked.parts, tuple((a, v) for a, v in looked.index if a != "pos"), looked.raw)
    look = Edit(whole, _look, "condition", {**params, "last": looked.index != whole.index})
    return look, *(Edit(edit.site, _where, f"conditional {edit.kind}", {"edit": edit, "verdicts": verdicts}) for edit in edits)


def _look(value: Part, here: Here, vector: Tensor, above: float, below: float, verdicts: Verdicts, last: bool) -> Part:
    """Judge the prompts while they are read; changes nothing."""
    window = here.windows["pos"]
    if window.start:
        return value  # tokens generated later
    along = value.float() @ vector.to(value.device, torch.float32)
    at = own_positions(value, here)
    columns, end = torch.arange(value.shape[1], device=value.device)[None], ends(value, here)
    counts = columns == end if last else (at >= 0) & (columns <= end)
    mean = (along * counts).sum(1) / counts.sum(1)
    verdicts.write((mean > above) & (mean < below))
    return value


def _where(value: Part, here: Here, edit: Edit, verdicts: Verdicts) -> Part:
    rows = verdicts.read(value.shape[0], here)
    if not bool(rows.any()):
        return value
    made = edit.change(value) if edit.kind == "function" else edit.change(value, here=here, **edit.params)
    return torch.where(rows.reshape(-1, *[1] * (value.ndim - 1)), made.to(value.dtype), value)
