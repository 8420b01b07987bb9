"""Activating: the texts on which neurons, heads, latents or directions are most active, and less active ones of every strength.

One pass over a stream of texts, for any number of units at once. What is kept does not grow with the stream: for each unit the
texts with the highest and with the lowest activation, a few drawn by lot from every band of strength (half an octave wide), and
how many tokens fell into each band, which is the histogram. A text is represented by its most active token. Bills et al. 2023
and Bricken et al. 2023 show such examples; the top alone say little of what a unit mostly does.

    found = activating(model, "blocks.1.mlp.act[neuron=*]", texts, folder="neurons")
    found.page(model, 17).show()

Stopped and begun again with the same folder, it goes on and comes to the same examples, drawn ones included. Nothing here says
what the examples have in common: `model/illusion.py` compares two streams, `model/shortest.py` cuts one example down.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.core.journal import digest
from patchclamp.core.progress import progress
from patchclamp.core.site import Site, Span
from patchclamp.model.inputs import rows
from patchclamp.model.measure import fingerprint
from patchclamp.picture import Bars, Page, Section, Tokens

if TYPE_CHECKING:
    from patchclamp.model.model import Model

BANDS = 24
"""Bands on either side of zero, half an octave each: the largest activation of the first texts lies 16 bands up."""
HEADROOM = 8
"""Bands above the largest activation of the first texts."""
BATCH = 64
"""Texts that are run at a time."""
ROOM = 1 << 26
"""Activations that are held at a time, at most: of wide dictionaries fewer texts are run at once."""
PATIENCE = 30.0
"""Seconds between two writings of what is known so far."""
STATE = "activating.safetensors"
FIRST = 16
"""Texts by which the bands are laid out."""
Peaks = tuple[Any, Any]
"""Of one text, for each unit: the highest activation and where, the lowest and where."""


@dataclass(frozen=True)
class Example:
    """One text and how active a unit is at each of its tokens."""

    ids: tuple[int, ...]
    words: tuple[str, ...]
    values: tuple[float, ...]
    pos: int
    """The token it was chosen for."""
    prompt: int
    """Its number in the stream."""

    @property
    def value(self) -> float:
        """The activation it was chosen for."""
        return self.values[self.pos]

    def picture(self, limits: tuple[float, float] | None = None) -> Tokens:
        """The text, each token coloured by the unit's activation there."""
        low = min(0.0, *self.values)
        return Tokens(self.words, torch.tensor(self.values).numpy(), "activation", "diverging" if low < 0 else "sequential",
                      limits, title=f"{self.value:.3g} at “{self.words[self.pos].strip()}”, text {self.prompt}")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Activating:
    """What one pass found; every table has a row a unit. `examples`, `band` and `page` read it."""

    site: str
    along: Float[Tensor, "unit d_model"] | None
    top: Mapping[str, Tensor]
    """`value`, `prompt` and `pos`, the highest first: (unit, n). Not a number where there were fewer texts."""
    bottom: Mapping[str, Tensor]
    """The lowest first."""
    lot: Mapping[str, Tensor]
    """The same for texts drawn from each band: (unit, band, n), and their `key`, the lot they drew."""
    count: Int[Tensor, "unit band"]
    """Tokens in each band."""
    scale: Float[Tensor, " unit"]
    """The upper end of band 16 above zero."""
    seen: Mapping[str, int]
    """How many `prompts` and `tokens` there were."""
    texts: Mapping[int, tuple[int, ...]] = field(repr=False)
    """The ids of every text that is an example of something."""

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.scale)

    def edges(self, unit: int) -> Float[Tensor, " edge"]:
        """Where a unit's bands begin and end."""
        steps = self.scale[unit] * 2.0 ** ((torch.arange(BANDS + 1) - (BANDS - HEADROOM)) / 2)
        return torch.cat([-steps.flip(0)[:-1], torch.zeros(1), steps[1:]])

    def active(self, least: float = 0.0) -> Float[Tensor, " unit"]:
        """The share of tokens at which each unit is above a share of its largest activation."""
        most = self.top["value"][:, 0].clamp(min=1e-30)
        bands = torch.stack([self.edges(u)[:-1] >= least * float(most[u]) for u in range(self.units)])
        bands[:, :BANDS] = False
        return (self.count * bands).sum(1) / self.count.sum(1).clamp(min=1)

    def examples(self, model: Model, unit: int, which: str = "top", n: int = 20) -> list[Example]:
        """A unit's `top` or `bottom` texts, run again for the activations at all their tokens."""
        if which not in ("top", "bottom"):
            raise WrongAxis(f'examples are "top" or "bottom", or found.band(...) for those between; not "{which}".')
        table = self.top if which == "top" else self.bottom
        return self._read(model, unit, {k: v[self._unit(unit), :n] for k, v in table.items()})

    def band(self, model: Model, unit: int, low: float, high: float, n: int = 5) -> list[Example]:
        """Texts drawn by lot among those whose largest activation lies between two shares of the unit's largest of all.

        `found.band(model, 17, 0.4, 0.6)` is what it does at half its strength. The shares are those of whole bands.
        """
        edges, most = self.edges(self._unit(unit)), float(self.top["value"][unit, 0])
        middle = (edges[:-1] + edges[1:]) / 2
        chosen = (middle >= low * most) & (middle <= high * most)
        table = {k: v[unit, chosen].flatten() for k, v in self.lot.items()}
        order = table["key"].argsort()[:n]
        return self._read(model, unit, {k: table[k][order] for k in ("value", "prompt", "pos")})

    def quantiles(self, model: Model, unit: int, bins: int = 4, n: int = 3) -> list[list[Example]]:
        """Texts from equal steps of activation, the lowest step first: between zero and the largest, `bins` of them."""
        return [self.band(model, unit, i / bins, (i + 1) / bins, n) for i in range(bins)]

    def histogram(self, unit: int) -> Bars:
        """How many tokens fell into each band that has any."""
        edges, counts = self.edges(self._unit(unit)), self.count[unit]
        used = counts.nonzero()[:, 0].tolist()
        labels = tuple(f"{float(edges[b]):.3g} to {float(edges[b + 1]):.3g}" for b in used)
        title = f"Activations of unit {unit}"
        return Bars(counts[used].float().numpy(), labels, "tokens", "activation", "sequential", title=title,
                    note=f"{self.seen['tokens']} tokens of {self.seen['prompts']} texts; bands of half an octave.")  # fmt: skip

    def page(self, model: Model, unit: int, n: int = 10) -> Page:
        """A unit at a glance: how often it is how active, its top texts, and texts of every strength."""
        best = self.examples(model, unit, n=n)
        limits = (min(0.0, *(min(e.values) for e in best)), best[0].value) if best else None
        parts = [Section("How active", pictures=(self.histogram(unit),)),
                 Section("Most active", pictures=tuple(e.picture(limits) for e in best))]  # fmt: skip
        for i, some in reversed(list(enumerate(self.quantiles(model, unit)))):
            if some:
                title = f"Between {i / 4:.0%} and {(i + 1) / 4:.0%} of the largest"
                parts.append(Section(title, pictures=tuple(e.picture(limits) for e in some)))
        lowest = self.examples(model, unit, "bottom", 3)
        if lowest and lowest[0].value < 0:
            parts.append(Section("Least active", pictures=tuple(e.picture() for e in lowest)))
        return Page(f"Unit {unit} of {self.site}", "", {"texts": f"{self.seen['prompts']}", "tokens": f"{self.seen['tokens']}"},
                    tuple(parts))  # fmt: skip

    def _unit(self, unit: int) -> int:
        if not -self.units <= unit < self.units:
            raise WrongAxis(f"{self.site} has {self.units} units, 0 to {self.units - 1}; {unit} is outside.")
        return unit

    def _read(self, model: Model, unit: int, table: Mapping[str, Tensor]) -> list[Example]:
        kept = [i for i, value in enumerate(table["value"].tolist()) if value == value]
        prompts, places = ([int(table[k][i]) for i in kept] for k in ("prompt", "pos"))
        ids = [self.texts[p] for p in prompts]
        if not ids:
            return []
        values = [v[:, unit].tolist() for v in read(model, self.site, [list(i) for i in ids], self.along)]
        words = [tuple(model.run_reader.words(i)) for i in ids]
        return [Example(i, w, tuple(v), pos, p) for i, w, v, pos, p in zip(ids, words, values, places, prompts)]


