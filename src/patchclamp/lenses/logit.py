"""The logit lens: the stream at every layer, read out as if it were the last.

nostalgebraist 2020, "interpreting GPT: the logit lens". The reading is done by the model's own end (its final norm, its
scalings, its unembedding), so at the last layer it is the output, exactly. Families differ in how legible early layers
are; what they seem to say there may be the lens's fault. A translator (`through=`) makes it another lens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid, by_stars
from patchclamp.core.site import Site, Span
from patchclamp.core.window import Window
from patchclamp.lenses.parts import KINDS, Parts
from patchclamp.lenses.readings import Output
from patchclamp.lenses.translator import Translator
from patchclamp.model.inputs import Prompt
from patchclamp.model.model import Model, Sites
from patchclamp.model.unembed import End

UNITS = {"KL": "nats", "entropy": "nats", "rank": "tokens above", "p(output)": "probability"}
"""What the details of a lens are measured in."""


def lens(model: Model, prompt: Prompt, sites: Sites = "blocks.*.out", through: Translator | None = None) -> Grid:
    """The top token at every layer and position, its probability, and how far the reading is from the output.

    Values are the probability of the top token; `Grid.text` names it; `Grid.details` hold, cell by cell, the divergence
    KL(output || reading) in nats, the entropy of the reading in nats, the id of the top token, and of the token that the
    output puts first the probability and the rank (0 is the top). `sites` may be any places of the stream's width
    (`blocks.*.mid`, or what is added, `blocks.*.mlp.out`), and what single heads or neurons write: `blocks.*.attn.z[head=*]`,
    `blocks.2.mlp.act[neuron=5:9]`. What is added is put through the final norm by itself, so its reading says which way it
    points and not how long it is.

    `through` is a translator, `(path, stream) -> stream`, e.g. a tuned lens; without one this is the logit lens. Where it has a
    `title`, that is the grid's.

    >>> grid = pc.lens(model, clean)
    >>> grid.axes, grid.text[-1][-1]
    (('layer', 'pos'), ' Mary')
    >>> heads = pc.lens(model, clean, "blocks.*.attn.z[head=*]")
    >>> heads.shape
    {'layer': 4, 'head': 8, 'pos': 15}
    """
    inputs = model.inputs(prompt)
    pattern = [Site.parse(s) for s in ([sites] if isinstance(sites, (str, Site)) else sites)]
    places = [(path, _parts(model, site, path)) for site in pattern for path in _readable(model, site)]
    end = End.of(model, inputs, sorted({p for path, parts in places for p in (parts.reads if parts else (path,))}))
    output = Output(end.run.logits)
    rows = [_read(end, output, path, parts, through) for path, parts in places]
    window = inputs.windows.get("")
    cells = {name: [_without_padding(r[name], window) for r in rows] for name in rows[0]}
    return _grid(end, pattern, places, cells, _title(through))


def _readable(model: Model, site: Site) -> tuple[str, ...]:
    """The places that a pattern names: each holds one vector of the stream for every token that is answered, or its parts."""
    towers = [t.prefix for t in model.anatomy.towers if t.prefix]
    paths = model.places(site)
    for path in paths:
        place = model.anatomy.places.get(path)
        axes = place.axes if place is not None else ()
        part = KINDS.get(path.rpartition(".")[2])
        elsewhere = any(path.startswith(prefix) for prefix in towers)
        if part in axes and site.index and not elsewhere:
            continue
        if axes != ("batch", "pos", "d_model") or elsewhere:
            has = f" has the axes {' '.join(axes)}" if axes and axes[-1] != "d_model" else " is not one"
            cure = f"; {site.path}[{part}=*] reads what each {part} writes" if part in axes else ""
            raise Unserved(
                f"a lens reads places of the stream that leads to the logits, such as blocks.*.out; {path}{has}{cure}."
            )
        if site.index:
            raise WrongAxis(f"a lens reads whole places; take {site.path}, and then grid.at({site.index[0][0]}=...).")
    return paths


def _parts(model: Model, site: Site, path: str) -> Parts | None:
    return Parts.of(model, site, path) if site.index else None


def _read(end: End, output: Output, path: str, parts: Parts | None, through: Translator | None) -> dict:
    """What one place says (entry batch pos): one entry, or one a part."""
    found: dict[str, list[Tensor]] = {}
    for streams in _streams(end, path, parts, through):
        for one in end(streams):
            for name, value in output.read(one).items():
                found.setdefault(name, []).append(value.cpu())
    return {name: torch.stack(values) for name, values in found.items()}


def _streams(
    end: End, path: str, parts: Parts | None, through: Translator | None
) -> Iterator[Float[Tensor, "some batch place d_model"]]:
    """What is to be read at one place, as much at a time as the logits have room for.

    A place of the stream is read by itself: that is the very product the model ends with, so the last layer's is the output.
    """
    if parts is None:
        stream = end.run.kept[path].value
        yield (stream if through is None else through(path, stream))[None]
        return
    for n in range(0, len(parts.entries), end.room):
        some = parts.entries[n : n + end.room]
        written = parts.written(end.run, some)
        if through is not None:
            axis = KINDS[path.rpartition(".")[2]]
            written = torch.stack([through(f"{path}[{axis}={i}]", one) for i, one in zip(some, written)])
        yield written


def _grid(end: End, pattern: Sequence[Site], places: Sequence[tuple[str, Parts | None]], rows: dict[str, list[Tensor]],
          title: str) -> Grid:  # fmt: skip
    """The readings (entry batch pos) of every place, laid out along the stars of a pattern; several patterns are rows."""
    run, site = end.run, pattern[0]
    spread = len(pattern) == 1 and bool(site.stars)
    cells, labels, axes = {}, {}, ()
    for name, values in rows.items():
        if spread:
            stacked = torch.stack([v.float() for v in values]).movedim(2, 0)  # batch path entry pos
            part = stacked if isinstance(dict(site.index).get(_axis(site)), Span) else stacked[:, :, 0]
            made, axes, labels = by_stars(site, [path for path, _ in places], part)
            cells[name] = made.movedim(0, -2)
        else:
            cells[name], axes = torch.cat([v.float() for v in values]), ("layer",)
            labels = {"layer": [_named(path, parts, i) for path, parts in places for i in (parts.entries if parts else (0,))]}
    if spread and places[0][1] is not None and _axis(site) in axes:
        labels |= {_axis(site): [str(i) for i in places[0][1].entries]}
    if run.tokens.shape[0] == 1:
        cells, axes = {name: value[..., 0, :] for name, value in cells.items()}, (*axes, "pos")
        labels |= {"pos": run.words[0]} if run.words[0] else {}
    else:
        axes, labels = (*axes, "prompt", "pos"), {**labels, "prompt": run.texts}
    text = _nested(cells["token"], run.reader.vocabulary(run.logits.shape[-1]))
    return Grid(cells.pop("probability"), axes, labels, unit="probability", title=title, scale="sequential", text=text,
                details=cells)  # fmt: skip


def _title(through: Translator | None) -> str:
    own = getattr(through, "title", None)
    return "Logit lens" if through is None else own if isinstance(own, str) else "Lens"


def _axis(site: Site) -> str:
    return site.index[0][0] if site.index else ""


def _named(path: str, parts: Parts | None, entry: int) -> str:
    return path if parts is None else f"{path}[{KINDS[path.rpartition('.')[2]]}={entry}]"


def _without_padding(cells: Shaped[Tensor, "entry batch columns"], window: Window | None) -> Shaped[Tensor, "entry batch pos"]:
    """Every prompt from its first token on; not a number after the end of the shorter ones."""
    rows = [window.tokens(r) for r in range(cells.shape[1])] if window else []
    longest = max(map(len, rows), default=cells.shape[2])
    if all(row == range(cells.shape[2]) for row in rows):
        return cells
    made = torch.full((*cells.shape[:2], longest), float("nan"))
    for r, row in enumerate(rows):
        made[:, r, : len(row)] = cells[:, r, list(row)].float()
    return made


def _nested(tokens: Float[Tensor, "*cells"], words: Sequence[str]) -> list:
    """The words of nested lists of tokens; nothing where there is no token."""

    def each(some: list | float) -> list | str:
        return [each(s) for s in some] if isinstance(some, list) else "" if some != some else words[int(some)]

    return each(tokens.tolist())  # type: ignore[return-value]
