"""Do Patchclamp and its peers give every place and every edge the same weight? Same model, same prompts, cell by cell.

    python -m bench.agree_circuits [--python INTERPRETER [--eap-ig FOLDER]] [--json FILE]

TransformerLens patches activations and direct paths and attributes to nodes and edges; it runs in this environment. EAP-IG
and auto-circuit need an older one (run with auto-circuit 1.0.1, TransformerLens 2.16.1, transformers 4.46.3), whose
interpreter is `--python`; EAP-IG's sources, which no registry has, are at `--eap-ig`. Where two differ, plain
Hugging Face by hand says who is right, or, where two define a method differently, our own parts put together in the peer's
way give the peer's numbers; a difference without a reason is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformer_lens import patching
from transformer_lens.tools.analysis import attribution_patching as lens
from transformers import GPT2Config, LlamaConfig

import patchclamp as pc
from bench.agree import bridged
from bench.by_hand import FAMILIES, LLAMA, PRE_NORM, Family, Values, cacheless, read, small
from bench.by_hand import _hooked as hooked
from bench.table import VERSIONS
from patchclamp.cause.path import paths
from patchclamp.circuit.eap import _layers, _less, _products, eap, eap_ig
from patchclamp.circuit.edges import Question, exact, graph_of
from patchclamp.circuit.faithful import share
from patchclamp.circuit.flow import flow
from patchclamp.circuit.mib import _node, _receivers
from patchclamp.core.edit import Edit

WITHIN = 1e-4
"""The greatest absolute difference of a cell that still counts as equal."""
UP, DOWN, STEPS = 7, 8, 5
TL, EI, AC = "TransformerLens", "EAP-IG", "auto-circuit"


@dataclass(frozen=True)
class Finding:
    """One function of a peer, held against Patchclamp."""

    family: str
    peer: str
    name: str
    ours: str
    cells: int = 0
    gap: float = float("nan")
    """The greatest difference of a cell; beside it the greatest cell, which says what it is a difference of."""
    greatest: float = float("nan")
    verdict: str = "equal"
    """`equal`, `differs`, or `not run`."""
    who: str = ""
    why: str = ""


@dataclass(frozen=True)
class Asked:
    """A family's model, in every library that is asked, and three pairs of prompts that differ in two tokens."""

    family: Family
    module: nn.Module
    model: pc.Model
    bridge: Any
    clean: Tensor
    corrupt: Tensor

    @classmethod
    def of(cls, family: Family) -> Asked:
        module = family.model()
        generator = torch.Generator().manual_seed(0)
        clean = torch.randint(3, 99, (3, 9), generator=generator)
        corrupt = clean.clone()
        corrupt[:, 3], corrupt[:, 5] = (clean[:, 3] + 7) % 96 + 3, (clean[:, 5] + 11) % 96 + 3
        return cls(family, module, pc.load(module), bridged(module), clean, corrupt)

    @property
    def pair(self) -> tuple[Tensor, Tensor, Any]:
        return self.clean, self.corrupt, pc.logit_diff(UP, DOWN)


def measure(logits: Tensor) -> Tensor:
    """The metric as TransformerLens wants it: one number for the batch."""
    return (logits[:, -1, UP] - logits[:, -1, DOWN]).mean()


def judged(family: str, peer: str, name: str, ours: str, theirs: Tensor, own: Tensor) -> Finding:
    """A finding, by how far two tables lie apart."""
    if theirs.shape != own.shape:
        return Finding(family, peer, name, ours, verdict="differs", why=f"shapes {list(theirs.shape)}, {list(own.shape)}")
    gap, most = float((theirs - own).abs().max()), float(own.abs().max())
    return Finding(family, peer, name, ours, own.numel(), gap, most, "equal" if gap <= WITHIN else "differs")


# ---- TransformerLens: places -------------------------------------------------------------------------------------

PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "resid_pre": ("blocks.*.in[pos=*]", ("layer", "pos")),
    "resid_mid": ("blocks.*.mid[pos=*]", ("layer", "pos")),
    "attn_out": ("blocks.*.attn.out[pos=*]", ("layer", "pos")),
    "mlp_out": ("blocks.*.mlp.out[pos=*]", ("layer", "pos")),
    "attn_head_out_all_pos": ("blocks.*.attn.z[head=*]", ("layer", "head")),
    "attn_head_q_all_pos": ("blocks.*.attn.q[head=*]", ("layer", "head")),
    "attn_head_k_all_pos": ("blocks.*.attn.k[kv_head=*]", ("layer", "kv_head")),
    "attn_head_v_all_pos": ("blocks.*.attn.v[kv_head=*]", ("layer", "kv_head")),
    "attn_head_pattern_all_pos": ("blocks.*.attn.pattern[head=*]", ("layer", "head")),
    "attn_head_out_by_pos": ("blocks.*.attn.z[head=*, pos=*]", ("layer", "pos", "head")),
    "attn_head_q_by_pos": ("blocks.*.attn.q[head=*, pos=*]", ("layer", "pos", "head")),
    "attn_head_k_by_pos": ("blocks.*.attn.k[kv_head=*, pos=*]", ("layer", "pos", "kv_head")),
    "attn_head_v_by_pos": ("blocks.*.attn.v[kv_head=*, pos=*]", ("layer", "pos", "kv_head")),
    "attn_head_pattern_by_pos": ("blocks.*.attn.pattern[head=*, query=*]", ("layer", "head", "query")),
    "attn_head_pattern_dest_src_pos": ("blocks.*.attn.pattern[head=*, query=*, key=*]", ("layer", "head", "query", "key")),
}
"""`get_act_patch_...`: the pattern that sweeps the same cells, and the axes of its answer."""


def places(a: Asked) -> Iterator[Finding]:
    """Activation patching, cell by cell."""
    _, cache = a.bridge.run_with_cache(a.clean)
    base = measure(a.bridge(a.corrupt))
    for name, (site, axes) in PLACES.items():
        label = f"get_act_patch_{name}"
        try:
            with torch.no_grad(), quiet():
                theirs = getattr(patching, label)(a.bridge, a.corrupt, cache, measure) - base
        except Exception as error:
            yield Finding(a.family.name, TL, label, site, verdict="not run", why=said(error))
            continue
        try:
            grid = pc.effects(a.model, *a.pair[:2], site, a.pair[2])
        except pc.PatchclampError as error:
            yield Finding(a.family.name, TL, label, site, verdict="not run", why=said(error))
            continue
        own = grid.values.permute([grid.axes.index(axis) for axis in axes])
        found = judged(a.family.name, TL, label, site, theirs.detach(), own)
        yield found if found.verdict == "equal" else settled(a, found, theirs, own, site)


def settled(a: Asked, found: Finding, theirs: Tensor, own: Tensor, site: str) -> Finding:
    """A place that differs: hooks on plain Hugging Face say who is right."""
    part = site.partition("[")[0].rpartition(".")[2]
    if part != "mid":
        return replace(found, why="nobody has found out")
    hand = streams_by_hand(a, part)
    if float((hand - own).abs().max()) <= WITHIN < float((hand - theirs).abs().max()):
        why = ("the hook lies past the point where the stream forks, so what is patched reaches the MLP only; the stream "
               "patched by hand on plain Hugging Face gives our cells")  # fmt: skip
        return replace(found, who="Patchclamp", why=why)
    return replace(found, why="nobody has found out")


def streams_by_hand(a: Asked, part: str) -> Tensor:
    """The effect of patching the stream between attention and MLP, with torch's own hooks on the bare model."""
    truth: tuple[Values, Values] = read(a.family, a.module, a.clean), read(a.family, a.module, a.corrupt)
    found = torch.zeros(a.family.layers, a.clean.shape[1])
    for layer in range(a.family.layers):
        place = a.family.places()[f"blocks.{layer}.attn.out"]
        goal, have = truth[0][f"blocks.{layer}.{part}"], truth[1][f"blocks.{layer}.in"]
        for pos in range(a.clean.shape[1]):

            def put(value: Tensor, pos: int = pos, goal: Tensor = goal, have: Tensor = have) -> Tensor:
                made = value.clone()
                made[:, pos] = goal[:, pos] - have[:, pos]
                return made

            handle = hooked(a.module, place, put)
            with torch.no_grad():
                found[layer, pos] = measure(a.module(a.corrupt, **cacheless(a.module)).logits)
            handle.remove()
    with torch.no_grad():
        return found - measure(a.module(a.corrupt, **cacheless(a.module)).logits)


# ---- TransformerLens: paths, nodes, edges, circuits --------------------------------------------------------------


