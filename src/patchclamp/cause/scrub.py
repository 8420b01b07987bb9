"""Causal scrubbing: replace every activation by one that a hypothesis holds to be as good, and see what behaviour is left.

A hypothesis is a tree (Chan et al. 2022). Each node says that what a place holds depends on the input only through a feature of
it, and which further places, its children, it gets that feature from. If that is so, the place's value may be taken from any
other input with the same feature. So, from the answer down, each node's input is replaced by a random one that agrees with it;
its value is computed on a random, unrelated input into which only its children's values, resampled in their turn, are put.
Whatever a node does not name as a child therefore comes from that unrelated input, the same one for all of it.

What it does not know: a true and vague hypothesis passes as a true and sharp one does; mistakes may cancel each other; and a
feature that hardly two inputs share tests nothing (one that no two share is refused). Nodes are sites, so a place that several
readers share is resampled for all of them at once, except where the readers are told apart: `attn.q`, `attn.k` and `attn.v` of
a head, `mlp.in`, and each branch of the tree have values of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import torch
from torch import Tensor

from patchclamp.cause.abstraction import Location, WrongHypothesis, answered, chunks, read, resampled, taken
from patchclamp.core.axes import Answers, Logits, Part, PerPrompt
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.grid import Grid
from patchclamp.core.metric import Metric
from patchclamp.core.progress import progress
from patchclamp.core.site import Site
from patchclamp.model.inputs import Inputs, Prompt
from patchclamp.model.model import Model


@dataclass(frozen=True, eq=False, init=False)
class Interpretation:
    """What a place is said to hold: a feature of the input, which it has from its children; without children, from anywhere.

    >>> from patchclamp.cause.scrub import Interpretation
    >>> names = Interpretation("blocks.3.out[pos=-1]", lambda text: text.split()[1])
    """

    location: Location
    feature: Callable[[Any], Hashable]
    children: tuple[Interpretation, ...]

    def __init__(self, site: Location | Site | str, feature: Callable[[Any], Hashable],
                 children: Sequence[Interpretation] = ()) -> None:  # fmt: skip
        made = site if isinstance(site, Location) else Location(site)
        for name, value in (("location", made), ("feature", feature), ("children", tuple(children))):
            object.__setattr__(self, name, value)


def scrub(model: Model, tree: Sequence[Interpretation], inputs: Sequence[Any], loss: Metric | Callable[[Logits], PerPrompt], *,
          prompt: Callable[[Any], Prompt] = lambda given: given, draws: int = 4, batch: int = 64,
          seed: int = 0) -> Grid:  # fmt: skip
    """How much of the gap between a random answer's loss and the model's is recovered under a hypothesis: a Grid of one number.

    `tree` holds the nodes that the answer is said to come from. Every one of `inputs` is scrubbed `draws` times; `loss` is a
    metric with one token an input, such as `pc.nll(answers)`, or any function of the answers' logits (input, 1, vocab), and is
    always taken with the input's own token. `prompt` makes the text or ids of an input, where it is not that already.

    1: the hypothesis explains all of it. 0: no better than an answer to some other input. `Grid.baseline` has the three losses
    (`model`, `scrubbed`, `random`), `Grid.details` the ends of a 95 % bootstrap interval over inputs.

    >>> from patchclamp.cause.scrub import Interpretation, scrub
    >>> other = Interpretation("blocks.3.out[pos=-1]", lambda text: text == clean)
    >>> found = scrub(model, [other], [clean, corrupt] * 2, pc.nll([" Mary", " John"] * 2))
    >>> round(float(found.values), 2)
    1.0
    """
    scrubbing = _Scrubbing.of(model, tree, inputs, prompt, batch, seed)
    plain = scrubbing.plain()
    measured = _measured(model, loss)
    own, n = measured(plain), len(inputs)
    rounds = progress(range(draws), label="scrubbing")
    scrubbed = torch.stack([measured(scrubbing.answers()) for _ in rounds]).mean(0)
    picks = [[scrubbing.rng.randrange(n) for _ in range(n)] for _ in range(draws)]
    chance = torch.stack([measured(plain[rows]) for rows in picks]).mean(0)
    return _recovered(own, scrubbed, chance, getattr(loss, "unit", ""), seed)


@dataclass(frozen=True, eq=False)
class _Scrubbing:
    model: Model
    tree: tuple[Interpretation, ...]
    given: Sequence[Any]
    inputs: Inputs
    """All of them, as the network reads them."""
    batch: int
    rng: Random

    @classmethod
    def of(cls, model: Model, tree: Sequence[Interpretation], given: Sequence[Any], prompt: Callable[[Any], Prompt],
           batch: int, seed: int) -> _Scrubbing:  # fmt: skip
        if not tree:
            raise WrongHypothesis("the tree has no node; name at least one place that the answer comes from.")
        if len(given) < 2:
            raise WrongPrompt(f"resampling takes other inputs from among those given; {len(given)} is too few.")
        made = cls(model, tuple(tree), given, read(model, prompt, given), batch, Random(seed))
        for node in tree:
            made._check(node)
        return made

    @torch.no_grad()
    def plain(self) -> Answers:
        """The answer to every input, nothing replaced."""
        return torch.cat([answered(self.model.run(taken(self.inputs, rows))) for rows in chunks(len(self.given), self.batch)])

    @torch.no_grad()
    def answers(self) -> Answers:
        """The answer to every input, scrubbed once."""
        found = []
        for refs in chunks(len(self.given), self.batch):
            model, rows = self._under(self.tree, list(refs))
            found.append(answered(model.run(taken(self.inputs, rows))))
        return torch.cat(found)

    def _under(self, children: Sequence[Interpretation], refs: list[int]) -> tuple[Model, list[int]]:
        """The model with every child in place, and the unrelated inputs to run it on; a leaf is run on its own input."""
        if not children:
            return self.model, refs
        rows = [self.rng.randrange(len(self.given)) for _ in refs]
        bases = [self.given[row] for row in rows]
        return self.model.edit(*(child.location.swap(self._value(child, refs), bases) for child in children)), rows

    def _value(self, node: Interpretation, refs: list[int]) -> Part:
        """What a node's place holds for inputs that agree with these."""
        labels, members = self.features[id(node)]
        agreeing = [self.rng.choice(members[labels[ref]]) for ref in refs]
        model, rows = self._under(node.children, agreeing)
        run = model.run(taken(self.inputs, rows), node.location.site.bare(), logits=False)
        return node.location.parts(run, [self.given[row] for row in rows])

    @cached_property
    def features(self) -> dict[int, tuple[list[Hashable], dict[Hashable, list[int]]]]:
        """For each node the feature of every input, and the inputs that have each."""
        found: dict[int, tuple[list[Hashable], dict[Hashable, list[int]]]] = {}
        todo = list(self.tree)
        while todo:
            node = todo.pop()
            todo += node.children
            labels, members = [node.feature(each) for each in self.given], {}
            for row, label in enumerate(labels):
                members.setdefault(label, []).append(row)
            found[id(node)] = labels, members
        return found

    def _check(self, node: Interpretation) -> None:
        """A node that resamples nothing, or whose child comes after it in a pass, would be tested by nothing."""
        site, places = node.location.site, self.model.anatomy.places
        if len(self.features[id(node)][1]) == len(self.given):
            raise WrongHypothesis(
                f"no two of the {len(self.given)} inputs agree on the feature of {site}, so nothing can be resampled there. "
                "Take a coarser feature, or more inputs."
            )
        (mine,) = self.model.places(site)
        for child in node.children:
            (theirs,) = self.model.places(child.location.site)
            if theirs == mine or (theirs in places and mine in places and places[theirs].order >= places[mine].order):
                raise WrongHypothesis(
                    f"{child.location.site} is no earlier than {site}, so {site} cannot have its feature from it."
                )
            self._check(child)


