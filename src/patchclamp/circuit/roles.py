"""Roles: what the heads of a circuit look at, in the words of the paper on indirect objects.

A head is a name mover if the last token looks at the indirect object, an S-inhibition head if it looks at the subject's
second mention, a duplicate-token head if that looks at the first mention, an induction head if it looks at the token after
it (Wang et al. 2022). One role is not theirs: a name reader looks from the end at the indirect object more than at the token
after it, but not so much more than at the other name that it could be called a name mover.

Attention alone proves little: a head may look at that token whatever stands there. So each score comes with three controls:
what the head gives a place of the same kind beside it, what it gives the same place in the corrupt prompts, and what it gives
it when the words of the prompts are shuffled.

Only what heads look at is read; that they matter is what the circuit says, what they write is for `pc.direct`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.circuit.edges import label
from patchclamp.core.errors import WrongPrompt, did_you_mean
from patchclamp.core.graph import Graph
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST
from patchclamp.model.inputs import Prompt
from patchclamp.model.looks import patterns, shuffled
from patchclamp.model.model import Model

_STEP = re.compile(r"(.+?)([+-]\d+)?")
Attention = Float[Tensor, "batch"]


@dataclass(frozen=True)
class Look:
    """A role by what it looks at: from one place of the prompt to another. `S1+1` is the token after S1.

    The query `*` is every token, and its key so many tokens back: `-1` the one before.
    """

    name: str
    query: str
    key: str
    beside: str
    """A place of the same kind that the role does not look at."""


IOI = (
    Look("name mover", "end", "IO", "S1"),
    Look("name reader", "end", "IO", "IO+1"),
    Look("S-inhibition", "end", "S2", "S2+1"),
    Look("duplicate token", "S2", "S1", "IO"),
    Look("induction", "S2", "S1+1", "IO+1"),
    Look("previous token", "*", "-1", "-2"),
)
"""The roles of the indirect-object circuit."""
LEAST, TIMES, CHANCE = 0.2, 1.5, 0.05
"""A head has a role if it gives the place this much of its attention, this many times what it gives the one beside it and what
it gives among shuffled words, and if, with five prompts or more, chance would prefer it to the place beside this rarely."""
FLIPS = 999


def roles(model: Model, clean: Prompt, corrupt: Prompt, at: Mapping[str, Sequence[int]], heads: Iterable[str] | Graph,
          *, looks: Sequence[Look] = IOI, seed: int = 0) -> Grid:  # fmt: skip
    """How much each head looks where each role looks: Grid(head, role), with the controls as details.

    `at` says at which token of each prompt a role stands, as `aligned(pairs, model.tokenizer)` does. `heads` are sites of
    heads (`blocks.3.attn.z[head=5]`), or a circuit, whose heads are taken. Values are attention, averaged over prompts.

    >>> at = {"IO": [2], "S1": [4], "S2": [10], "end": [14]}
    >>> grid = roles(model, clean, corrupt, at, ["blocks.3.attn.z[head=0]", "blocks.3.attn.z[head=1]"])
    >>> grid.axes, sorted(grid.details)
    (('head', 'role'), ['beside', 'chance', 'corrupt', 'shuffled'])
    """
    sites = _heads(heads)
    layers = sorted({layer for layer, _ in sites.values()})
    ours, theirs = model.inputs(clean), model.inputs(corrupt)
    mixed = shuffled(model, ours, seed)
    looks_of = [patterns(model, inputs, layers) for inputs in (ours, theirs, mixed)]
    each = torch.zeros(4, ours.batch, len(sites), len(looks))
    for i, (layer, head) in enumerate(sites.values()):
        here, other, mingled = (p[layer][:, head] for p in looks_of)
        for j, look in enumerate(looks):
            each[0, :, i, j] = _given(here, at, look.query, look.key)
            each[1, :, i, j] = _given(here, at, look.query, look.beside)
            each[2, :, i, j] = _given(other, at, look.query, look.key)
            each[3, :, i, j] = _given(mingled, at, look.query, look.key)
    values, beside, swapped, lot = each.mean(1)
    details = {"beside": beside, "corrupt": swapped, "shuffled": lot, "chance": _chance(each[0] - each[1], seed)}
    return Grid(values, ("head", "role"), {"head": [label(s) for s in sites], "role": [look.name for look in looks]},
                unit="attention", title="What heads look at", details=details, each=each[0], scale="sequential",
                note="beside: a like place; corrupt: the same place where the names are exchanged; shuffled: the same place "
                     "among shuffled words; chance: the p-value of being preferred to the place beside.")  # fmt: skip


def named(grid: Grid) -> dict[str, str]:
    """The role of each head that has one: it looks there, more than at the place beside it and than among shuffled words.

    >>> at = {"IO": [2], "S1": [4], "S2": [10], "end": [14]}
    >>> heads = [f"blocks.{i}.attn.z[head={h}]" for i in range(4) for h in range(8)]
    >>> "name mover" in named(roles(model, clean, corrupt, at, heads)).values()
    True
    """
    more = grid.values >= TIMES * torch.maximum(grid.details["beside"], grid.details["shuffled"])
    sure = grid.details["chance"] <= CHANCE if grid.each is not None and len(grid.each) >= FEWEST else more
    best, which = torch.where(more & sure, grid.values, torch.zeros(())).max(dim=1)
    pairs = zip(grid.labels["head"], best.tolist(), which.tolist())
    return {str(head): str(grid.labels["role"][n]) for head, score, n in pairs if score >= LEAST}


def titled(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with its heads' roles as notes, which a picture shows below their names."""
    nodes = tuple(replace(n, note=names.get(n.label, n.note)) for n in graph.nodes)
    return replace(graph, nodes=nodes)