def direct_paths(a: Asked) -> Iterator[Finding]:
    """Every head of block 0 to every head of later ones, by path patching and by edges."""
    _, clean = a.bridge.run_with_cache(a.clean)
    _, corrupt = a.bridge.run_with_cache(a.corrupt)
    base, heads = measure(a.bridge(a.corrupt)), a.model.heads
    for kind in "qkv":
        label = f"get_act_patch_direct_path, {kind}"
        try:
            ask = lambda head, kind=kind: patching.get_act_patch_direct_path(  # noqa: E731
                a.bridge, a.corrupt, clean, corrupt, measure, 0, head, kind, verbose=False)  # fmt: skip
            theirs = torch.stack([ask(head)[1:] for head in range(heads)]) - base
        except Exception as error:
            yield Finding(a.family.name, TL, label, "cause.paths", verdict="not run", why=said(error))
            continue
        axis = "head" if kind == "q" else "kv_head"
        own = torch.stack([
            torch.stack([
                paths(a.model, *a.pair[:2], "blocks.0.attn.z[head=*]", f"blocks.{i}.attn.{kind}[{axis}={h}]", a.pair[2])
                .values.flatten()
                for h in range(heads)
            ], 1)
            for i in range(1, a.family.layers)
        ], 1)  # fmt: skip
        yield judged(a.family.name, TL, label, "cause.paths", theirs.detach(), own)
        weights = wires_of(a, exact)
        names = [
            [[weights[f"blocks.0.attn.z[head={s}]", f"blocks.{i}.attn.{kind}[{axis}={h}]"] for h in range(heads)]
             for i in range(1, a.family.layers)] for s in range(heads)
        ]  # fmt: skip
        yield judged(a.family.name, TL, label, "circuit.edges, exact", theirs.detach(), -torch.tensor(names))


def wires_of(a: Asked, estimate: Callable[[Question], Tensor]) -> dict[tuple[str, str], float]:
    """The weights of wires of the corrupt run, each carrying the clean run's value: by sender and receiver."""
    q = Question.of(a.model, a.corrupt, a.clean, a.pair[2])
    weights = estimate(q)
    return {(q.wires.senders[s], q.wires.receivers[r]): float(weights[r, s]) for r, s in q.wires.joined.nonzero().tolist()}


def attributions(a: Asked) -> Iterator[Finding]:
    """Attribution to nodes and to edges, at every token; and a circuit's faithfulness."""
    one = (a.clean, a.corrupt, measure)
    node = lens.attribution_patch(a.bridge, *one, lens.EdgeAttributionConfig("node")).node_scores
    for kind, site, axis in (
        ("attn_head_out", "blocks.*.attn.z[head=*, pos=*]", "head"),
        ("mlp_out", "blocks.*.mlp.out[pos=*]", ""),
    ):
        grid = pc.effects(a.model, *a.pair[:2], site, a.pair[2], estimate=pc.gradient)
        cells = {n: s for n, s in node.items() if n.kind == kind}
        theirs = torch.tensor(list(cells.values()))
        own = torch.stack([
            grid.at(layer=n.layer, pos=n.position, **({axis: n.head} if axis else {})).values for n in cells
        ])  # fmt: skip
        yield judged(a.family.name, TL, f"attribution_patch, node, {kind}", "effects, estimate=gradient", theirs, own)
    label = "attribution_patch, edge"
    try:
        edge = lens.attribution_patch(a.bridge, *one, lens.EdgeAttributionConfig("edge")).edge_scores
    except ValueError as error:
        yield Finding(a.family.name, TL, label, "circuit.edges, eap", verdict="not run", why=said(error))
        return
    q = Question.of(a.model, a.corrupt, a.clean, a.pair[2], positions=True)
    weights = -eap(q)
    row, column = ({name: i for i, name in enumerate(names)} for names in (q.wires.receivers, q.wires.senders))
    own = torch.stack([weights[row[reader(r)], column[writer(w)], w.position] for w, r in edge])
    yield judged(a.family.name, TL, label, "circuit.edges, eap, positions", torch.tensor(list(edge.values())), own)
    yield circuit(a, edge)


