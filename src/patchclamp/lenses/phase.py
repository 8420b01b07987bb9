"""Phase: when in training does a model begin to learn from its context, and do induction heads form at that time?

Olsson et al. 2022, "In-context learning and induction heads": within a short stretch of training, induction heads form, the
loss on repeated sequences falls, and so does the loss late in the context against that early in it; models of one layer never
get there. `phase` measures these at every checkpoint, `jump` says where a measure changes level and how surely: a curve always
has a best place to be cut in two, so the jump is compared with a straight line and with the steps in random order.

Not known here: what causes what. That two curves bend at one step is not that one bends the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from patchclamp.core.errors import NotAModel, Unserved, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.journal import leaf
from patchclamp.core.progress import progress
from patchclamp.lenses.attention import induction, looks, masks_of, previous, repeated, unrepeated
from patchclamp.model import load
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.likelihood import surprisals
from patchclamp.model.looks import shuffled
from patchclamp.model.measure import fingerprint
from patchclamp.model.model import Model

MEASURES = ("loss on repeats", "loss elsewhere", "in-context learning", "induction", "induction, control", "previous token")
LOTS = 999
"""Orders of the steps, and draws of the prompts, that a jump is compared with."""


def checkpoints(folder: str | Path) -> Iterator[tuple[int, Model]]:
    """The models in `step-*` (or `checkpoint-*`) folders, by step, one after another, and at last the one in the folder itself.

    The last is given the step after which it was saved where its card says so, else one more than the last.

    >>> from patchclamp.specimens import town
    >>> [step for step, _ in checkpoints(Path(town.__file__).parent)]
    [600, 1600, 8000]
    """
    folder = Path(folder)
    found = {int(path.name.rpartition("-")[2]): path for kind in ("step-*", "checkpoint-*") for path in folder.glob(kind)
             if path.name.rpartition("-")[2].isdigit()}  # fmt: skip
    if not found:
        raise NotAModel(f"{folder} has no folders step-... or checkpoint-...; give pairs of a step and a model instead.")
    whole = load.load(str(folder)) if (folder / "config.json").is_file() else None
    for step, path in sorted(found.items()):
        model = load.load(str(path))
        yield step, model if whole is None else load.load(model.hf, whole.tokenizer)
    if whole is not None:
        yield _last(folder, max(found)), whole


def phase(models: Iterable[tuple[int, Model]], prompts: Prompt | None = None, texts: Prompt | None = None) -> Grid:
    """What each checkpoint does with repeats: Grid(measure, step).

    `loss on repeats`: of the tokens after one that was there before, in nats; `loss elsewhere`: of the others. `in-context
    learning`: the loss late in a text less that early in it (its last quarter and its second eighth), on `texts`, else on the
    prompts; the lower, the more is learnt. `induction`, `previous token`: attention of the head that does it most; `induction,
    control`: of any head to the same places where nothing is repeated. Prompts are random tokens and the
    same again, unless given.

    >>> from patchclamp.specimens import town
    >>> parrot = "The list began: sun hat map key drink. The second list was the same: sun hat map key drink."
    >>> grid = phase(checkpoints(Path(town.__file__).parent), [parrot])
    >>> grid.shape, bool(grid.at(measure="induction").values[-1] > 0.5)
    ({'measure': 6, 'step': 3}, True)
    """
    page, steps, rows = None, [], []
    for n, (step, model) in enumerate(progress(models, label="checkpoints")):
        again, fresh = _inputs(model, prompts)
        page = page or leaf("phase", lambda a=again, m=model: (fingerprint(m), a.tokens, texts))
        if n not in page.known:
            page.write(n, _measured(model, again, fresh, texts))
        steps.append(step)
        rows.append(page.known[n])
    if not steps:
        raise WrongPrompt("there is no checkpoint to be measured; give pairs of a step and a model.")
    each = torch.stack(rows, -1)
    return Grid(each.nanmean(0), ("measure", "step"), {"measure": list(MEASURES), "step": list(map(str, steps))}, each=each,
                title="What checkpoints do with repeats", note="Losses in nats, looks as shares of attention.")  # fmt: skip


@dataclass(frozen=True)
class Jump:
    """Where a measure changes level."""

    before: int
    """The last step before."""
    after: int
    """The first step after."""
    size: float
    """The mean after less the mean before."""
    low: int
    """The first step after, in the earliest of 95 % of the draws of the prompts."""
    high: int
    """The same in the latest."""
    step: float
    """The share of the curve's variance that two levels explain."""
    line: float
    """The share that a straight line over the checkpoints explains."""
    p: float
    """How often the checkpoints in random order are cut in two as well."""

    @property
    def abrupt(self) -> bool:
        """Whether two levels say more than a straight line. A jump may be abrupt and small: compare `size` with a control's."""
        return self.step > self.line


