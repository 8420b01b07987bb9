"""Do Patchclamp and its peers see the same activations? Every name that two of them have, on six families, compared.

    python -m bench.agree [--only FAMILY]... [--json FILE]

Each library gets the same weights and the same tokens. Where two differ, plain Hugging Face, read by hand (`by_hand.py`), says
who is right. A difference that nobody has explained, or one in which Patchclamp is not what the model is, ends in failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from nnsight import NNsight
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

import patchclamp as pc
from bench.by_hand import FAMILIES, Family, Values, cacheless, halved, read, slopes
from bench.models import tokenizer, twin
from bench.names import Meaning, meaning, reason
from bench.table import VERSIONS

WITHIN = 1e-5
"""The greatest absolute difference that still counts as equal."""
TL, NN, HF = "TransformerLens", "nnsight", "Hugging Face by hand"


@dataclass(frozen=True)
class Finding:
    """One name of a peer, held against Patchclamp."""

    family: str
    peer: str
    name: str
    site: str
    verdict: str
    """`equal`, `other shape` (equal after a rearrangement), `differs`, or `none` (no counterpart)."""
    gap: float = 0.0
    who: str = ""
    why: str = ""


# ---- one family --------------------------------------------------------------------------------------------------


def compare(family: Family) -> list[Finding]:
    """Everything compared on one family."""
    module = family.model()
    ids = torch.randint(3, 99, (2, 12), generator=torch.Generator().manual_seed(0))
    truth, model = read(family, module, ids), pc.load(module)
    ours = kept(model, ids, truth)
    return [
        *against_truth(family, ours, truth),
        *against_lens(family, module, ids, ours, truth),
        *against_insight(family, module, ids, ours),
        *edits(family, module, model, ids, ours, truth),
        *gradients(family, module, model, ids),
    ]


def kept(model: pc.Model, ids: Tensor, truth: Values) -> Values:
    """Every site of the model, and both sides of every module as raw sites, in one run."""
    modules = {name for name, _ in model.hf.named_modules()}
    raw = [f"@{name}" for name in truth if name.rpartition(".")[0] in modules and name.endswith((".in", ".out"))]
    run = model.run(ids, keep=[*model.sites, *raw])
    return {site: run.kept[site].value for site in run.sites}


def against_truth(family: Family, ours: Values, truth: Values) -> Iterator[Finding]:
    """Patchclamp is what the model is."""
    for site, value in ours.items():
        yield judged(family, HF, site, site, truth[site.removeprefix("@")], value)


def against_lens(family: Family, module: nn.Module, ids: Tensor, ours: Values, truth: Values) -> Iterator[Finding]:
    """Every hook that fires in TransformerLens: by the converter where it knows the name, else by its meaning."""
    bridge = bridged(module)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, cache = bridge.run_with_cache(ids)
    for name, theirs in cache.items():
        means = meaning(name, family, module, bridge.adapter)
        converted = converter(name)
        if converted in ours:
            found = judged(family, TL, name, converted, theirs, ours[converted])
            if found.verdict != "differs":
                yield found
                continue
            yield explained(found, family, theirs, ours, truth, means)
        if isinstance(means, str):
            yield Finding(family.name, TL, name, "", "none", why=means)
        elif means.site in ours:
            yield judged(family, TL, name, means.site, theirs, means.take(ours[means.site]))
        else:
            yield Finding(family.name, TL, name, means.site, "none", why="this model has no such site")


def against_insight(family: Family, module: nn.Module, ids: Tensor, ours: Values) -> Iterator[Finding]:
    """What nnsight reads at every module, against raw sites, and against the canonical sites that are there."""
    copy = twin(module)
    copy.set_attn_implementation("eager")
    envoy = NNsight(copy)
    with torch.no_grad(), envoy.trace(ids, **cacheless(module)) as tracer:
        cache = tracer.cache(include_inputs=True)
    seen: Values = {}
    for path in cache.keys():  # noqa: SIM118  iterating the cache itself walks the modules
        name, entry = path.removeprefix("model").removeprefix("."), cache[path]
        for side, value in (("in", entry.input), ("out", first(entry.output))):
            if isinstance(value, Tensor) and name:
                seen[f"{name}.{side}"] = value
    for name, value in seen.items():
        yield judged(family, NN, name, f"@{name}", value, ours[f"@{name}"])
    for site, name in family.places().items():
        yield judged(family, NN, name, site, seen[name], ours[site])
    yield judged(family, NN, "(output)", "logits", first(cache["model"].output), ours["logits"])
    for i in range(family.layers):
        name = f"{family.block.format(i)}.{family.attention}"
        yield judged(family, NN, f"{name}.out[1]", f"blocks.{i}.attn.pattern", cache[f"model.{name}"].output[1],
                     ours[f"blocks.{i}.attn.pattern"])  # fmt: skip
        for part in ("q", "k", "v", "scores"):
            yield Finding(family.name, NN, f"(layer {i})", f"blocks.{i}.attn.{part}", "none", why="no module's input or output")


def edits(family: Family, module: nn.Module, model: pc.Model, ids: Tensor, ours: Values, truth: Values) -> Iterator[Finding]:
    """The logits where the value at a place is halved, for every name that both read alike."""
    bridge = bridged(module)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids)
    for name, value in cache.items():
        site = converter(name)
        if site not in ours or distance(value, ours[site]) > WITHIN:
            continue
        with torch.no_grad():
            theirs = bridge.run_with_hooks(ids, fwd_hooks=[(name, lambda value, hook: value / 2)])
        own = model.edit(pc.Edit(site, lambda value: value / 2)).run(ids).logits
        found = judged(family, f"{TL}, edits", name, site, theirs, own)
        if found.verdict == "differs":
            found = settled(found, "edit", family, theirs, own, halved(family, module, ids, site, truth))
        yield found


STREAM = {"hook_resid_pre": "in", "hook_resid_mid": "mid", "hook_resid_post": "out"}


def gradients(family: Family, module: nn.Module, model: pc.Model, ids: Tensor) -> Iterator[Finding]:
    """The gradient of a logit difference along the residual stream, where both read the same value by the name."""
    names = {hook: site for hook, site in STREAM.items() if site in family.inside and (family.name, site) != ("bert", "mid")}
    hooks = {f"blocks.{i}.{hook}": f"blocks.{i}.{site}" for i in range(family.layers) for hook, site in names.items()}

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 7] - logits[:, -1, 8]

    own = model.run(ids, keep=list(hooks.values()), grad=True).gradient(metric)
    hand = slopes(family, module, ids, list(hooks.values()), metric)
    for name, theirs in lens_gradients(bridged(module), ids, list(hooks), metric):
        site = hooks[name]
        found = judged(family, f"{TL}, gradients", name, site, theirs, own.kept[site].value)
        if found.verdict == "differs":
            found = settled(found, "gradient", family, theirs, own.kept[site].value, hand[site])
        yield found


def lens_gradients(bridge: Any, ids: Tensor, names: list[str], metric: Callable) -> list[tuple[str, Tensor]]:
    """The same in TransformerLens, with its own backward hooks."""
    found: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[..., None]:
        return lambda value, hook: found.update({name: value.detach()})  # hook.name would be another of its names

    with torch.enable_grad(), bridge.hooks(bwd_hooks=[(name, noting(name)) for name in names]):
        metric(bridge(ids)).sum().backward()
    bridge.zero_grad()
    return list(found.items())


# ---- what they share ---------------------------------------------------------------------------------------------


def bridged(module: nn.Module) -> TransformerBridge:
    """TransformerLens on the same weights."""
    return TransformerBridge.boot_transformers("bench/model", hf_model=twin(module), tokenizer=tokenizer(99), device="cpu")


def converter(name: str) -> str:
    """The site that Patchclamp's converter says a hook name means, if it knows it."""
    try:
        return str(pc.Site.from_transformer_lens(name))
    except pc.PatchclampError:
        return ""