def circuit(a: Asked, edge: dict[tuple[Any, Any], float]) -> Finding:
    """What a circuit of the strongest edges keeps of the first pair."""
    clean, corrupt = a.clean[:1], a.corrupt[:1]
    kept = sorted(edge, key=lambda e: -abs(edge[e]))[: len(edge) // 5]
    theirs = lens.faithfulness(a.bridge, clean, corrupt, measure, kept)
    q = Question.of(a.model, clean, corrupt, a.pair[2], positions=True)
    row, column = ({name: i for i, name in enumerate(names)} for names in (q.wires.receivers, q.wires.senders))
    cut = q.wires.joined.float()[..., None].repeat(1, 1, q.length)
    for w, r in kept:
        cut[row[reader(r)], column[writer(w)], w.position] = 0
    found = theirs.recovered if hasattr(theirs, "recovered") else next(v for v in vars(theirs).values() if isinstance(v, float))
    return judged(a.family.name, TL, f"faithfulness of {len(kept)} edges", "circuit.share", torch.tensor([found]),
                  torch.tensor([share(q, cut)]))  # fmt: skip


def writer(node: Any) -> str:
    """The sender that a node of TransformerLens is."""
    if node.kind == "embed":
        return "blocks.0.in"
    return f"blocks.{node.layer}.mlp.out" if node.kind == "mlp_out" else f"blocks.{node.layer}.attn.z[head={node.head}]"


def reader(node: Any) -> str:
    """The receiver that a node of TransformerLens is."""
    if node.kind == "logits":
        return "logits"
    if node.kind == "mlp_in":
        return f"blocks.{node.layer}.mlp.in"
    kind = node.kind[0]
    return f"blocks.{node.layer}.attn.{kind}[{'head' if kind == 'q' else 'kv_head'}={node.head}]"


# ---- EAP-IG and auto-circuit, in an environment of their own -----------------------------------------------------


def elsewhere(python: str, sources: str) -> Iterator[Finding]:
    """What two older peers say of every edge of a GPT-2 of three layers."""
    config = GPT2Config(
        n_embd=64, n_layer=3, n_head=4, n_inner=96, vocab_size=99, n_positions=64, bos_token_id=1, eos_token_id=2
    )
    family = replace(FAMILIES[0], config=config)
    a = Asked.of(family)
    q = Question.of(a.model, *a.pair)
    names = {(r, s): f"{_node(q.wires.senders[s])}->{_receivers(q.wires, q.wires.receivers[r])[0]}"
             for r, s in q.wires.joined.nonzero().tolist()}  # fmt: skip
    strongest = graph_of(q.wires, exact(q)).strongest(40)
    inside = q.kept(strongest)
    circuit = [name for place, name in names.items() if not inside[place]]
    told = ask_elsewhere(a, circuit, python, sources)
    for peer, why in told["reasons"].items():
        yield Finding(family.name, peer, "", "", verdict="not run", why=why)
    # What they score is a loss, which grows where our metric falls: no sign to change.
    own: dict[tuple[str, str], tuple[str, Callable[[], Tensor]]] = {
        (EI, "exact"): ("edges, exact", lambda: exact(q)),
        (EI, "EAP"): ("edges, eap", lambda: eap(q)),
        (EI, "EAP-IG-inputs"): (f"eap_ig({STEPS}, start=0)", lambda: eap_ig(STEPS, start=0)(q)),
        (EI, "EAP-IG-activations"): (f"eap_ig({STEPS}, 'activations')", lambda: eap_ig(STEPS, "activations")(q)),
        (EI, "information flow"): ("edges, flow", lambda: flow(q)),
        (AC, "EAP"): ("edges, eap", lambda: eap(q)),
        (AC, "exact"): ("edges, exact", lambda: exact(q)),
        (AC, "along the masks"): ("eap along the masks, by our parts", lambda: along_masks(q)),
    }
    for (peer, method), (ours, answer) in own.items():
        scores = told["answers"].get(peer, {}).get(method)
        if scores is None:
            continue
        mine = answer()
        theirs = torch.tensor([scores[name] for name in names.values()])
        found = judged(family.name, peer, method, ours, theirs, torch.stack([mine[place] for place in names]))
        yield found if found.verdict == "equal" else defined(found, theirs, q, list(names))
    if (answer := told["answers"].get(EI, {}).get("circuit")) is not None:
        yield judged(family.name, EI, "evaluate_graph, 40 edges", "circuit cut", torch.tensor([answer["metric"]]),
                     q.cut(inside).mean()[None])  # fmt: skip


def ask_elsewhere(a: Asked, circuit: list[str], python: str, sources: str) -> dict[str, Any]:
    """Run `circuit_child.py` on the model and the question."""
    with tempfile.TemporaryDirectory() as folder:
        a.module.save_pretrained(folder)
        said = {"clean": a.clean.tolist(), "corrupt": a.corrupt.tolist(), "up": UP, "down": DOWN, "circuit": circuit}
        Path(folder, "question.json").write_text(json.dumps(said))
        out = Path(folder, "answers.json")
        command = [python, "-W", "ignore", str(Path(__file__).with_name("circuit_child.py")), folder, str(out), sources]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
        if not out.exists():
            return {"answers": {}, "reasons": {f"{EI}, {AC}": done.stderr.strip().splitlines()[-1][:300]}}
        return json.loads(out.read_text())


def along_masks(q: Question) -> Tensor:
    """Gradients with respect to the cut of every wire, all of them cut alike, more and more: auto-circuit's integrated ones."""
    total = q.table()
    for k in range(STEPS + 1):
        cut = (q.wires.joined.float() * k / STEPS).requires_grad_()
        value = q.metric(q.wires.run(q.clean, q.theirs, cut, grad=True)).mean()
        total -= torch.autograd.grad(value, cut)[0] / (STEPS + 1)
    return total


def defined(found: Finding, theirs: Tensor, q: Question, places: list[tuple[int, int]]) -> Finding:
    """A method that another defines differently: our parts, put together in that way, must give its numbers."""
    if (found.peer, found.name) == (EI, "EAP-IG-activations"):
        other, n = q.table(), 0
        for site, seats in _layers(q):
            for k in range(1, STEPS + 1):
                move = _less((1 - k / STEPS) * (q.ours - q.theirs)[seats].sum(0))
                model = q.model.edit(Edit(site, lambda old, move=move: move(old).detach()))
                other, n = other + _products(q, model, q.ours - q.theirs), n + 1
        if float((torch.stack([other[p] / n for p in places]) - theirs).abs().max()) <= WITHIN:
            why = ("a matter of definition: the gradient of every edge is averaged over the moves of all layers, its own "
                   "sender's and others', and none flows through the layer that is moved; here each sender's edges take the "
                   "moves of its own layer. Averaged its way, our parts give its numbers")  # fmt: skip
            return replace(found, who="both", why=why)
    if (found.peer, found.name) == (EI, "information flow"):
        words = q.model.run(q.clean, "embed.out", logits=False)["embed.out"]
        other = flow(replace(q, ours=torch.cat([words[None], q.ours[1:]])))
        if float((torch.stack([other[p] for p in places]) - theirs).abs().max()) <= WITHIN:
            why = ("its input node is the embedding of the word alone, so the embedding of the position, which is part of "
                   "what is read, belongs to nobody; without it our parts give its numbers")  # fmt: skip
            return replace(found, who="Patchclamp", why=why)
    return replace(found, why="nobody has found out")


# ---- the report --------------------------------------------------------------------------------------------------


def said(error: Exception) -> str:
    """The reason of a failure in a line."""
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:200]


