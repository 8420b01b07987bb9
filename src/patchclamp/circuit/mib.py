"""Graphs as the Mechanistic Interpretability Benchmark and EAP-IG write them: JSON with `cfg`, `nodes` and `edges`.

    input            blocks.0.in                 a3.h5   blocks.3.attn.z[head=5]
    m3               blocks.3.mlp.out            logits  logits
    a0.h1->a3.h5<q>  the edge into the head's query

There every query head has keys and values of its own. Where heads share them, an edge into a shared key is written once for
every head of its group with an equal part of its weight, and read back as their sum. What a weight's sign means depends on the
metric it was made with; here a positive weight supports the answer.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from patchclamp.circuit.edges import end, graph_of
from patchclamp.core.errors import NotSaved, UnknownSite
from patchclamp.core.graph import Graph
from patchclamp.core.site import Site
from patchclamp.model.model import Model
from patchclamp.model.wires import Wires

_EDGE = re.compile(r"(?P<sender>input|m\d+|a\d+\.h\d+)->(?P<receiver>logits|m\d+|a\d+\.h\d+)(<(?P<into>[qkv])>)?")


def write_mib(graph: Graph, path: str | Path, model: Model, ranking: Graph | None = None) -> Path:
    """Write a circuit. Edges outside it are written too, with the weights of `ranking` or none, and marked as outside."""
    if any("pos=" in e.sender for e in graph.edges):
        raise NotSaved("the benchmark's form has no tokens; write a circuit of pooled edges, found without positions=True.")
    wires = Wires.of(model)
    weights = {(e.sender, e.receiver, e.into): e.weight for e in (*(ranking.edges if ranking else ()), *graph.edges)}
    inside = {(e.sender, e.receiver, e.into) for e in graph.edges}
    edges: dict[str, dict[str, float | bool]] = {}
    for r, receiver in enumerate(wires.receivers):
        node, into = end(wires, receiver)
        names = _receivers(wires, receiver)
        for s in wires.joined[r].nonzero()[:, 0].tolist():
            key = (wires.senders[s], node, into)
            said = {"score": weights.get(key, 0.0) / len(names), "in_graph": key in inside}
            edges |= {f"{_node(wires.senders[s])}->{name}": dict(said) for name in names}
    used = {site for e in graph.edges for site in (e.sender, e.receiver)}
    nodes = {_node(site): {"in_graph": site in used} for site in wires.senders} | {"logits": {"in_graph": True}}
    cfg = {"n_layers": model.layers, "n_heads": model.heads, "d_model": model.width, "parallel_attn_mlp": _parallel(wires)}
    path = Path(path)
    path.write_text(json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}), encoding="utf-8")
    return path


def read_mib(path: str | Path, model: Model, only: bool = True) -> Graph:
    """Read a circuit of this model; with `only=False` every edge of the file, whether it is in the circuit or not."""
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        edges, cfg = said["edges"], said["cfg"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise NotSaved(f"{path} is no graph in the benchmark's form, JSON with cfg, nodes and edges ({error!r}).") from None
    if (cfg.get("n_layers"), cfg.get("n_heads")) != (model.layers, model.heads):
        raise UnknownSite(
            f"{path} is about a model of {cfg.get('n_layers')} layers and {cfg.get('n_heads')} heads; "
            f"{model.name} has {model.layers} and {model.heads}."
        )
    wires = Wires.of(model)
    seats = {name: r for r, receiver in enumerate(wires.receivers) for name in _receivers(wires, receiver)}
    senders = {_node(site): s for s, site in enumerate(wires.senders)}
    weights, inside = torch.zeros(wires.joined.shape), torch.zeros(wires.joined.shape, dtype=torch.bool)
    for name, facts in edges.items():
        if _EDGE.fullmatch(name) is None:
            raise NotSaved(f'{path} has an edge "{name}"; edges are named as in "input->a0.h1<q>" or "m0->logits".')
        sender, _, receiver = name.partition("->")
        if receiver not in seats or sender not in senders:
            raise UnknownSite(f'{model.name} has no edge "{name}", which {path} names.')
        r, s = seats[receiver], senders[sender]
        weights[r, s] += facts["score"]
        inside[r, s] |= facts["in_graph"]
    whole = graph_of(wires, weights, title=Path(path).stem, facts={"model": model.name, "file": str(path)})
    keep = inside[wires.joined].tolist()
    return whole.only(e for e, kept in zip(whole.edges, keep) if kept or not only)


def _node(site: str) -> str:
    parsed = Site.parse(site)
    if parsed.parts[-1] == "in":
        return "input"
    head = dict(parsed.index).get("head")
    return f"m{parsed.layer}" if head is None else f"a{parsed.layer}.h{head}"


def _receivers(wires: Wires, receiver: str) -> list[str]:
    """The benchmark's names of what a receiver is: several where heads share it."""
    parsed = Site.parse(receiver)
    if parsed.layer is None:
        return ["logits"]
    kind, index = parsed.parts[-1], dict(parsed.index)
    if kind == "in":
        return [f"m{parsed.layer}"]
    if kind == "q":
        return [f"a{parsed.layer}.h{index['head']}<q>"]
    write = wires.blocks[parsed.layer].write("attn")
    assert write is not None and isinstance(index["kv_head"], int)
    group = write.heads // write.kv_heads
    return [f"a{parsed.layer}.h{h}<{kind}>" for h in range(index["kv_head"] * group, (index["kv_head"] + 1) * group)]


def _parallel(wires: Wires) -> bool:
    return f"{wires.blocks[0].path}.mid" not in wires.model.anatomy.places
