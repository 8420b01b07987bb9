"""Heads named by evidence: previous-token, duplicate-token, induction, copying, positional, sink, inert, name mover.

Each name has a score and a control, on random tokens that are repeated or not (Olsson et al. 2022), so that nothing but what
the name says can explain the score:

    previous token    looks at the token before                        control: the token before that
    duplicate token   looks at earlier copies of the token             control: the same places where nothing is repeated
    induction         looks at the token after an earlier copy         control: the same places where nothing is repeated
    positional        looks at a place that its own place tells        control: attention spread evenly, likewise judged
    current token     looks at the token itself                        control: attention spread evenly
    sink              looks at the first token                         control: attention spread evenly
    copying           makes likelier whatever it looks at              control: another token of the prompt
    suppressing       makes less likely whatever it looks at           control: another token of the prompt
    name mover        looks at the answer from the end, and raises it  control: the wrong answer; a negative one lowers it
    inert             nothing changes without it                       -

A name says what a head does on such prompts; that it matters is measured beside it, by leaving the head out. What a trained
head does elsewhere may be something else, and many heads do several things: the grid keeps all scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.axes import Logits, PerPrompt
from patchclamp.core.edit import zero
from patchclamp.core.errors import PatchclampError, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.pair import Pair, answer_token
from patchclamp.lenses.attention import (
    Detection,
    back,
    by_prompt,
    duplicate,
    first,
    given,
    induction,
    itself,
    looks,
    masks_of,
    previous,
    repeated,
    side_by_side,
    unrepeated,
)
from patchclamp.lenses.copying import copying, moving
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.looks import looking, shuffled
from patchclamp.model.measure import measure
from patchclamp.model.model import Model
from patchclamp.model.ordinary import size
from patchclamp.model.ride import Cell
from patchclamp.picture import Table

LEAST, TIMES = 0.2, 2.0
"""A head has a name if its score is at least this, and this many times its control."""
FIRST = 4
"""The first token that is asked whether its place tells where a head looks; before it there is hardly a choice."""
ROOM = 1 << 23
"""Logits of one run without a head, at most."""
INERT = 1e-5
"""Nats by which a head that is called inert changes the next token's probabilities, at most."""
ORDER = ("positional", "copying", "suppressing", "current token", "sink")
"""Names that a head has only where no other fits, the first of them that does, and from a higher score on."""
CLEAR = 0.4
"""The least score of those: most heads look a little at the first token, or at themselves."""
Scores = dict[str, tuple[Tensor, Tensor]]
"""Name -> its score and its control, (layer, head) each."""


def name_heads(
    model: Model,
    prompts: Prompt | None = None,
    against: Prompt | None = None,
    *,
    detections: Mapping[str, Detection] | None = None,
    pairs: Sequence[Pair] = (),
    seed: int = 0,
) -> Grid:
    """How much each head matters, its name as text, and all evidence as details: Grid(layer, head), in nats.

    Values: how far the next token's probabilities move when the head is left out (zero), KL divergence averaged over the tokens
    of `prompts`. `grid.text` has the names. `grid.details` has each score under its name, and its control as `name, control`.

    `prompts` hold repeats: random tokens and the same again, unless given; a model that only ever saw language may do nothing
    with those. `against` are prompts of the same lengths without the repeats: other random tokens, or the tokens of the
    prompts in another order. `detections` are further looks by name (`lenses/attention.py`), with the same control; with
    `pairs` of a task whose answer stands in the prompt, name movers are looked for, too.

    >>> grid = name_heads(model, ["The parrot said: sun hat map. Then the parrot said it again: sun hat map."] * 4)
    >>> grid.axes, "induction" in {name for row in grid.text for name in row}
    (('layer', 'head'), True)
    """
    again, fresh = _prompts(model, prompts, against, seed)
    scores = evidence(model, again, fresh, detections, pairs)
    layers = looking(model)
    each = ablations(model, again)
    effect = each.mean(0)
    names = [[_named(scores, i, h, float(effect[i, h])) for h in range(effect.shape[1])] for i in range(effect.shape[0])]
    details = {k: v for name, (score, control) in scores.items() for k, v in ((name, score), (f"{name}, control", control))}
    return Grid(effect, ("layer", "head"), {"layer": list(map(str, layers))}, unit="nats", title=f"The heads of {model.name}",
                note="How far the next token's probabilities move without each head; its name says what it does.",
                scale="sequential", text=names, details=details, each=each)  # fmt: skip