def activating(
    model: Model,
    site: str,
    texts: Iterable,
    *,
    along: Tensor | None = None,
    top: int = 20,
    lot: int = 3,
    folder: str | Path | None = None,
    seed: int = 0,
    total: int | None = None,
) -> Activating:
    """The examples of all units of a site, in one pass over texts (or ids).

    `site` has a star over its units: `blocks.1.mlp.act[neuron=*]`, `blocks.1.attn.z[head=*]` (a head is as active as its
    output is long), `blocks.1.out.latents[latent=*]` of a spliced dictionary, and `[neuron=100:200]` for some of them. Or it is
    a place of the stream, and `along` one direction or several: (unit, d_model). `top` texts are kept at either end, and `lot`
    drawn from each band. With a `folder`, what is known is written there every half minute, and when stopped; the same call
    goes on from there, on the same texts in the same order. `total`, the number of texts, is for the progress bar.

    >>> from patchclamp.model.activating import activating
    >>> found = activating(model, "blocks.1.mlp.act[neuron=*]", [clean, corrupt, "Mary"])
    >>> found.units, dict(found.seen), len(found.examples(model, 0))
    (384, {'prompts': 3, 'tokens': 32}, 3)
    """
    if top < 1 or lot < 1:
        raise WrongAxis(f"top and lot are numbers of texts, one or more; got {top} and {lot}.")
    if along is not None:
        along = along.detach().float().cpu().reshape(-1, along.shape[-1])
    asked = {"model": fingerprint(model), "site": site, "along": None if along is None else digest(along), "top": top,
             "lot": lot, "seed": seed}  # fmt: skip
    found = None if folder is None else _resumed(Path(folder), asked, site, along)
    done = 0 if found is None else found.seen["prompts"]
    due = time.monotonic() + PATIENCE
    stream = islice(iter(texts), done, None)
    try:
        for batch in progress(_batches(stream), None if total is None else -(-(total - done) // BATCH), "activating texts"):
            ids = [rows(model.tokenizer, t)[0] if not isinstance(t, Tensor) else t.tolist() for t in batch]
            found, peaks = _looked(model, found, ids, site, along, top, lot)
            found = _joined(found, ids, peaks, top, lot, seed)
            if folder is not None and time.monotonic() > due:
                _write(found, Path(folder), asked)
                due = time.monotonic() + PATIENCE
    finally:
        if folder is not None and found is not None:
            _write(found, Path(folder), asked)
    if found is None:
        raise WrongPrompt("there is no text to look for examples in.")
    return found


def read(model: Model, site: str, prompts: Sequence, along: Tensor | None = None) -> list[Float[Tensor, "pos unit"]]:
    """How active every unit of a site is at every token of each prompt; `along` as in `activating`.

    >>> from patchclamp.model.activating import read
    >>> read(model, "blocks.1.mlp.act[neuron=*]", [clean])[0].shape
    torch.Size([15, 384])
    """
    asked = Site.parse(site)
    stars = [(axis, span) for axis, span in asked.index if isinstance(span, Span)]
    one_axis = len(asked.index) == 1 and len(asked.stars) == len(stars) and "pos" not in dict(asked.index)
    if asked.index if along is not None else not one_axis:
        raise WrongAxis(f"{site}: name one place, and its units by one axis such as [neuron=*] or [neuron=7], or give along=.")
    run = model.run(prompts, asked.bare(), logits=False)
    value, axes, windows = run.stored(asked.bare())
    value = value.float()
    if along is not None:
        if value.shape[-1] != along.shape[-1]:
            raise ShapeMismatch(f"{site} is {value.shape[-1]} wide, and the directions {along.shape[-1]}.")
        value = value @ along.reshape(-1, along.shape[-1]).T.to(value)
    else:
        axis, entry = asked.index[0]
        if axis not in axes:
            raise WrongAxis(f'{site} has no axis "{axis}"; its axes are {" ".join(axes)}.')
        value = value.movedim(axes.index(axis), 2)
        value = value[:, :, list(entry.of(value.shape[2])) if isinstance(entry, Span) else [entry]]
        value = value.flatten(3).norm(dim=3) if value.ndim > 3 else value
    return [value[r, list(windows["pos"].tokens(r))].cpu() for r in range(len(value))]


def _batches(texts: Iterator) -> Iterator[list]:
    while batch := list(islice(texts, BATCH)):
        yield batch


def _empty(site: str, along: Tensor | None, values: list[Tensor], top: int, lot: int) -> Activating:
    """Nothing yet. The bands are laid out by the first texts."""
    most = torch.cat(values).abs().amax(0)
    heard = most[most > 0]
    scale = torch.where(most > 0, most, heard.median() if len(heard) else torch.ones(()))  # silent so far: like the others
    units, nan = len(scale), float("nan")

    def table(*shape: int) -> dict[str, Tensor]:
        whole = torch.full((units, *shape), -1, dtype=torch.int32)
        return {"value": torch.full((units, *shape), nan), "prompt": whole, "pos": whole.clone()}

    lots = {**table(2 * BANDS, lot), "key": torch.full((units, 2 * BANDS, lot), float("inf"))}
    count = torch.zeros(units, 2 * BANDS, dtype=torch.long)
    return Activating(site, along, table(top), table(top), lots, count, scale, {"prompts": 0, "tokens": 0}, {})


def _looked(model: Model, found: Activating | None, ids: list[list[int]], site: str, along: Tensor | None, top: int,
            lot: int) -> tuple[Activating, list[Peaks]]:  # fmt: skip
    """The highest and the lowest activation of each text; the tokens are counted, so that no text's need be held."""
    peaks, at = list[Peaks](), 0
    count = None if found is None else found.count.clone()
    while at < len(ids):
        room = FIRST if found is None else max(1, ROOM // (found.units * max(map(len, ids[at : at + BATCH]))))
        values = read(model, site, ids[at : at + min(room, BATCH)], along)
        found = found or _empty(site, along, values, top, lot)
        count = torch.zeros_like(found.count) if count is None else count
        rows_of = torch.arange(found.units) * 2 * BANDS
        for v in values:
            bands = (_band(v, found.scale) + rows_of).flatten()
            count.view(-1).index_add_(0, bands, torch.ones_like(bands))
            peaks.append((v.max(0), v.min(0)))
        at += len(values)
    assert found is not None and count is not None
    return replace(found, count=count), peaks


def _joined(found: Activating, ids: list[list[int]], peaks: list[Peaks], top: int, lot: int, seed: int) -> Activating:
    """What is known, and the peaks of a batch more."""
    first, units = found.seen["prompts"], found.units
    ends, lots = {}, found.lot
    for end, (name, sign) in enumerate((("top", 1.0), ("bottom", -1.0))):
        best = [peak[end] for peak in peaks]
        mine = {"value": torch.stack([b.values for b in best], 1), "pos": torch.stack([b.indices for b in best], 1).int(),
                "prompt": torch.arange(first, first + len(ids)).int().expand(units, -1)}  # fmt: skip
        known = {k: torch.cat([getattr(found, name)[k], mine[k]], 1) for k in mine}
        order = (sign * known["value"]).nan_to_num(-float("inf")).sort(dim=1, descending=True, stable=True).indices[:, :top]
        ends[name] = {k: v.gather(1, order) for k, v in known.items()}
        if name == "top":
            lots = _drawn(found, mine, lot, seed + 1_000_003 * first)
    made = replace(found, top=ends["top"], bottom=ends["bottom"], lot=lots,
                   seen={"prompts": first + len(ids), "tokens": found.seen["tokens"] + sum(map(len, ids))})  # fmt: skip
    known_texts = {**found.texts, **{first + i: tuple(row) for i, row in enumerate(ids)}}
    wanted = {int(p) for t in (made.top, made.bottom, made.lot) for p in t["prompt"].unique()} - {-1}
    return replace(made, texts={p: known_texts[p] for p in sorted(wanted)})


def _drawn(found: Activating, mine: Mapping[str, Tensor], lot: int, seed: int) -> dict[str, Tensor]:
    """Each band keeps those of its texts that drew the lowest lots: a fair draw, however long the stream."""
    units, n = mine["value"].shape
    keys = torch.rand(n, generator=torch.Generator().manual_seed(seed)).expand(units, n)
    bands = _band(mine["value"].T, found.scale).T
    order = (bands + keys).argsort(1)
    sorted_bands = bands.gather(1, order)
    starts = torch.searchsorted(sorted_bands.contiguous(), torch.arange(2 * BANDS).expand(units, -1).contiguous())
    at = starts[:, :, None] + torch.arange(lot)
    inside = at.clamp(max=n - 1)
    picked = order.gather(1, inside.flatten(1)).view(units, 2 * BANDS, lot)
    fits = (at < n) & (sorted_bands.gather(1, inside.flatten(1)).view_as(at) == torch.arange(2 * BANDS)[None, :, None])
    new = {k: v.gather(1, picked.flatten(1)).view_as(picked) for k, v in {**mine, "key": keys}.items()}
    new["key"] = torch.where(fits, new["key"], float("inf"))
    new["value"] = torch.where(fits, new["value"], float("nan"))
    both = {k: torch.cat([found.lot[k], new[k]], 2) for k in new}
    keep = both["key"].sort(dim=2, stable=True).indices[:, :, :lot]
    made = {k: v.gather(2, keep) for k, v in both.items()}
    made["prompt"] = torch.where(made["key"].isinf(), -1, made["prompt"])
    return made


def _band(values: Float[Tensor, "row unit"], scale: Float[Tensor, " unit"]) -> Int[Tensor, "row unit"]:
    """Below zero from the largest inwards, above zero from the smallest outwards; zero is the smallest above."""
    size = (2 * (values.abs() / scale).clamp(min=1e-30).log2()).ceil().long() + (BANDS - HEADROOM) - 1
    size = size.clamp(0, BANDS - 1)
    return torch.where(values < 0, BANDS - 1 - size, BANDS + size)


def _write(found: Activating, folder: Path, asked: Mapping[str, Any]) -> None:
    tensors = {f"{name}.{k}": v.contiguous() for name in ("top", "bottom", "lot") for k, v in getattr(found, name).items()}
    tensors |= {
        "count": found.count,
        "scale": found.scale,
        "ids": torch.tensor([t for row in found.texts.values() for t in row]),
    }
    tensors |= {"prompts": torch.tensor(list(found.texts)), "lengths": torch.tensor([len(row) for row in found.texts.values()])}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        about = {"asked": json.dumps(asked), "seen": json.dumps(dict(found.seen))}
        save_file(tensors, folder / (STATE + ".part"), about)
        os.replace(folder / (STATE + ".part"), folder / STATE)
    except OSError as error:
        raise NotSaved(f"{folder} could not be written ({error.strerror}); keep the examples in another folder.") from None


def _resumed(folder: Path, asked: Mapping[str, Any], site: str, along: Tensor | None) -> Activating | None:
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            about, tensors = file.metadata() or {}, {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise NotSaved(f"{path} could not be read ({error}); delete it to begin anew.") from None
    before = json.loads(about["asked"])
    other = next((k for k in asked if before.get(k) != asked[k]), None)
    if other is not None:
        raise NotSaved(f"{folder} holds other examples: their {other} was {before.get(other)}, and is {asked[other]} now. "
                       "Ask the same, or name another folder.")  # fmt: skip
    names = ("top", "bottom", "lot")
    top, bottom, lot = ({k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{n}.")} for n in names)
    parts = tensors["ids"].split(tensors["lengths"].tolist())
    texts = {int(p): tuple(row.tolist()) for p, row in zip(tensors["prompts"], parts)}
    return Activating(site, along, top, bottom, lot, tensors["count"], tensors["scale"], json.loads(about["seen"]), texts)
