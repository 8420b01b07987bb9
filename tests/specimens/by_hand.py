"""Patching by hand, with nothing but PyTorch hooks, to hold the toolkit's own sweeps against.

The residual stream of the clean prompt is put into a run of the corrupt one, one layer and one position at a time. A cell
is the share of the lost logit difference that comes back.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import torch

from patchclamp.specimens.town import gifts
from patchclamp.specimens.town.item import pick
from patchclamp.specimens.town.lexicon import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from patchclamp.specimens.town.item import Item


PROMPTS, ANSWERS = ("clean", "corrupt"), ("answer", "wrong")


def pairs_like_the_classic(count: int, seed: int = 0) -> list[Item]:
    """The classic sentence with other names, none of which have ever met."""
    rng = Random(f"classic {seed}")
    pairs = [pick(rng, NAMES, NAMES, held_out=True) for _ in range(count)]
    return [gifts.question(gifts.CLASSIC, a, b, giver=b) for a, b in pairs]


@torch.no_grad()
def layer_by_position(model: PreTrainedModel, words: PreTrainedTokenizerBase, items: list[Item]) -> Tensor:
    """(1 + layers, positions) restored fractions, mean over items of one length; the first row is the embedding."""
    clean, corrupt = (torch.tensor(words([getattr(item, side) for item in items])["input_ids"]) for side in PROMPTS)
    right, wrong = (
        torch.tensor(words([getattr(item, side) for item in items], add_special_tokens=False)["input_ids"]) for side in ANSWERS
    )

    def difference(ids: Tensor) -> Tensor:
        logits = model(input_ids=ids, use_cache=False).logits[:, -1].float()
        return (logits.gather(1, right) - logits.gather(1, wrong)).mean()

    places = [model.get_input_embeddings(), *model.get_submodule("model.layers").children()]
    streams: list[Tensor] = []
    with ExitStack() as open_hooks:
        for place in places:
            open_hooks.enter_context(hooked(place, streams.append))
        best = difference(clean)
    worst = difference(corrupt)
    restored = torch.empty(len(places), clean.shape[1])
    for layer, place in enumerate(places):
        for position in range(clean.shape[1]):
            with hooked(place, partial(patched, other=streams[layer], position=position)):
                restored[layer, position] = (difference(corrupt) - worst) / (best - worst)
    return restored


def patched(stream: Tensor, other: Tensor, position: int) -> Tensor:
    """(batch, pos, d_model) the stream, but at one position what it was in another run."""
    stream = stream.clone()
    stream[:, position] = other[:, position]
    return stream


@contextmanager
def hooked(place: torch.nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """While open, what a module returns is shown to `change` and replaced by what that returns, if anything."""
    handle = place.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()