def _measured(model: Model, loss: Metric | Callable[[Logits], PerPrompt]) -> Callable[[Answers], PerPrompt]:
    """The loss of each input from its answer's logits."""
    bound = model.metric(loss)

    def measured(answers: Answers) -> PerPrompt:
        found = bound(answers[:, None])
        if not isinstance(found, Tensor) or found.shape != (len(answers),):
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeMismatch(f"a loss gives one number per input, a tensor [{len(answers)}]; this one gave {shape}.")
        return found.detach().float().cpu()

    return measured


def _recovered(own: PerPrompt, scrubbed: PerPrompt, chance: PerPrompt, unit: str, seed: int) -> Grid:
    gap = float(chance.mean() - own.mean())
    if abs(gap) < 1e-6:
        raise WrongPrompt("the model's answers to other inputs are as good as its own, so there is no gap to recover.")
    means = resampled(torch.stack([chance - scrubbed, chance - own], dim=1), seed=seed)
    low, high = (means[:, 0] / means[:, 1]).quantile(torch.tensor([0.025, 0.975]))
    each = (chance - scrubbed) / gap
    losses = {"model": float(own.mean()), "scrubbed": float(scrubbed.mean()), "random": float(chance.mean())}
    told = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    return Grid(
        each.mean(), (), unit="fraction of the gap", title="Loss recovered under the hypothesis", each=each,
        details={"low": low, "high": high}, baseline=losses,
        note=f"95 % interval {float(low):.3f} to {float(high):.3f}. Loss{f' in {unit}' if unit else ''}: {told}.",
    )  # fmt: skip