def evidence(model: Model, again: Inputs, fresh: Inputs, detections: Mapping[str, Detection] | None = None,
             pairs: Sequence[Pair] = ()) -> Scores:  # fmt: skip
    """Every name's score and control, (layer, head) each; a head without a score has what is not a number."""
    found: Scores = {}
    near = looks(model, fresh, {"one": previous, "two": back(2)}).values
    found["previous token"] = near[0], near[1]
    content: dict[str, Detection] = {"duplicate token": duplicate, "induction": induction, **(detections or {})}
    masks: dict[str, Detection] = {name: masks_of(name, one, again) for name, one in content.items()}
    there, elsewhere = (looks(model, tokens, masks).values for tokens in (again, fresh))
    found |= {name: (there[n], elsewhere[n]) for n, name in enumerate(masks)}
    found["positional"] = positional(model, fresh)
    rest = looks(model, fresh, {"itself": itself, "first": first}).values
    found["current token"], found["sink"] = (rest[0], _even(model, fresh, itself)), (rest[1], _even(model, fresh, first))
    with suppress(PatchclampError):  # a model whose heads' writing cannot be read as tokens
        copies = copying(model, fresh)
        found["copying"] = copies.values, copies.details["other"]
        found["suppressing"] = -copies.values, -copies.details["other"]
    if pairs:
        found |= _movers(model, pairs)
    return found


def _prompts(model: Model, prompts: Prompt | None, against: Prompt | None, seed: int) -> tuple[Inputs, Inputs]:
    if prompts is None:
        again, fresh = (model.inputs(make(model, seed=seed)) for make in (repeated, unrepeated))
        return again, fresh if against is None else model.inputs(against)
    again = model.inputs(prompts)
    fresh = shuffled(model, again, seed) if against is None else model.inputs(against)
    lengths = [[len(inputs.ids(row=r)) for r in range(inputs.batch)] for inputs in (again, fresh)]
    if lengths[0] != lengths[1]:
        raise WrongPrompt(
            f"the prompts have {lengths[0]} tokens and those they are compared with {lengths[1]}; give equal lengths."
        )
    return again, fresh


def positional(model: Model, inputs: Inputs) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
    """The attention that goes to the one place that a token's own place tells, and that an even spread would give it.

    The place is found on half of the prompts and the attention to it measured on the others. The first token, the one before
    and the token itself are left out: heads that look there have names of their own.
    """
    length = min(len(inputs.ids(row=r)) for r in range(inputs.batch))
    if inputs.batch < 2 or length < FIRST + 1:
        told = f"whether a head goes by places takes two prompts of {FIRST + 1} tokens at least"
        raise WrongPrompt(f"{told}; give more, or longer ones.")
    halves: list[list[Tensor]] = [[], []]
    for n, found in by_prompt(model, inputs):
        halves[n % 2].append(_level([p[:, :length, :length] for p in found]))
    fit, held = (torch.stack(half).mean(0) for half in halves)
    n = fit.shape[-1]
    out = (torch.eye(n) + previous(torch.arange(n))).bool()
    out[:, 0] = True
    place = fit.masked_fill(out, -1).argmax(-1, keepdim=True)
    seen = held.gather(-1, place)[..., FIRST:, 0]
    even = _spread(model, n).expand_as(held).gather(-1, place)[..., FIRST:, 0]
    return seen.mean(-1), even.mean(-1)


def ablations(model: Model, inputs: Inputs) -> Float[Tensor, "batch layer head"]:
    """How far the next token's probabilities move without each head, averaged over tokens: KL divergence, in nats.

    Of a large vocabulary only the first prompts are taken, as many as there is room for.
    """
    inputs = _few(model, inputs)
    whole = model.run(inputs).logits.float()
    chances, total = whole.softmax(-1), whole.logsumexp(-1)
    places = {site.replace(".pattern", ".z"): _heads(model, site) for site in looking(model).values()}
    cells = [Cell(((z, zero(f"{z}[head={h}]")),)) for z, n in places.items() for h in range(n)]

    def moved(logits: Logits) -> PerPrompt:
        # as a sum of differences, so that equal logits give nothing at all
        each = torch.einsum("bpv,bpv->bp", chances, whole - logits) - (total - logits.float().logsumexp(-1))
        return torch.stack([each[r, list(inputs.windows[""].tokens(r))].mean() for r in range(inputs.batch)])

    rows = measure(model, inputs, cells, moved, "leaving heads out").clamp(min=0).split(list(places.values()))
    return torch.stack([side_by_side([row[:, r] for row in rows]) for r in range(inputs.batch)])