def first(output: Any) -> Any:
    """What a raw site takes of a module's output: its first tensor."""
    values = output if isinstance(output, tuple) else output.values() if isinstance(output, dict) else (output,)
    return next((v for v in values if isinstance(v, Tensor)), None)


def judged(family: Family, peer: str, name: str, site: str, theirs: Tensor, ours: Tensor) -> Finding:
    """A finding, by how far two tensors lie apart."""
    apart, shape = distance(theirs, ours), theirs.shape == ours.shape
    verdict = "differs" if apart > WITHIN else "equal" if shape else "other shape"
    return Finding(family.name, peer, name, site, verdict, apart)


def distance(a: Tensor, b: Tensor) -> float:
    """The greatest difference, after rearrangement where the shapes differ; masked scores must be masked in both."""
    for own in (b, b.transpose(1, 2) if b.ndim == 4 else b):
        if own.shape == a.shape or (own.ndim == a.ndim and all(n in (1, m) for n, m in zip(own.shape, a.shape))):
            return _apart(a, own.expand_as(a))
    return _apart(a, b.reshape(a.shape)) if a.numel() == b.numel() else float("inf")


def _apart(a: Tensor, b: Tensor) -> float:
    hidden = (a < -1e30) if a.is_floating_point() else torch.zeros_like(a, dtype=torch.bool)
    if not torch.equal(hidden, (b < -1e30) if b.is_floating_point() else hidden):
        return float("inf")
    return float((a - b).masked_fill(hidden, 0).abs().max())


