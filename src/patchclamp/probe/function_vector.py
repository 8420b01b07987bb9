"""Function vectors: a few heads carry which function is meant, and what they write, added to a bare cue, does it there.

Over prompts that show a function, the average output of every head at the last token. Each average, put by itself into a prompt
whose examples say nothing, raises the right answer by its *indirect effect*; the heads of largest effect, averaged over
functions, are the ones that carry the function. The sum of what they write is the function vector (Todd et al. 2023): added to
the stream of a prompt that shows nothing, it has the function done. The older task vector (Hendel et al. 2023) is the whole
stream at the last token of such a prompt, put in the place of the bare one's.

What it does not know: whether the vector *is* the function or asks for it. And a head of large effect may only repeat what
others found: effects are of one head at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.edit import patch
from patchclamp.core.errors import ShapeMismatch, Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.metric import prob
from patchclamp.core.site import Site
from patchclamp.core.uncertain import FEWEST, interval
from patchclamp.model.gather import gather
from patchclamp.model.inputs import Prompt
from patchclamp.model.measure import changes
from patchclamp.model.model import Model
from patchclamp.model.ride import Cell
from patchclamp.probe.lesson import Lesson, first_tokens

Means = Float[Tensor, "layer head d_head"]
HEADS = "blocks.*.attn.z"


def head_means(model: Model, prompts: Prompt) -> Means:
    """What each head puts out at the last token, averaged over prompts.

    >>> from patchclamp.probe.function_vector import head_means
    >>> head_means(model, ["cat: cats, dog: dogs, hen:", "hen: hens, dog: dogs, cat:"]).shape
    torch.Size([4, 8, 16])
    """
    return gather(model, HEADS, list(prompts)).mean(1)


def indirect_effects(model: Model, means: Means, corrupted: Lesson) -> Grid:
    """How much each head's average, by itself, raises the answer in prompts that do not show the function: Grid(layer, head).

    The average is put in at the last token; values are changes of the answer's probability, averaged over prompts. One forward
    pass a head and prompt, all exact.
    """
    inputs, paths = model.inputs(list(corrupted.prompts)), model.places(HEADS)
    if means.shape[0] != len(paths):
        raise ShapeMismatch(f"there are means of {means.shape[0]} layers; {model.name} has heads in {len(paths)}.")
    window = inputs.windows[""]
    start = min(window.tokens(row)[-1] for row in range(inputs.batch)) if model.anatomy.main.causal else 0
    cells = [
        Cell(((path, patch(Site.parse(f"{path}[head={head}, pos=-1]"), means[row, head])),), start)
        for row, path in enumerate(paths)
        for head in range(means.shape[1])
    ]
    metric = model.metric(prob(first_tokens(model, corrupted.answers)), None)
    found, base = changes(model, inputs, cells, metric, f"heads of {corrupted.name}")
    each = found.T.unflatten(1, (len(paths), means.shape[1]))
    details: dict[str, Tensor] = dict(zip(("low", "high"), interval(each))) if len(each) >= FEWEST else {}
    labels = {"layer": [str(Site.parse(HEADS).star_values(path)[0]) for path in paths]}
    title = f"What each head alone brings back of {corrupted.name}"
    return Grid(each.mean(0), ("layer", "head"), labels, unit="probability", each=each, details=details, title=title,
                baseline={"corrupted": float(base.mean())})  # fmt: skip


def carriers(effects: Sequence[Grid], count: int) -> list[tuple[int, int]]:
    """The heads of largest indirect effect, averaged over functions: rows of `HEADS` and heads.

    >>> from patchclamp.probe.function_vector import carriers
    >>> carriers([pc.Grid(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), ("layer", "head"))], 2)
    [(0, 1), (1, 0)]
    """
    total = torch.stack([grid.values for grid in effects]).mean(0)
    if not 0 < count <= total.numel():
        raise ShapeMismatch(f"there are {total.numel()} heads; the {count} of largest effect cannot be chosen.")
    return [divmod(i, total.shape[1]) for i in total.flatten().topk(count).indices.tolist()]


def function_vector(model: Model, means: Means, heads: Sequence[tuple[int, int]]) -> Float[Tensor, " d_model"]:
    """The sum of what some heads write to the stream on average: `pc.steer("blocks.1.out[pos=-1]", vector)`.

    >>> from patchclamp.probe.function_vector import function_vector, head_means
    >>> means = head_means(model, ["cat: cats, dog: dogs, hen:", "hen: hens, dog: dogs, cat:"])
    >>> function_vector(model, means, [(1, 5), (1, 3)]).shape
    torch.Size([128])
    """
    if not heads:
        raise WrongPrompt("a function vector is the sum of some heads' outputs; name one head at least.")
    paths, total = model.places(HEADS), torch.zeros(model.width)
    for row, head in heads:
        block = paths[row].removesuffix(".z")
        write = model.anatomy.block(block + ".").write("attn")
        if write is None or not write.linear or write.norms:
            raise Unserved(
                f"what one head of {block} writes cannot be told apart in {model.name}: a norm or a gate stands between its "
                "output and the stream. A task vector (the whole stream) can be used."
            )
        written = means[row, head] @ model.weights[f"{block}.W_O"][head].float().cpu()
        for factor in write.factors:
            written = written * (factor.cpu() if isinstance(factor, Tensor) else factor)
        total = total + written
    return total


def task_vector(model: Model, prompts: Prompt, site: str | Site) -> Float[Tensor, " d_model"]:
    """The stream at the last token, averaged over prompts that show a function: `pc.patch("blocks.1.out[pos=-1]", vector)`.

    Hendel et al. 2023 take it from one prompt whose last cue is a dummy; an average over cues says less of any one of them.
    """
    found = gather(model, site, list(prompts))
    if found.ndim != 2:
        raise ShapeMismatch(f'{site} holds no single vector a token; a task vector is of the stream, such as "blocks.4.out".')
    return found.mean(0)
