"""Information flow: which parts of what a receiver reads are most of it, from one forward pass, without a second prompt.

What a receiver reads is a sum of what senders wrote. A sender's share is its proximity to the sum, `|y| - |y - x|` in the
1-norm and not below zero, over the proximity of all senders (Ferrando & Voita 2024, "information flow routes"). An edge of
large share carries much of what is read. Whether what it carries matters to any answer is not asked: no metric and no
gradient come in, so these weights are of a kind with magnitudes, and a control for methods that ask.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from patchclamp.circuit.edges import Question, Weights, graph_of
from patchclamp.core.graph import Graph
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model
from patchclamp.model.wires import Wires, Written


def flow(q: Question) -> Weights:
    """The share of each sender in what each receiver reads in the clean run, as an estimator for `edges`."""
    return _shares(q.wires, q.clean, q.ours, q.positions)


def flows(model: Model, prompt: Prompt, *, positions: bool = False) -> Graph:
    """Every edge with its share of what its receiver reads, averaged over tokens or, with `positions`, at each.

    Shares of one receiver sum to one. A head's queries, keys and values read one stream and have the same shares.

    >>> graph = flows(model, clean)
    >>> round(sum(e.weight for e in graph.incoming("logits")), 3)
    1.0
    """
    wires, inputs = Wires.of(model), model.inputs(prompt)
    weights = _shares(wires, inputs, wires.written(model.run(inputs, wires.sites, logits=False)), positions)
    facts = {"model": model.name, "method": "information flow", "prompts": str(inputs.batch)}
    return graph_of(wires, weights, "share", "What each receiver reads", facts)


def routes(model: Model, prompt: Prompt, least: float = 0.05) -> Graph:
    """What flows into the last token's answer: from the logits down, every edge of at least this share of what is read there.

    Ferrando & Voita's top-down extraction. An edge is followed to its sender only where it is itself kept.

    >>> graph = routes(model, clean, least=0.1)
    >>> 0 < len(graph.edges) < 300
    True
    """
    whole = flows(model, prompt)
    reached, kept = {"logits"}, []
    heights = {n.site: i for i, n in enumerate(whole.nodes)}
    for site in sorted(heights, key=lambda s: -heights[s]):
        if site in reached:
            mine = [e for e in whole.incoming(site) if e.weight >= least]
            kept += mine
            reached |= {e.sender for e in mine}
    return whole.only(kept)


@torch.no_grad()
def _shares(wires: Wires, inputs: Inputs, written: Written, positions: bool) -> Weights:
    streams = dict.fromkeys(wires.stream(reader) for reader in wires.readers)
    run = wires.model.run(inputs, list(streams), logits=False)
    shape = (*wires.joined.shape, *((written.shape[2],) if positions else ()))
    found = torch.zeros(shape)
    pooled: Callable[[torch.Tensor], torch.Tensor] = lambda x: x.mean(1) if positions else x.mean((1, 2))  # noqa: E731
    for reader in wires.readers:
        read, parts = run[wires.stream(reader)].float(), written[: reader.before].float()
        near = (read.abs().sum(-1) - (read - parts).abs().sum(-1)).clamp(min=0)
        share = near / near.sum(0).clamp(min=1e-12)
        found[list(reader.rows), : reader.before] = pooled(share).cpu()
    return found
