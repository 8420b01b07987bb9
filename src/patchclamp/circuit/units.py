"""Units: neurons, or latents of a spliced dictionary, as the nodes of a graph, with their wires to everything that reads them.

A unit's weight is what it does differently in the corrupt run times the gradient of the metric at it; its edges are what it
writes differently times the gradient at the end of every wire (Syed et al. 2023; Marks et al. 2024, "sparse feature circuits").
The stream is a sum, so a unit's edges add up to its weight: the gradient that reaches it is what came down its wires.

Like every first order it misses what is saturated. Nothing is said of what makes a unit active: edges lead from units, not into
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.circuit.eap import table
from patchclamp.circuit.edges import Question, end, label
from patchclamp.core.edit import Edit
from patchclamp.core.errors import Unserved
from patchclamp.core.graph import Edge, Graph, Node
from patchclamp.core.metric import Metric, called
from patchclamp.core.run import Run
from patchclamp.core.site import Site
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model
from patchclamp.model.wires import Reader, Wires

AnyMetric = Metric | Callable[..., Tensor]
Writes = Float[Tensor, "unit batch pos d_model"]
"""What units write into the stream differently than in the corrupt run."""


def units(model: Model, clean: Prompt, corrupt: Prompt, metric: AnyMetric, sites: str, *, top: int = 30,
          signed: bool = False) -> Graph:  # fmt: skip
    """The `top` units of some places, strongest first, and the weight of every wire that leads from one of them.

    `sites` are neurons (`blocks.*.mlp.act`) or latents of dictionaries that are spliced in (`blocks.1.out.latents`). Units are
    ranked by magnitude, or, `signed`, by weight: those that support the answer first.

    >>> graph = units(model, clean, corrupt, pc.logit_diff(" Mary", " John"), "blocks.*.mlp.act", top=5)
    >>> unit = graph.top(1)[0]
    >>> abs(sum(e.weight for e in graph.outgoing(unit.site)) - unit.value) < 1e-3 * abs(unit.value)
    True
    """
    q = Question.of(model, clean, corrupt, metric)
    paths = list(model.places(Site.parse(sites)))
    ours = model.run(q.clean, [*q.wires.ends_sites, *paths], grad=True)
    theirs = model.run(q.corrupt, paths, logits=False)
    slope = ours.gradient(q.metric)
    change = {p: ours[p].detach() - theirs[p] for p in paths}
    worth = torch.cat([(change[p] * slope[p]).float().sum((0, 1)).cpu() / q.clean.batch for p in paths])
    chosen = _chosen(paths, [change[p].shape[-1] for p in paths], worth, top, signed)
    writes = torch.cat([_written(q.wires, ours, change, unit)[None] for unit in chosen])
    found = _edges(q, ours, slope, chosen, writes)
    sites_in_order = dict.fromkeys([u.site for u in chosen] + [e.receiver for e in found])
    values = {u.site: u.value for u in chosen}
    nodes = tuple(Node(site, values.get(site, 0.0), label(site)) for site in sites_in_order)
    name, unit = called(metric)
    facts = {"model": model.name, "method": "gradient", "metric": name, "ranking": "by weight" if signed else "by magnitude"}
    return Graph(nodes, tuple(found), unit, f"Units for the {name}", facts)


@dataclass(frozen=True)
class Unit:
    """One neuron or latent."""

    path: str
    number: int
    value: float

    @property
    def site(self) -> str:
        return f"{self.path}[{'latent' if self.path.endswith('latents') else 'neuron'}={self.number}]"

    def heard_by(self, reader: Reader, parallel: bool) -> bool:
        """Whether a reader comes after it has written."""
        site = Site.parse(self.path)
        part = ".".join(map(str, site.parts[2:])).removesuffix(".latents")
        after = {"in": 0, "attn.out": 1, "mid": 1}.get(part, 3)
        at = {"attn": 0, "mlp": 0 if parallel else 2, "": 4}[reader.write]
        assert site.layer is not None
        return (reader.block, at) >= (site.layer, after)


def _chosen(paths: list[str], sizes: list[int], worth: Tensor, top: int, signed: bool) -> list[Unit]:
    order = (worth if signed else worth.abs()).argsort(descending=True)[:top].tolist()
    starts = torch.tensor(sizes).cumsum(0)
    found = []
    for n in order:
        at = int(torch.searchsorted(starts, n, right=True))
        found.append(Unit(paths[at], n - int(starts[at]) + sizes[at], float(worth[n])))
    return found


@torch.no_grad()
def _written(wires: Wires, run: Run, change: dict[str, Tensor], unit: Unit) -> Float[Tensor, "batch pos d_model"]:
    """What a unit writes into the stream, less what it writes in the corrupt run."""
    more = change[unit.path][..., unit.number]
    if unit.path.endswith(".latents"):
        dictionary = _dictionary(wires.model, unit.path.removesuffix(".latents"))
        latents = run[unit.path].detach()
        without = latents.clone()
        without[..., unit.number] -= more
        return dictionary.decode(latents) - dictionary.decode(without)
    layer = Site.parse(unit.path).layer
    block = wires.blocks[layer if layer is not None else 0]
    write = block.write("mlp")
    if write is None or not unit.path.endswith("mlp.act") or write.norms:
        raise Unserved(f"what a unit of {unit.path} writes is not known; ask for mlp.act without a norm behind, or latents.")
    made = more[..., None] * wires.model.weights[f"{block.path}.mlp.W_out"][unit.number].to(more.dtype)
    for factor in write.factors:
        made = made * factor
    return made


def _dictionary(model: Model, site: str):
    found = [e for e in model.edits if isinstance(e, Edit) and e.kind == "splice" and str(e.site) == site]
    if not found:
        raise Unserved(f"no dictionary is spliced in at {site}; use model.edit(pc.splice(site, dictionary)).")
    return found[-1].params["dictionary"]


def _edges(q: Question, run: Run, slope: Run, chosen: list[Unit], writes: Writes) -> list[Edge]:
    parallel = f"{q.wires.blocks[0].path}.mid" not in q.model.anatomy.places
    found = []
    for reader, arrived in q.wires.ends(q.clean, run, slope):
        heard = [n for n, unit in enumerate(chosen) if unit.heard_by(reader, parallel)]
        if not heard:
            continue
        made = table(arrived, writes[heard]) / q.clean.batch
        for row, weights in zip(reader.rows, made.tolist()):
            node, into = end(q.wires, q.wires.receivers[row])
            found += [Edge(chosen[n].site, node, w, into) for n, w in zip(heard, weights)]
    return found