def jump(grid: Grid, seed: int = 0) -> Jump:
    """Where one measure of `phase` jumps: `jump(grid.at(measure="induction"))`. Four checkpoints at least.

    >>> curve = torch.tensor([3.9, 3.9, 3.8, 3.9, 0.3, 0.2, 0.2])
    >>> found = jump(Grid(curve, ("step",), {"step": ["0", "100", "200", "300", "400", "500", "600"]}))
    >>> found.before, found.after, round(found.size, 2), found.abrupt
    (300, 400, -3.64, True)
    """
    if grid.axes != ("step",):
        over = " ".join(grid.axes)
        raise WrongPrompt(f"a jump is in one curve over steps; this grid is over {over}, take grid.at(measure=...).")
    steps, curve = [int(s) for s in grid.words("step")], grid.values.double()
    if len(steps) < 4:
        raise Unserved(f"{len(steps)} checkpoints are too few to say where a curve jumps; four are the least.")
    cut, share = _cut(curve[None])
    k = int(cut)
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(len(steps), generator=generator) for _ in range(LOTS)])
    p = (1 + int((_cut(curve[orders])[1] >= share - 1e-12).sum())) / (1 + LOTS)
    cuts = cut
    if grid.each is not None and len(grid.each) > 1:
        drawn = torch.randint(len(grid.each), (LOTS, len(grid.each)), generator=generator)
        cuts = _cut(grid.each.double()[drawn].nanmean(1))[0]
    low, high = (int(torch.quantile(cuts.double(), q, interpolation="nearest")) for q in (0.025, 0.975))
    size = float(curve[k:].mean() - curve[:k].mean())
    return Jump(steps[k - 1], steps[k], size, steps[low], steps[high], float(share), _line(curve), p)


def _cut(curves: Float[Tensor, "curve step"]) -> tuple[Tensor, Float[Tensor, " curve"]]:
    """Where each curve is best cut in two (the first index after), and the share of its variance that two levels explain."""
    n = curves.shape[1]
    sums, total = curves.cumsum(1), curves.sum(1, keepdim=True)
    k = torch.arange(1, n)
    first, second = sums[:, :-1] / k, (total - sums[:, :-1]) / (n - k)
    between = k * (n - k) / n * (first - second) ** 2
    best, at = between.max(1)
    return at + 1, best / (curves - curves.mean(1, keepdim=True)).square().sum(1).clamp(min=1e-12)


def _line(curve: Float[Tensor, " step"]) -> float:
    x = torch.arange(len(curve)).double()
    x, y = x - x.mean(), curve - curve.mean()
    return float((x @ y) ** 2 / ((x @ x) * (y @ y)).clamp(min=1e-12))


def _inputs(model: Model, prompts: Prompt | None) -> tuple[Inputs, Inputs]:
    if prompts is None:
        return model.inputs(repeated(model)), model.inputs(unrepeated(model))
    again = model.inputs(prompts)
    return again, shuffled(model, again)


def _measured(model: Model, again: Inputs, fresh: Inputs, texts: Prompt | None) -> Float[Tensor, "batch measure"]:
    masks = masks_of("induction", induction, again)
    on, off, context = [], [], []
    run = model.run(again)
    for r, mask in enumerate(masks):
        lost, repeats = surprisals(run, r), (mask > 0).any(1)[:-1]
        on.append(lost[repeats].mean())
        off.append(lost[~repeats].mean())
        context.append(_late(lost))
    if texts is not None:
        other = model.run(texts)
        late = torch.stack([_late(surprisals(other, r)) for r in range(other.tokens.shape[0])])
        context = [late.nanmean()] * len(on)
    attention = looks(model, again, {"induction": masks, "previous token": previous})
    control = looks(model, fresh, {"induction": masks})
    best = [
        _most(grid, name) for grid, name in ((attention, "induction"), (control, "induction"), (attention, "previous token"))
    ]
    return torch.stack([torch.stack(on), torch.stack(off), torch.stack(context), *best], 1)


def _late(lost: Float[Tensor, " pos"]) -> Float[Tensor, ""]:
    n = len(lost)
    return lost[-max(n // 4, 1) :].mean() - lost[n // 8 : max(n // 4, n // 8 + 1)].mean()


def _most(grid: Grid, look: str) -> Float[Tensor, " batch"]:
    """The attention of the head that has the most of it, prompt by prompt."""
    one = grid.at(look=look)
    assert one.each is not None
    return one.each.flatten(1)[:, int(one.values.flatten().nan_to_num(-1).argmax())]


def _last(folder: Path, step: int) -> int:
    """The step a folder's own model was saved at, as its card says it."""
    import json

    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        return max(int(card["recipe"]["steps"]), step + 1)
    except (OSError, ValueError, KeyError, TypeError):
        return step + 1