def _chance(more: Float[Tensor, "batch head role"], seed: int) -> Float[Tensor, "head role"]:
    """How often the mean would be as large if each prompt's difference could as well have had the other sign.

    A test of means and not of how many prompts favour the place: many heads are silent on half of the prompts.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (FLIPS, len(more)), generator=generator).float() * 2 - 1
    lots = torch.einsum("nb,bhr->nhr", signs, more)
    return (1 + (lots >= more.sum(0) - 1e-6).sum(0)) / (1 + FLIPS)


def _heads(heads: Iterable[str] | Graph) -> dict[str, tuple[int, int]]:
    """Sites of heads, each with its layer and number."""
    given = [n.site for n in heads.nodes] if isinstance(heads, Graph) else list(heads)
    found = {}
    for site in map(Site.parse, given):
        head = dict(site.index).get("head")
        if site.layer is not None and isinstance(head, int):
            found[str(site.bare().at(head=head))] = (site.layer, head)
    if not found:
        raise WrongPrompt('there is no head to look at; heads are sites such as "blocks.3.attn.z[head=5]".')
    return found


def _given(pattern: Float[Tensor, "batch query key"], at: Mapping[str, Sequence[int]], query: str, key: str) -> Attention:
    """What one place gives another, prompt by prompt."""
    if query == "*":
        return pattern.diagonal(int(key), 1, 2)[:, 2 + min(0, int(key)) :].mean(1)
    rows = torch.arange(pattern.shape[0])
    return pattern[rows, _tokens(at, query, pattern.shape), _tokens(at, key, pattern.shape)]


def _tokens(at: Mapping[str, Sequence[int]], place: str, shape: Sequence[int]) -> Tensor:
    role, step = _STEP.fullmatch(place).groups()  # pyright: ignore[reportOptionalMemberAccess]
    if role not in at:
        raise WrongPrompt(f'no role "{role}" among {", ".join(at)}.{did_you_mean(role, at)}')
    found = torch.tensor(list(at[role])) + int(step or 0)
    if len(found) != shape[0]:
        raise WrongPrompt(f'the role "{role}" has {len(found)} places for {shape[0]} prompts; give one a prompt.')
    return found.clamp(0, shape[-1] - 1)
