"""What heads look at: attention patterns compared with patterns one is looking for, and summed up in a few numbers.

A detection says where a head of some kind would look: a function of a prompt's tokens that gives (query, key), or such a
tensor. How well a head fits is for a measure to say: `given` is the attention that queries with such a place give it; `mul` and
`absolute` are those of TransformerLens' head detector, over all queries. Random tokens, repeated or not, leave nothing else to
go by, so they are the prompts to begin with; any others will do.

Attention says where a head looks. What it brings from there is for `lenses/copying.py`, whether that matters for
`lenses/heads.py`; a head that looks nowhere in particular looks at the first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongAxis, WrongPrompt, did_you_mean
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.model.inputs import Inputs, Prompt, longest
from patchclamp.model.looks import looking, patterns
from patchclamp.model.model import Model
from patchclamp.model.ordinary import lead, ordinary

Line = Int[Tensor, " pos"]
Mask = Float[Tensor, "query key"]
Detection = Callable[[Line], Tensor] | Tensor | Sequence[Tensor]
"""A prompt's tokens -> (query, key), or that tensor itself, or one for each prompt."""
Weighed = Callable[[Float[Tensor, "head query key"], Mask], Float[Tensor, " head"]]
ROOM = 1 << 26
"""Attention weights that are held at a time, at most."""


# ---- where a head might look -------------------------------------------------------------------------------------------


