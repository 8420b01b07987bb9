"""What a model takes to be true, read from its activations: no labels, and not the words it says.

Of two statements one is true. A direction of the activations that says so must be consistent (what it gives the one it takes
from the other) and confident. Burns et al. 2022 search for such a direction (contrast-consistent search, CCS): each side of
the pairs is normalised by itself, so that the form of a statement cannot be what is found; a linear probe with a sigmoid is
then trained on

    L = (p(yes) - (1 - p(no)))² + min(p(yes), p(no))²

from several random starts, all of which are one tensor here; the lowest loss wins, and no label is looked at. `crc` is their
simpler relative, the top principal component of the differences. `mean_difference` and `logistic` are told the truth: they
are the ceiling. `chance` is a random direction: the floor.

What none of this knows: **which end is true** (`Belief.oriented` needs a few labels, and says so), and whether what it found
is truth at all. Any feature in which the two sides differ satisfies the loss (Farquhar et al. 2023); see `confound.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from scipy.cluster.vq import kmeans2
from torch import Tensor

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.probe.newton import logistic as newton

Side = Float[Tensor, "pair d_model"]
"""The activations of one side of every pair."""
Truth = Bool[Tensor, " pair"]
"""Whether the first side of a pair is the true one."""
RESTARTS, STEPS, RATE, DECAY = 10, 1000, 1e-2, 1e-2
FEWEST = 4
"""Pairs below which no direction is sought."""


@dataclass(frozen=True, eq=False)
class Belief:
    """A direction that says which side of a pair is true; calling it gives the probability that the first one is."""

    method: str
    weight: Float[Tensor, " d_model"]
    bias: float
    centre: Float[Tensor, "side d_model"]
    """The mean of each side, which is taken off before anything is read."""
    scale: Float[Tensor, "side d_model"]
    """The standard deviation of each side, by which is divided."""
    starts: Float[Tensor, "restart d_model"] | None = None
    """Where each random start ended, best first."""
    losses: Float[Tensor, " restart"] | None = None
    """Their losses, lowest first."""

    def __call__(self, yes: Side, no: Side) -> Float[Tensor, " pair"]:
        one, other = ((side - m) / s for side, m, s in zip((yes, no), self.centre, self.scale))
        return ((one @ self.weight + self.bias).sigmoid() + 1 - (other @ self.weight + self.bias).sigmoid()) / 2

    def right(self, yes: Side, no: Side, truth: Truth) -> Float[Tensor, " pair"]:
        """Pair by pair, 1 where it takes the true side, 0 where it takes the other, a half where it cannot say."""
        said = self(yes, no) - 0.5
        return torch.where(said == 0, 0.5, ((said > 0) == truth).float())

    @property
    def flipped(self) -> Belief:
        """The same direction read the other way round."""
        return replace(self, weight=-self.weight, bias=-self.bias)

    def oriented(self, yes: Side, no: Side, truth: Truth) -> Belief:
        """Whichever of the two readings fits these labelled pairs better."""
        return self if float(self.right(yes, no, truth).mean()) >= 0.5 else self.flipped


def ccs(yes: Side, no: Side, restarts: int = RESTARTS, steps: int = STEPS, seed: int = 0) -> Belief:
    """Contrast-consistent search: the direction of lowest loss among `restarts` random starts.

    >>> from patchclamp.probe.ccs import ccs
    >>> truth, noise = torch.arange(40) % 2 == 0, torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    >>> yes = noise[0] + torch.where(truth, 3.0, -3.0)[:, None] * torch.eye(8)[0]
    >>> no = noise[1] - torch.where(truth, 3.0, -3.0)[:, None] * torch.eye(8)[0]
    >>> found = ccs(yes, no).oriented(yes[:4], no[:4], truth[:4])
    >>> float(found.right(yes, no, truth).mean())
    1.0
    """
    (one, other), centre, scale = _normalised(yes, no)
    generator = torch.Generator().manual_seed(seed)
    start = torch.nn.functional.normalize(torch.randn(restarts, one.shape[1], generator=generator), dim=1)
    weight, bias = _descend(one, other, start, steps)
    final = loss(one, other, weight, bias)
    order = final.argsort()
    weight, bias = weight[order], bias[order]
    return Belief("ccs", weight[0], float(bias[0]), centre, scale, weight, final[order])


@torch.no_grad()
def _descend(yes: Side, no: Side, weight: Float[Tensor, "start d_model"], steps: int) -> tuple[Tensor, Tensor]:
    """AdamW on the loss from every start at once. The slope is written out: autograd costs several times the arithmetic."""
    x = torch.cat([yes, no])
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    ends = torch.cat([weight, torch.zeros_like(weight[:, :1])], 1)
    first, second = torch.zeros_like(ends), torch.zeros_like(ends)
    for step in range(1, steps + 1):
        p = (x @ ends.T).sigmoid().view(2, len(yes), -1)
        slope = 2 * (p[0] + p[1] - 1) + 2 * p * torch.stack([p[0] < p[1], p[1] <= p[0]])
        slope = (slope * p * (1 - p)).flatten(0, 1).T @ x / len(yes)
        first.lerp_(slope, 0.1)
        second.lerp_(slope.square(), 0.001)
        size = (second / (1 - 0.999**step)).sqrt_().add_(1e-8)
        ends = ends * (1 - RATE * DECAY) - RATE * (first / (1 - 0.9**step)) / size
    return ends[:, :-1], ends[:, -1]


def loss(yes: Side, no: Side, weight: Float[Tensor, "start d_model"], bias: Float[Tensor, " start"]) -> Tensor:
    """The loss of each start on normalised pairs: eq. 1 to 3 of Burns et al. 2022."""
    p, q = (yes @ weight.T + bias).sigmoid(), (no @ weight.T + bias).sigmoid()
    return ((p + q - 1).square() + torch.minimum(p, q).square()).mean(0)


def crc(yes: Side, no: Side) -> Belief:
    """The top principal component of the normalised differences (CRC-TPC)."""
    (one, other), centre, scale = _normalised(yes, no)
    return Belief("crc", torch.linalg.svd(one - other, full_matrices=False).Vh[0], 0.0, centre, scale)


def mean_difference(yes: Side, no: Side, truth: Truth) -> Belief:
    """From the false sides' mean to the true sides': told the truth, but nothing is optimised."""
    (one, other), centre, scale = _normalised(yes, no)
    weight = torch.where(truth, 1.0, -1.0) @ (one - other) / len(truth)
    return Belief("mean difference", weight, 0.0, centre, scale)


def logistic(yes: Side, no: Side, truth: Truth, ridge: float = 1.0) -> Belief:
    """Logistic regression on the normalised differences, told the truth: what a linear probe can get at most."""
    (one, other), centre, scale = _normalised(yes, no)
    weight, _ = newton(one - other, truth.float(), ridge, intercept=False)
    return Belief("logistic", weight, 0.0, centre, scale)


def chance(yes: Side, no: Side, seed: int = 0) -> Belief:
    """A random direction."""
    (one, _), centre, scale = _normalised(yes, no)
    return Belief("random", torch.randn(one.shape[1], generator=torch.Generator().manual_seed(seed)), 0.0, centre, scale)


METHODS: dict[str, Callable[[Side, Side, Truth, int], Belief]] = {
    "ccs": lambda yes, no, truth, seed: ccs(yes, no, seed=seed),
    "crc": lambda yes, no, truth, seed: crc(yes, no),
    "mean difference": lambda yes, no, truth, seed: mean_difference(yes, no, truth),
    "logistic": lambda yes, no, truth, seed: logistic(yes, no, truth),
    "random": lambda yes, no, truth, seed: chance(yes, no, seed),
}
"""By name: without labels, with the truth of the training pairs, and at random."""
SUPERVISED = ("mean difference", "logistic")


def levelled(yes: Side, no: Side, group: Int[Tensor, " pair"]) -> tuple[Side, Side]:
    """Both sides with the mean of their group taken off and the standard deviation of their group divided by.

    With groups by a candidate confound, nothing that depends on it linearly is left; with groups found by `clusters`, this is
    the cluster normalisation of Laurito et al. 2024, for confounds that nobody thought of.
    """
    sides = yes.clone(), no.clone()
    for name in group.unique():
        here = group == name
        if here.sum() < FEWEST:
            raise WrongPrompt(
                f"group {int(name)} has {int(here.sum())} pairs and needs {FEWEST} to have a mean; make fewer groups."
            )
        for side in sides:
            side[here] = (side[here] - side[here].mean(0)) / _spread(side[here])
    return sides


def clusters(yes: Side, no: Side, count: int = 2, seed: int = 0) -> Int[Tensor, " pair"]:
    """Pairs grouped by what their two sides have in common: k-means on the mean of the two (the paper takes HDBSCAN)."""
    found = kmeans2(((yes + no) / 2).double().numpy(), count, minit="++", rng=seed)[1]
    return torch.from_numpy(found).long()


def _normalised(yes: Side, no: Side) -> tuple[tuple[Side, Side], Tensor, Tensor]:
    if yes.shape != no.shape or yes.ndim != 2:
        raise ShapeMismatch(
            f"the sides of the pairs have the shapes {list(yes.shape)} and {list(no.shape)}; both are (pair, d)."
        )
    if len(yes) < FEWEST:
        raise WrongPrompt(f"a direction is sought in {FEWEST} pairs at least; there are {len(yes)}.")
    centre = torch.stack([yes.mean(0), no.mean(0)])
    scale = torch.stack([_spread(yes), _spread(no)])
    return ((yes - centre[0]) / scale[0], (no - centre[1]) / scale[1]), centre, scale


def _spread(side: Side) -> Float[Tensor, " d_model"]:
    """Standard deviations; 1 where a coordinate is constant."""
    found = side.std(0)
    return torch.where(found > 1e-6, found, torch.ones_like(found))