def _few(model: Model, inputs: Inputs) -> Inputs:
    most = max(2, ROOM // (inputs.tokens.shape[1] * size(model)))
    return inputs if inputs.batch <= most else model.inputs([inputs.ids(row=r) for r in range(most)])


def listed(grid: Grid, least: float = 0.0) -> Table:
    """The heads that have a name, those that matter most first, each with its evidence: what `name_heads` gave, as a table.

    >>> listed(name_heads(model, ["The list began: sun hat map. The second list was the same: sun hat map."] * 2)).columns
    ('head', 'name', 'score', 'control', 'nats without it')
    """
    rows = []
    for i, layer in enumerate(grid.words("layer")):
        for h in range(grid.shape["head"]):
            name = grid.text[i][h] if grid.text is not None else ""
            if name and float(grid.values[i, h]) >= least:
                score, control = (
                    float(grid.details[k][i, h]) if k in grid.details else None for k in (name, f"{name}, control")
                )
                rows.append((f"{layer}.{h}", name, score, control, float(grid.values[i, h])))
    rows.sort(key=lambda row: -row[-1])
    return Table(("head", "name", "score", "control", "nats without it"), tuple(rows), digits=3, title=grid.title)


def _named(scores: Scores, i: int, h: int, effect: float) -> str:
    """The name that fits best: a special one with the highest score, else the first of the general ones."""
    if effect != effect:
        return ""
    if effect <= INERT:
        return "inert"
    fits = {}
    for name, (score, control) in scores.items():
        value, other = float(score[i, h]), max(float(control[i, h]), 0.0)
        if value >= (CLEAR if name in ORDER else LEAST) and value >= TIMES * other:
            fits[name] = value
    special = {name: value for name, value in fits.items() if name not in ORDER}
    return max(special, key=special.__getitem__) if special else next((name for name in ORDER if name in fits), "")


def _movers(model: Model, pairs: Sequence[Pair]) -> Scores:
    prompts = [p.clean if isinstance(p.clean, str) else list(p.clean) for p in pairs]
    answers = [answer_token(p.clean, p.answer, model.tokenizer) for p in pairs]
    wrongs = [answer_token(p.clean, p.wrong, model.tokenizer) for p in pairs]
    found = moving(model, prompts, answers, wrongs)
    raises, beside = found.details["direct"] > 0, found.details["beside"]
    return {"name mover": (found.values * raises, beside), "negative name mover": (found.values * ~raises, beside)}


def _even(model: Model, inputs: Inputs, look: Callable[[Tensor], Tensor]) -> Float[Tensor, "layer head"]:
    """What a head that spreads its attention evenly would give these places."""
    counts = [_heads(model, site) for site in looking(model).values()]
    lines = [torch.tensor(inputs.ids(row=r)) for r in range(inputs.batch)]
    values = [given(_spread(model, len(line))[None], look(line)) for line in lines]
    return side_by_side([torch.stack(values).mean(0).expand(count) for count in counts])


def _spread(model: Model, n: int) -> Float[Tensor, "query key"]:
    """Attention spread evenly over all that can be seen."""
    seen = torch.ones(n, n)
    seen = seen.tril() if model.anatomy.main.causal else seen
    return seen / seen.sum(-1, keepdim=True)


def _level(layers: Sequence[Float[Tensor, "head query key"]]) -> Float[Tensor, "layer head query key"]:
    """All layers' patterns, filled up where one has fewer heads."""
    most = max(len(p) for p in layers)
    return torch.stack([torch.cat([p.cpu(), torch.full((most - len(p), *p.shape[1:]), float("nan"))]) for p in layers])


def _heads(model: Model, site: str) -> int:
    block = next(b for b in model.anatomy.main.blocks if site.startswith(b.path + "."))
    write = block.write("attn")
    assert write is not None
    return write.heads