def back(steps: int) -> Callable[[Line], Mask]:
    """The token so many places back.

    >>> back(2)(torch.arange(4))[3].tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    return lambda tokens: torch.eye(len(tokens)).roll(-steps, 1).tril(-steps)


def previous(tokens: Line) -> Mask:
    """The token before."""
    return back(1)(tokens)


def duplicate(tokens: Line) -> Mask:
    """Earlier copies of the same token."""
    return (tokens[:, None] == tokens[None]).float().tril(-1)


def induction(tokens: Line) -> Mask:
    """The tokens after earlier copies of this one: what is likely to come next, if the text repeats itself."""
    return torch.cat([torch.zeros(len(tokens), 1), duplicate(tokens)[:, :-1]], 1)


def first(tokens: Line) -> Mask:
    """The first token, for every token after it: where attention goes that is not needed elsewhere."""
    made = torch.zeros(len(tokens), len(tokens))
    made[1:, 0] = 1
    return made


def itself(tokens: Line) -> Mask:
    """The token itself."""
    return torch.eye(len(tokens))


DETECTIONS: Mapping[str, Detection] = {"previous token": previous, "duplicate token": duplicate, "induction": induction,
                                       "first token": first}  # fmt: skip


def masks_of(name: str, detection: Detection, inputs: Inputs) -> list[Mask]:
    """What a detection gives for each prompt."""
    if (
        not callable(detection)
        and not (isinstance(detection, Tensor) and detection.ndim == 2)
        and len(detection) != inputs.batch
    ):
        raise ShapeMismatch(f'the detection "{name}" has {len(detection)} masks for {inputs.batch} prompts; give one of each.')
    made = []
    for r in range(inputs.batch):
        tokens = torch.tensor(inputs.ids(row=r))
        if isinstance(detection, Tensor):
            mask = detection if detection.ndim == 2 else detection[r]
        else:
            mask = torch.as_tensor(detection(tokens) if callable(detection) else detection[r])
        if mask.shape != (len(tokens), len(tokens)):
            expected = f"(query, key), here [{len(tokens)}, {len(tokens)}]"
            raise ShapeMismatch(f'the detection "{name}" gave {list(mask.shape)} for prompt {r}; a mask is {expected}.')
        made.append(mask.float())
    return made


# ---- how well it does --------------------------------------------------------------------------------------------------


def given(pattern: Float[Tensor, "head query key"], mask: Mask) -> Float[Tensor, " head"]:
    """The attention that goes to the places, averaged over the queries that have any; not a number where none has."""
    has = (mask > 0).any(1)
    return (pattern * mask).sum(-1)[:, has].mean(-1)


def mul(pattern: Float[Tensor, "head query key"], mask: Mask) -> Float[Tensor, " head"]:
    """The share of all attention, of all queries, that goes to the places."""
    return (pattern * mask).sum((1, 2)) / pattern.sum((1, 2))


def absolute(pattern: Float[Tensor, "head query key"], mask: Mask) -> Float[Tensor, " head"]:
    """One minus the difference from the mask that a query has on average: 1 where both are the same, at least -1."""
    return 1 - (pattern - mask).abs().sum((1, 2)) / len(mask)


def looks(model: Model, prompts: Prompt, detections: Mapping[str, Detection] = DETECTIONS, measure: Weighed = given,
          without: Sequence[str] = ()) -> Grid:  # fmt: skip
    """How much each head looks where each detection says: Grid(look, layer, head), `grid.at(look=...)` for one of them.

    `without` leaves out what goes to the "first" token or to the token "itself". A layer with fewer heads than others is filled
    up with what is not a number.

    >>> looks(model, [clean, corrupt], {"two back": back(2)}, mul).shape
    {'look': 1, 'layer': 4, 'head': 8}
    """
    for word in without:
        if word not in ("first", "itself"):
            raise WrongAxis(f'without is "first" or "itself", not "{word}".{did_you_mean(word, ("first", "itself"))}')
    inputs = model.inputs(prompts)
    masks = {name: masks_of(name, one, inputs) for name, one in detections.items()}
    layers = list(looking(model))
    each: list[Tensor] = []
    for n, found in by_prompt(model, inputs):
        drop = _left_out(len(next(iter(masks.values()))[n]), without)
        rows = [[measure(p.masked_fill(drop.to(p.device), 0), mask[n].masked_fill(drop, 0).to(p.device)) for p in found]
                for mask in masks.values()]  # fmt: skip
        each.append(torch.stack([side_by_side(row) for row in rows]))
    cells = torch.stack(each)
    names = {"look": list(detections), "layer": list(map(str, layers))}
    return Grid(cells.nanmean(0), ("look", "layer", "head"), names, unit="attention" if measure is not absolute else "fit",
                title="What heads look at", scale="sequential", each=cells)  # fmt: skip


def summaries(model: Model, prompts: Prompt) -> Grid:
    """How heads spread their attention, whatever it goes to: Grid(summary, layer, head), over all tokens but the first.

    `entropy` in nats; `distance`, how many tokens away what is looked at stands; `first`, the share of the first token (of the
    sink, as most models have one); `itself`; `nowhere`, what goes to no token at all, where a family has a sink of its own.

    >>> grid = summaries(model, clean)
    >>> [round(float(grid.at(summary=s).values[1, 0]), 3) >= 0 for s in grid.words("summary")]
    [True, True, True, True, True]
    """
    inputs = model.inputs(prompts)
    layers = list(looking(model))
    each = torch.stack([torch.stack([side_by_side([_summed(p)[s] for p in found]) for s in range(len(SUMMARIES))])
                        for _, found in by_prompt(model, inputs)])  # fmt: skip
    return Grid(each.mean(0), ("summary", "layer", "head"), {"summary": list(SUMMARIES), "layer": list(map(str, layers))},
                title="How heads spread their attention", scale="sequential", each=each,
                note="entropy in nats, distance in tokens, the others shares of attention.")  # fmt: skip


SUMMARIES = ("entropy", "distance", "first", "itself", "nowhere")


def _summed(pattern: Float[Tensor, "head query key"]) -> list[Float[Tensor, " head"]]:
    n = pattern.shape[-1]
    at = torch.arange(n, device=pattern.device)
    rest = pattern[:, 1:] if n > 1 else pattern
    entropy = -(rest * rest.clamp(min=1e-30).log()).sum(-1)
    away = (at[:, None] - at).abs()[n - rest.shape[1] :].float()
    itself = pattern.diagonal(0, 1, 2)[:, n - rest.shape[1] :]
    numbers = (entropy, (rest * away).sum(-1) / rest.sum(-1).clamp(min=1e-30), rest[..., 0], itself, 1 - rest.sum(-1))
    return [number.mean(-1) for number in numbers]


# ---- prompts that leave nothing else to go by --------------------------------------------------------------------------


def repeated(model: Model, prompts: int = 16, length: int = 20, seed: int = 0) -> Int[Tensor, "batch pos"]:
    """Random tokens, and then the same again: ids, after whatever the tokenizer puts before a text.

    All tokens of a prompt are different but for the repeat. Fewer than `length` where there is no room, or no more tokens.

    >>> repeated(model, prompts=3, length=10).shape
    torch.Size([3, 21])
    """
    before, drawn = _drawn(model, prompts, length, seed)
    half = drawn[:, : drawn.shape[1] // 2]
    return torch.cat([before, half, half], 1)


def unrepeated(model: Model, prompts: int = 16, length: int = 20, seed: int = 0) -> Int[Tensor, "batch pos"]:
    """The same as `repeated`, but with other tokens where the repeat would be: as long, beginning alike, nothing twice."""
    before, drawn = _drawn(model, prompts, length, seed)
    return torch.cat([before, drawn], 1)


def _drawn(model: Model, prompts: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    known, start = ordinary(model), lead(model)
    limit = longest(getattr(model.hf, "config", None))
    size = min(length, len(known) // 2, (limit - (start is not None)) // 2 if limit else length)
    if size < 2:
        raise WrongPrompt(f"{model.name} has no room for a sequence of two tokens and its repeat; give prompts of your own.")
    generator = torch.Generator().manual_seed(seed)
    drawn = [known[torch.randperm(len(known), generator=generator)[: 2 * size]] for _ in range(prompts)]
    before = torch.tensor([] if start is None else [start], dtype=torch.long).expand(prompts, -1)
    return before, torch.stack(drawn)


# ---- bookkeeping -------------------------------------------------------------------------------------------------------


def by_prompt(model: Model, inputs: Inputs) -> Iterator[tuple[int, list[Float[Tensor, "head query key"]]]]:
    """The patterns of all layers, prompt by prompt, without padding."""
    heads = sum(b.write("attn").heads for b in model.anatomy.main.blocks if b.write("attn") is not None) or 1  # pyright: ignore
    at_once = max(1, ROOM // (heads * inputs.tokens.shape[1] ** 2 or 1))
    rows = [inputs.ids(row=r) for r in range(inputs.batch)]
    parts = [range(n, min(n + at_once, len(rows))) for n in range(0, len(rows), at_once)]
    for part in progress(parts, label="attention"):
        mine = model.inputs([rows[r] for r in part]) if len(parts) > 1 else inputs
        found = patterns(model, mine)
        for i, r in enumerate(part):
            columns = list(mine.windows[""].tokens(i))
            yield r, [p[i][:, columns][:, :, columns] for p in found.values()]


def _left_out(n: int, without: Sequence[str]) -> Bool[Tensor, "query key"]:
    made = torch.zeros(n, n, dtype=torch.bool)
    if "first" in without:
        made[:, 0] = True
    return made | torch.eye(n, dtype=torch.bool) if "itself" in without else made


def side_by_side(layers: Sequence[Float[Tensor, " head"]]) -> Float[Tensor, "layer head"]:
    """One row a layer; what is not a number fills those with fewer heads."""
    made = torch.full((len(layers), max(len(row) for row in layers)), float("nan"))
    for i, row in enumerate(layers):
        made[i, : len(row)] = row.detach().float().cpu()
    return made
