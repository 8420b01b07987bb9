"""Tree: is the tree of a reasoning to be seen in what the last token attends to?

Hou et al. 2023 ("Towards a mechanistic interpretation of multi-step reasoning capabilities of language models"): some of a
prompt's statements are needed for the answer, at different heights of a known tree. Each statement is described by the
attention that the last token pays it, averaged over heads, one number a layer; two classifiers by nearest neighbours ask of it

    useful   is it one of those that the answer needs?
    height   of those that are: how high in the tree?

Attention in a model that has learned nothing says something about both too (about small numbers, say, where small ones tend to
be needed), so the score is what is gained over models with weights drawn anew, as a share of what there is to gain: (F1 - F1
untrained) / (1 - F1 untrained). Nearest neighbours learn nothing but distances: what they find lies open.

The paper's own figures count heights by the F1 of two labels, the first of which all useful statements have; here a height is
one class. What the score does not say: that attention *moves* what it looks at. For that, cut it (`pc.freeze`, `cause.path`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.model.model import Model
from patchclamp.model.untrained import untrained

NEIGHBOURS = 8
QUESTIONS = ("useful", "height")


def tree(model: Model, prompts: Int[Tensor, "prompt token"] | Sequence, statements: Int[Tensor, "prompt statement"],
         heights: Int[Tensor, "prompt statement"], *, seeds: Sequence[int] = (0, 1, 2)) -> Grid:  # fmt: skip
    """Scores of both questions from the attention of the first layers up to each: Grid(question, layer).

    `statements` are positions; `heights` are 0 for a statement that is not needed, and its height in the tree otherwise. The
    untrained F1 is the mean over `seeds`; `Grid.details` has the F1 of the model and of the untrained ones, and the score that
    the luckiest and the unluckiest of these have by the same measure: what a score has to stand clear of.

    >>> from patchclamp.probe.smallest import LISTED, heights, lists
    >>> from patchclamp.probe.tree import tree
    >>> small, prompts = pc.load("specimen:smallest"), lists(200, 7)
    >>> grid = tree(small, prompts, torch.arange(LISTED).expand(200, -1), heights(prompts), seeds=[0])
    >>> grid.axes, grid.words("question")
    (('question', 'layer'), ['useful', 'height'])
    """
    if statements.shape != heights.shape or len(statements) != len(prompts):
        raise ShapeMismatch(
            f"{len(prompts)} prompts, statements {list(statements.shape)}, heights {list(heights.shape)}: one row a prompt."
        )
    models = [model, *(untrained(model, seed) for seed in seeds)]
    if len(models) < 2:
        raise WrongPrompt("the score is a gain over untrained models; give seeds= one at least.")
    f1 = torch.stack([
        torch.stack(_layers(attended(one, prompts, statements), heights))
        for one in progress(models, label="reading trees")
    ])  # fmt: skip
    base = f1[1:].mean(0)
    scores = (f1 - base) / (1 - base).clamp(min=1e-6)
    details = {
        "F1": f1[0].T,
        "untrained F1": base.T,
        "untrained, least": scores[1:].amin(0).T,
        "untrained, most": scores[1:].amax(0).T,
    }
    note = (
        f"{NEIGHBOURS} nearest neighbours, halves of the prompts in turn; gain in macro F1 over {len(seeds)} untrained models."
    )
    return Grid(scores[0].T, ("question", "layer"), {"question": list(QUESTIONS)}, "share of the possible gain",
                f"The reasoning tree in the attention of {model.name}", note, details=details)  # fmt: skip


def attended(model: Model, prompts: Int[Tensor, "prompt token"] | Sequence,
             statements: Int[Tensor, "prompt statement"]) -> Float[Tensor, "prompt statement layer"]:  # fmt: skip
    """The attention of the last token to each statement, averaged over heads; the largest of a prompt is 1."""
    found = []
    for first in range(0, len(prompts), 256):
        run = model.run(prompts[first : first + 256], "blocks.*.attn.pattern[query=-1]", logits=False)
        looked = run["blocks.*.attn.pattern[query=-1]"].float().mean(2)  # layer batch head key
        rows = statements[first : first + 256]
        starts = torch.tensor([run.windows[""].tokens(r).start for r in range(len(rows))])
        places = (rows + starts[:, None]).expand(len(looked), -1, -1)
        found.append(looked.gather(2, places).permute(1, 2, 0))
    made = torch.cat(found)
    return made / made.amax((1, 2), keepdim=True).clamp(min=1e-12)


def nearest(x: Float[Tensor, "prompt statement f"], y: Int[Tensor, "prompt statement"], among: Tensor) -> float:
    """Macro F1 of nearest neighbours on statements `among` (a mask), each half of the prompts judged by the other."""
    from sklearn.metrics import f1_score
    from sklearn.neighbors import KNeighborsClassifier

    half, scores = len(x) // 2, []
    for train, test in ((slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))):
        known, asked = among[train], among[test]
        model = KNeighborsClassifier(NEIGHBOURS, weights="distance").fit(x[train][known].numpy(), y[train][known].numpy())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = model.predict(x[test][asked].numpy())
        scores.append(f1_score(y[test][asked].numpy(), said, average="macro"))
    return sum(scores) / 2


def _layers(x: Tensor, heights: Tensor) -> list[Tensor]:
    """For each depth, (useful, height) by the layers up to it."""
    needed = heights > 0
    everything = torch.ones_like(needed)
    return [
        torch.tensor([nearest(x[..., : n + 1], needed.long(), everything), nearest(x[..., : n + 1], heights, needed)])
        for n in range(x.shape[-1])
    ]
