"""Shortest: as little of a text as keeps a unit active, and which of its tokens it takes.

A text is cut off before the token at which the unit is active as far as most of the activation is kept, and then every other
token is replaced by tokens drawn by lot: what is missed when it is replaced is part of the pattern, the rest may be anything.
Foote et al. 2023, "Neuron to graph", cut and mask in this way; their model of what else may stand in a place is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from patchclamp.core.errors import WrongPrompt
from patchclamp.model.activating import BATCH, Example, read
from patchclamp.model.ordinary import lead, ordinary
from patchclamp.picture import Tokens

if TYPE_CHECKING:
    from patchclamp.model.model import Model


@dataclass(frozen=True)
class Shortest:
    """What is left of a text, up to the token at which the unit is active."""

    words: tuple[str, ...]
    importance: tuple[float, ...]
    """For each token, the share of the activation that is lost when it is replaced."""
    value: float
    """The activation on what is left."""
    whole: float
    """The activation on the whole text."""
    least: float
    """The share that was to be kept."""

    @property
    def pattern(self) -> tuple[str | None, ...]:
        """The tokens it takes, and None where anything may stand."""
        return tuple(w if lost > 1 - self.least else None for w, lost in zip(self.words, self.importance))

    def __str__(self) -> str:
        return "".join(" …" if w is None else w for w in self.pattern).strip()

    def picture(self) -> Tokens:
        """The tokens, coloured by what is lost without them."""
        return Tokens(self.words, torch.tensor(self.importance).clamp(0, 1).numpy(), "share lost", "sequential", (0.0, 1.0),
                      title=str(self), note=f"{self.value:.3g} of {self.whole:.3g} is left.")  # fmt: skip


def shortest(
    model: Model,
    site: str,
    example: Example,
    *,
    along: Tensor | None = None,
    unit: int | None = None,
    least: float = 0.8,
    draws: int = 8,
    seed: int = 0,
) -> Shortest:
    """Cut one example down, keeping the share `least` of its activation.

    `site` names one unit (`blocks.1.mlp.act[neuron=7]`), or several and `unit` one of them. A token of the beginning, which the
    tokenizer puts before a text, stays where it is. Replaced tokens are drawn from the vocabulary, `draws` times each.

    >>> from patchclamp.model.activating import activating
    >>> from patchclamp.model.shortest import shortest
    >>> found = activating(model, "blocks.1.mlp.act[neuron=3]", [clean, corrupt])
    >>> cut = shortest(model, "blocks.1.mlp.act[neuron=3]", found.examples(model, 0)[0])
    >>> cut.value >= 0.8 * cut.whole
    True
    """
    ids, whole = list(example.ids[: example.pos + 1]), example.value
    if not 0 < least <= 1:
        raise WrongPrompt(f"least is the share of the activation to be kept, above 0 and up to 1; got {least}.")
    if whole <= 0:
        raise WrongPrompt(f"the unit's activation on this text is {whole:.3g}; there is nothing to keep.")
    first_own = int(ids[0] == lead(model) and len(ids) > 1)
    cuts = [ids[:first_own] + ids[first:] for first in range(len(ids) - 1, first_own - 1, -1)]
    values = _at_the_end(model, site, cuts, along, unit)
    first = next((n for n, v in enumerate(values) if v >= least * whole), len(cuts) - 1)
    kept, value = cuts[first], values[first]
    known, generator = ordinary(model), torch.Generator().manual_seed(seed)
    lots = known[torch.randint(len(known), (len(kept), draws), generator=generator)]
    changed = [kept[:i] + [int(t)] + kept[i + 1 :] for i in range(first_own, len(kept)) for t in lots[i]]
    without = torch.tensor(_at_the_end(model, site, changed, along, unit)).view(-1, draws).mean(1)
    lost = [0.0] * first_own + (1 - without / value).tolist()
    return Shortest(tuple(model.run_reader.words(kept)), tuple(lost), value, whole, least)


def _at_the_end(model: Model, site: str, prompts: Sequence[list[int]], along: Tensor | None, unit: int | None) -> list[float]:
    found = []
    for n in range(0, len(prompts), BATCH):
        for values in read(model, site, prompts[n : n + BATCH], along):
            if values.shape[1] > 1 and unit is None:
                raise WrongPrompt(f"{site} names {values.shape[1]} units; say unit=, or name one.")
            found.append(float(values[-1, unit or 0]))
    return found
