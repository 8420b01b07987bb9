"""The logit lens: the stream at every layer, read out as if it were the last.

nostalgebraist 2020, "interpreting GPT: the logit lens". The reading is done by the model's own end (its final norm, its
scalings, its unembedding), so at the last layer it is the output, exactly. Families differ in how legible early layers
are; what they seem to say there may be the lens's fault.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchclamp.core.errors import Unserved
from patchclamp.core.grid import Grid
from patchclamp.core.site import Site
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model, Sites
from patchclamp.model.unembed import unembed


def lens(model: Model, prompt: Prompt, sites: Sites = "blocks.*.out", *, decoder: Prompt = None) -> Grid:
    """The top token at every layer and position, its probability, and how far the reading is from the output.

    Values are the probability of the top token; `Grid.text` names it; `Grid.details` hold, cell by cell, the divergence
    KL(output || reading) in nats, the entropy of the reading in nats, and the rank of the token that the output puts first
    (0 is the top). `sites` may be any places of the stream's width: `blocks.*.mid`, or what is added, `blocks.*.mlp.out`.

    >>> import patchclamp as pc
    >>> town = pc.load("specimen:town")
    >>> grid = pc.lens(town, "When Mary and John went to the store, John gave a drink to")
    >>> grid.axes
    ('layer', 'pos')
    """
    inputs = model.inputs(prompt, None, decoder)
    pattern = [Site.parse(s) for s in ([sites] if isinstance(sites, (str, Site)) else sites)]
    paths = [p for s in pattern for p in model.places(s)]
    run = model.run(inputs, paths)
    if run.output is None:
        raise Unserved(f"{model.name} returns no logits, so there is nothing to read a stream out into.")
    columns = _columns(inputs)
    readings = _readings(model, inputs, torch.stack([run.kept[p].value for p in paths]), run.logits, columns)
    words = run.reader.vocabulary(run.logits.shape[-1])
    cells = {name: torch.stack(found) for name, found in readings.items()}
    text = [[[words[int(t)] for t in row] for row in layer] for layer in cells.pop("token")]
    return _grid(model, run, pattern, paths, cells, text)


def _columns(inputs: Inputs) -> list[list[int]]:
    """The columns that hold tokens, prompt by prompt; a lens shows no padding."""
    window = inputs.windows.get("")
    if window is None:
        return []
    return [list(window.tokens(r)) for r in range(inputs.batch)]


def _readings(
    model: Model, inputs: Inputs, streams: Tensor, logits: Tensor, columns: list[list[int]]
) -> dict[str, list[Tensor]]:
    """Layer by layer: token, probability, divergence, entropy and rank, each (batch, pos)."""
    truth = logits.float().log_softmax(-1)
    final = logits.argmax(-1, keepdim=True)
    found: dict[str, list[Tensor]] = {"token": [], "probability": [], "KL": [], "entropy": [], "rank": []}
    for some in unembed(model, inputs, streams):
        for one in some:
            said = one.float().log_softmax(-1)
            top = said.max(-1)
            found["token"].append(top.indices)
            found["probability"].append(top.values.exp())
            found["KL"].append((truth.exp() * (truth - said)).sum(-1).clamp(min=0))
            found["entropy"].append(-(said.exp() * said).sum(-1))
            found["rank"].append((one > one.gather(-1, final)).sum(-1).float())
    return found


def _grid(model: Model, run, pattern: list[Site], paths: list[str], cells: dict[str, Tensor], text) -> Grid:
    one = run.tokens.shape[0] == 1
    rows = [str(Site.parse(p).layer) if len(pattern) == 1 and pattern[0].stars == ("layer",) else p for p in paths]
    if one:
        window = run.windows.get("")
        columns = list(window.tokens(0)) if window else list(range(next(iter(cells.values())).shape[-1]))
        cells = {k: v[:, 0, columns] for k, v in cells.items()}
        text = [[layer[0][c] for c in columns] for layer in text]
    words = list(run.words[0]) if one and run.words[0] else None
    labels = {"layer": rows} | ({"pos": words} if words else {})
    axes = ("layer", "pos") if one else ("layer", "prompt", "pos")
    values = cells.pop("probability")
    return Grid(values, axes, labels, unit="probability", title="Logit lens", scale="sequential", text=text, details=cells)