class quiet:
    """No warnings within."""

    def __enter__(self) -> None:
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *error: Any) -> None:
        self._caught.__exit__(*error)


def table(findings: list[Finding]) -> Table:
    """One row a function, families together."""
    made = Table(title=VERSIONS, caption=f"Equal: no cell further apart than {WITHIN:.0e}.")
    for column in ("beside", "their function", "ours", "families", "verdict", "who is right", "why"):
        made.add_column(column, overflow="fold", ratio=2 if column == "why" else None)
    for column in ("cells", "greatest cell", "greatest gap"):
        made.add_column(column, justify="right")
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.peer, f.name, f.ours, f.verdict, f.who, f.why), []).append(f)
    colour = {"equal": "[green]equal[/]", "differs": "[bold]differs[/]"}
    for (peer, name, ours, verdict, who, why), own in groups.items():
        families, run = ", ".join(f.family for f in own), verdict != "not run"
        numbers = (str(sum(f.cells for f in own)), f"{max(f.greatest for f in own):.2g}", f"{max(f.gap for f in own):.1e}")
        made.add_row(peer, name, ours, families, colour.get(verdict, verdict), who, why, *(numbers if run else ("", "", "")))
    return made


FLAT = (Family("llama, own keys", LlamaConfig(**small()), "model.layers.{}", PRE_NORM, LLAMA),)
"""TransformerLens attributes to edges only where every head has keys of its own."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", help="the interpreter of an environment with auto-circuit and an older TransformerLens")
    parser.add_argument("--eap-ig", default="", help="the folder that holds EAP-IG's package `eap`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every finding to a file")
    given = parser.parse_args()
    findings: list[Finding] = []
    for family in (*(f for f in FAMILIES if f.name != "bert"), *FLAT):
        a = Asked.of(family)
        for ask in (places, direct_paths, attributions):
            findings += ask(a)
    if given.python:
        findings += elsewhere(given.python, given.eap_ig)
    else:
        findings += [Finding("", peer, "", "", verdict="not run", why="no --python was given") for peer in (EI, AC)]
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table(findings))
    if given.json:
        given.json.write_text(json.dumps([asdict(f) for f in findings], indent=2))
    open_ = [f for f in findings if f.verdict == "differs" and not f.who]
    equal, cells = sum(f.verdict == "equal" for f in findings), sum(f.cells for f in findings)
    console.print(f"{len(findings)} comparisons of {cells} cells: {equal} equal, {len(open_)} differences not explained.")
    sys.exit(bool(open_))


if __name__ == "__main__":
    main()
