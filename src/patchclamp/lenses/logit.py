"""The logit lens: the stream at every layer, read out as if it were the last.

nostalgebraist 2020, "interpreting GPT: the logit lens". The reading is done by the model's own end (its final norm, its
scalings, its unembedding), so at the last layer it is the output, exactly. Families differ in how legible early layers
are; what they seem to say there may be the lens's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from patchclamp.core.axes import Logits
from patchclamp.core.errors import Unserved, WrongAxis
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.core.window import Window
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model, Sites
from patchclamp.model.unembed import unembed

Translator = Callable[[str, Tensor], Tensor]
"""The stream at a place, `(path, (..., d_model))`, carried into the basis that the model's end reads."""


def lens(model: Model, prompt: Prompt, sites: Sites = "blocks.*.out", through: Translator | None = None) -> Grid:
    """The top token at every layer and position, its probability, and how far the reading is from the output.

    Values are the probability of the top token; `Grid.text` names it; `Grid.details` hold, cell by cell, the divergence
    KL(output || reading) in nats, the entropy of the reading in nats, and the rank of the token that the output puts first
    (0 is the top). `sites` may be any places of the stream's width: `blocks.*.mid`, or what is added, `blocks.*.mlp.out`.
    `through` carries the stream at each place into the basis that the model's end reads, as a `TunedLens` does.

    >>> grid = pc.lens(model, clean)
    >>> grid.axes, grid.text[-1][-1]
    (('layer', 'pos'), ' Mary')
    """
    inputs = model.inputs(prompt)
    pattern = [Site.parse(s) for s in ([sites] if isinstance(sites, (str, Site)) else sites)]
    paths = [p for s in pattern for p in _of_the_stream(model, s)]
    run = model.run(inputs, paths)
    if run.output is None:
        raise Unserved(f"{model.name} returns no logits, so there is nothing to read a stream out into.")
    streams = [run.kept[p].value if through is None else through(p, run.kept[p].value) for p in paths]
    cells = _readings(model, inputs, torch.stack(streams), run.logits)
    words = run.reader.vocabulary(run.logits.shape[-1])
    tokens, values = cells.pop("token"), cells["probability"]
    text = _nested(tokens.tolist(), values.isnan().tolist(), words)
    rows = [str(Site.parse(p).layer) if len(pattern) == 1 and pattern[0].stars == ("layer",) else p for p in paths]
    labels: dict[str, Sequence[str]] = {"layer": rows}
    axes = ("layer", "prompt", "pos")
    if values.shape[1] == 1:
        axes, text = ("layer", "pos"), [layer[0] for layer in text]
        cells = {name: value[:, 0] for name, value in cells.items()}
        labels |= {"pos": run.words[0]} if run.words[0] else {}
    else:
        labels["prompt"] = run.texts
    return Grid(cells.pop("probability"), axes, labels, unit="probability", title="Logit lens", scale="sequential", text=text,
                details=cells)  # fmt: skip


def _of_the_stream(model: Model, site: Site) -> tuple[str, ...]:
    """The places that a pattern names, where each holds one vector of the stream for every token that is answered."""
    if site.index:
        raise WrongAxis(f"a lens reads whole places; take {site.path}, and then grid.at({site.index[0][0]}=...).")
    towers = [t.prefix for t in model.anatomy.towers if t.prefix]
    paths = model.places(site)
    for path in paths:
        place = model.anatomy.places.get(path)
        axes = place.axes if place is not None else ()
        if axes != ("batch", "pos", "d_model") or any(path.startswith(prefix) for prefix in towers):
            has = f" has the axes {' '.join(axes)}" if axes and axes[-1] != "d_model" else " is not one"
            raise Unserved(f"a lens reads places of the stream that leads to the logits, such as blocks.*.out; {path}{has}.")
    return paths


def _readings(
    model: Model, inputs: Inputs, streams: Float[Tensor, "layer batch place d_model"], logits: Logits
) -> dict[str, Shaped[Tensor, "layer batch pos"]]:
    """Token, probability, divergence, entropy and rank of every cell."""
    truth = logits.float().log_softmax(-1)
    final = logits.argmax(-1, keepdim=True)
    found: dict[str, list[Tensor]] = {"token": [], "probability": [], "KL": [], "entropy": [], "rank": []}
    for some in unembed(model, inputs, streams):
        for one in some:
            said = one.float().log_softmax(-1)
            top = said.max(-1)
            found["token"].append(top.indices)
            found["probability"].append(top.values.exp())
            found["KL"].append(torch.where(truth.isinf(), 0, truth.exp() * (truth - said)).sum(-1).clamp(min=0))
            found["entropy"].append(torch.special.entr(said.exp()).sum(-1))
            found["rank"].append((one > one.gather(-1, final)).sum(-1).float())
    return {name: _without_padding(torch.stack(values), inputs.windows.get("")) for name, values in found.items()}


def _without_padding(cells: Shaped[Tensor, "layer batch columns"], window: Window | None) -> Shaped[Tensor, "layer batch pos"]:
    """Every prompt from its first token on; not a number after the end of the shorter ones."""
    rows = [window.tokens(r) for r in range(cells.shape[1])] if window else []
    longest = max(map(len, rows), default=cells.shape[2])
    if all(row == range(cells.shape[2]) for row in rows):
        return cells
    made = torch.full((*cells.shape[:2], longest), float("nan") if cells.is_floating_point() else 0, dtype=cells.dtype)
    for r, row in enumerate(rows):
        made[:, r, : len(row)] = cells[:, r, list(row)].cpu()
    return made


def _nested(tokens: list, empty: list, words: Sequence[str]) -> list:
    """The words of nested lists of tokens; nothing where there is no token."""
    if isinstance(tokens, int):
        return "" if empty else words[tokens]  # type: ignore[return-value]
    return [_nested(t, e, words) for t, e in zip(tokens, empty)]