def explained(found: Finding, family: Family, theirs: Tensor, ours: Values, truth: Values, means: Meaning | str) -> Finding:
    """A reading that differs, with its reason; it stands only if our value is the model's own at the site, and theirs the
    model's own at the place that the hook is said to mean."""
    mine = distance(truth[found.site], ours[found.site]) <= WITHIN
    other = not isinstance(means, str) and distance(theirs, means.take(truth[means.site.removeprefix("@")])) <= WITHIN
    return _reasoned(found, "read", family, mine and other)


def settled(found: Finding, done: str, family: Family, theirs: Tensor, ours: Tensor, hand: Tensor | None) -> Finding:
    """A change or a gradient that differs, with its reason; it stands only if plain Hugging Face says the same as we do."""
    return _reasoned(found, done, family, hand is not None and distance(hand, ours) <= WITHIN < distance(hand, theirs))


def _reasoned(found: Finding, done: str, family: Family, holds: bool) -> Finding:
    who, why = reason(done, found.name, family)
    return replace(found, who=who, why=why) if holds and who else replace(found, why="nobody has found out")


# ---- the report --------------------------------------------------------------------------------------------------


def counts(findings: list[Finding]) -> Table:
    """A line for each family and peer."""
    caption = "A name that differs by the converter is compared once more by its meaning."
    made = Table(title=VERSIONS, caption=f"Equal: no number further apart than {WITHIN:.0e}. {caption}")
    for column in ("family", "beside"):
        made.add_column(column)
    for column in ("compared", "equal", "equal, other shape", "differ", "greatest gap of the equal", "no counterpart"):
        made.add_column(column, justify="right")
    pairs = list(dict.fromkeys((f.family, f.peer) for f in findings))
    for n, (family, peer) in enumerate(pairs):
        own = [f for f in findings if (f.family, f.peer) == (family, peer)]
        number = Counter(f.verdict for f in own)
        compared = len(own) - number["none"]
        gap = max((f.gap for f in own if f.verdict in ("equal", "other shape")), default=0.0)
        last = n + 1 == len(pairs) or pairs[n + 1][0] != family
        numbers = (compared, number["equal"], number["other shape"], number["differs"], f"{gap:.1e}", number["none"])
        made.add_row(family, peer, *map(str, numbers), end_section=last)
    return made


def differences(findings: list[Finding]) -> Table:
    """Every difference, layers taken together, with who is right."""
    made = Table(title="Differences")
    for column in ("beside", "families", "name", "site", "greatest gap", "who is right", "why"):
        made.add_column(column, overflow="fold", ratio=3 if column == "why" else None)
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        if f.verdict == "differs":
            groups.setdefault((f.peer, _layerless(f.name), _layerless(f.site), f.who, f.why), []).append(f)
    for (peer, name, site, who, why), own in groups.items():
        families, gap = ", ".join(dict.fromkeys(f.family for f in own)), f"{max(f.gap for f in own):.2g}"
        made.add_row(peer, families, name, site, gap, who or "[bold red]?[/]", why, end_section=True)
    return made


def without(findings: list[Finding]) -> Table:
    """Names that have no counterpart, and why."""
    made = Table(title="No counterpart")
    for column in ("beside", "families", "name or site", "why"):
        made.add_column(column, overflow="fold")
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for f in findings:
        if f.verdict == "none":
            groups.setdefault((f.peer, _layerless(f.name if f.peer == TL else f.site), f.why), []).append(f)
    for (peer, name, why), own in groups.items():
        made.add_row(peer, ", ".join(dict.fromkeys(f.family for f in own)), name, why)
    return made


def _layerless(name: str) -> str:
    return re.sub(r"(blocks|h|layers?)\.\d+\.", r"\1.*.", name)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [f.name for f in FAMILIES]
    parser.add_argument("--only", action="append", choices=names, metavar="FAMILY", help=f"one family: {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every finding to a file")
    said = parser.parse_args()
    findings = [f for family in FAMILIES if family.name in (said.only or names) for f in compare(family)]
    console = Console(width=None if sys.stdout.isatty() else 170)
    for show in (counts, differences, without):
        console.print(show(findings))
    if said.json:
        said.json.write_text(json.dumps([asdict(f) for f in findings], indent=2))
    open_ = [f for f in findings if f.verdict == "differs" and not f.who]
    console.print(f"{len(findings)} findings, {len(open_)} differences not explained.")
    sys.exit(bool(open_))


if __name__ == "__main__":
    main()
