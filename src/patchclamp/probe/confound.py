"""Is it truth that was found, or something more salient? The diagnosis of an unsupervised direction.

Whatever tells the two sides of contrast pairs apart, in any consistent way, satisfies the loss of CCS as well as truth does;
what is found is the most prominent of such features, an opinion that the prompt mentions, say (Farquhar et al. 2023). That
cannot be seen in the loss. It can be seen from the outside, for features that somebody thought of, by four questions:

    agreement     with which feature does the direction agree, on held-out pairs, and with which combination (XOR) of two?
    torn          in the pairs where a feature and the truth contradict each other, which of the two does it follow?
    starts        do other random starts with about as low a loss find another direction, and what does that agree with?
    levelled      with a feature levelled out (`ccs.levelled`), what is found then?

The verdict puts the answers into a sentence. A feature that nobody named is not ruled out, and the verdict says no more than
that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchclamp.core.edit import steer
from patchclamp.core.errors import ShapeMismatch, WrongPrompt, did_you_mean
from patchclamp.core.grid import Grid
from patchclamp.core.uncertain import wilson
from patchclamp.model.gather import gather
from patchclamp.picture import Page, Section
from patchclamp.probe.ccs import FEWEST, RESTARTS, Belief, Side, ccs, levelled

if TYPE_CHECKING:
    from patchclamp.model.model import Model

SAME = 0.9
"""Two directions are one where they agree, up to sign, in this share of pairs."""
NEAR = 0.02
"""A start is as good as the best if its loss is no more than this above it; a loss of 0.25 says nothing about any pair."""
FOLLOWS = 0.8
"""A direction follows a feature that it agrees with in this share of pairs."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What a direction found without labels is about."""

    claimed: str
    """The feature it is meant to be."""
    agreement: Grid
    """Grid(feature): share of held-out pairs in which direction and feature agree, up to the direction's sign."""
    torn: Grid
    """Grid(feature): where the feature and the claimed one differ, in what share of the pairs the claimed one is followed.

    Not a number where they never differ.
    """
    starts: Grid
    """Grid(direction, feature): every different direction among the starts of low loss, the best first."""
    levelled: Grid
    """Grid(levelled, feature): what is found when one feature is levelled out."""
    belief: Belief

    @property
    def follows(self) -> str:
        """The feature it agrees with most, or nothing where it follows none."""
        (where, best), *_ = self.agreement.top(1)
        return where["feature"] if best >= FOLLOWS else ""

    @property
    def sound(self) -> bool:
        """Whether it follows the claimed feature, also where others contradict it; one that never does leaves a doubt."""
        return self.follows == self.claimed and bool((self.torn.values >= FOLLOWS).all())

    @property
    def verdict(self) -> str:
        """The diagnosis in plain words."""
        share = {name: float(self.agreement.at(feature=name).values) for name in self.agreement.words("feature")}
        told = f"{self.claimed} in {share[self.claimed]:.0%} of held-out pairs"
        shares = dict(zip(self.torn.words("feature"), self.torn.values.tolist()))
        others = [name for name, value in shares.items() if value == value]
        alike = [name for name, value in shares.items() if value != value]
        said = [f"The direction found agrees with {told}."]
        if self.sound:
            said.append(f"It follows {self.claimed} also where {_listed(others)} would have it otherwise." if others else "")
        elif self.follows and self.follows != self.claimed:
            said[0] = f"Not {self.claimed}: the direction found agrees with {self.follows} in {share[self.follows]:.0%}, "
            said[0] += f"with {told}."
        elif not self.follows:
            said.append("It follows none of the features named.")
        elif others and min(shares[name] for name in others) < FOLLOWS:
            least = min(shares[name] for name in others)
            said.append(f"Where {_listed(others)} contradicts, {self.claimed} is followed in {least:.0%} only.")
        if alike:
            said.append(f"No held-out pair tells {_listed([self.claimed, *alike])} apart: which it is cannot be said.")
        return " ".join([*filter(None, said), *self._besides()])

    def _besides(self) -> list[str]:
        count = self.starts.shape["direction"]
        said = []
        if count > 1:
            about = {self.starts.at(direction=i).top(1)[0][0]["feature"] for i in range(count)}
            said.append(
                f"Starts of about the same loss end in {count} different directions ({_listed(sorted(about))} at most)."
            )
        for name in self.levelled.words("levelled"):
            share = float(self.levelled.at(levelled=name, feature=self.claimed).values)
            said.append(f"With {name} levelled out, {self.claimed} is found in {share:.0%}.")
        return said

    def picture(self) -> Page:
        """The four answers, with the verdict above them."""
        parts = [
            Section("What the direction agrees with", pictures=(self.agreement.picture(),)),
            Section(
                f"Where a feature contradicts {self.claimed}",
                pictures=(self.torn.picture(),) if self.torn.values.numel() else (),
            ),
            Section("Other starts of low loss", pictures=(self.starts.picture(),)),
            Section("With a feature levelled out", pictures=(self.levelled.picture(),) if self.levelled.values.numel() else ()),
        ]
        return Page(
            "Diagnosis of a direction found without labels", self.verdict, sections=tuple(p for p in parts if p.pictures)
        )

    def show(self) -> None:
        """Draw in the terminal or notebook."""
        self.picture().show()

    def html(self) -> str:
        """One self-contained HTML page."""
        return self.picture().html()

    def _repr_html_(self) -> str:
        return self.picture()._repr_html_()

    def __rich__(self):
        return self.picture().__rich__()


def diagnose(
    yes: Side,
    no: Side,
    features: Mapping[str, Bool[Tensor, " pair"]],
    claimed: str = "truth",
    fitted: Bool[Tensor, " pair"] | None = None,
    restarts: int = 2 * RESTARTS,
    seed: int = 0,
) -> Diagnosis:
    """Search by CCS, and find out what was found.

    `features` say of each pair whether its first side has them: the claimed one and every candidate confound. The search sees
    the pairs `fitted` (half of them, drawn by lot, unless told otherwise), and every figure is about the others. Where pairs
    share a subject, say `fitted` so that a subject is on one side only.

    >>> from patchclamp.probe.confound import diagnose
    >>> draw = torch.Generator().manual_seed(0)
    >>> truth, said = (torch.rand(80, generator=draw) < 0.5 for _ in range(2))
    >>> axes = torch.stack([torch.where(f, 1.0, -1.0) for f in (truth, said)], 1) * torch.tensor([0.5, 3.0])
    >>> yes, no = (torch.randn(80, 2, generator=draw) * 0.3 + sign * axes for sign in (1, -1))
    >>> diagnose(yes, no, {"truth": truth, "said": said}).follows
    'said'
    """
    known = _features(features, claimed, len(yes))
    if fitted is None:
        fitted = torch.randperm(len(yes), generator=torch.Generator().manual_seed(seed)) < len(yes) // 2
    tested = ~fitted
    if min(int(fitted.sum()), int(tested.sum())) < FEWEST:
        raise WrongPrompt(f"a diagnosis needs {FEWEST} pairs to search and {FEWEST} to judge by; there are {len(yes)}.")
    belief = ccs(yes[fitted], no[fitted], restarts, seed=seed)
    names = tuple(known)
    agreement, sides = _agreements(belief, yes[tested], no[tested], {k: v[tested] for k, v in known.items()})
    low, high = wilson(agreement, int(tested.sum()))
    plain = {name: feature for name, feature in features.items() if name != claimed}
    return Diagnosis(
        claimed,
        Grid(agreement, ("feature",), {"feature": names}, "fraction", "Agreement with what was found", scale="sequential",
             details={"low": low, "high": high}),
        _torn(sides, features[claimed][tested], {name: f[tested] for name, f in plain.items()}, claimed),
        _starts(belief, yes[tested], no[tested], {k: v[tested] for k, v in known.items()}),
        _without(yes, no, known, plain, fitted, restarts, seed),
        belief,
    )  # fmt: skip


def planted(
    model: Model,
    yes: Sequence[str],
    no: Sequence[str],
    label: Bool[Tensor, " pair"],
    below: str,
    site: str,
    strength: float = 2.0,
) -> tuple[Side, Side]:
    """Both sides' activations at `site`, with a label written into the stream at `below`: a confound whose truth is known.

    A fixed random direction is added where the side has the label, and taken off where it has not, `strength` times as long as
    the stream itself is on average.
    """
    direction = torch.randn(model.width, generator=torch.Generator().manual_seed(0))
    direction *= strength * gather(model, below, yes).norm(dim=1).mean() / direction.norm()
    sides = []
    for prompts, has in ((yes, label), (no, ~label)):
        side = torch.empty(len(prompts), model.width)
        for sign, here in ((1.0, has), (-1.0, ~has)):
            rows = here.nonzero()[:, 0].tolist()
            side[here] = gather(model.edit(steer(below, sign * direction)), site, [prompts[i] for i in rows])
        sides.append(side)
    return sides[0], sides[1]


def _features(features: Mapping[str, Tensor], claimed: str, pairs: int) -> dict[str, Tensor]:
    """The features and the XOR of every two of them."""
    if claimed not in features:
        raise WrongPrompt(
            f'the claimed feature "{claimed}" is not among {", ".join(features)}.{did_you_mean(claimed, features)}'
        )
    for name, feature in features.items():
        if feature.shape != (pairs,):
            raise ShapeMismatch(f'{pairs} pairs have {list(feature.shape)} entries of "{name}"; give one for each.')
    both = {f"{one} xor {other}": features[one] != features[other] for one, other in combinations(features, 2)}
    return {**features, **both}


def _agreements(
    belief: Belief, yes: Side, no: Side, features: Mapping[str, Tensor]
) -> tuple[Float[Tensor, " feature"], Tensor]:
    """With each feature, up to sign; and which side of each pair it takes."""
    side = belief(yes, no) > 0.5
    found = torch.stack([(side == feature).float().mean() for feature in features.values()])
    return torch.maximum(found, 1 - found), side


def _torn(side: Tensor, claimed: Tensor, plain: Mapping[str, Tensor], name: str) -> Grid:
    """The sign is the one that fits the claimed feature better over all pairs: the doubt is in its favour."""
    side = side if float((side == claimed).float().mean()) >= 0.5 else ~side
    shares = [(side == claimed)[feature != claimed].float().mean() for feature in plain.values()]
    values = torch.stack(shares) if shares else torch.zeros(0)
    title = f"Share of contradicting pairs in which {name} is followed"
    return Grid(values, ("feature",), {"feature": tuple(plain)}, "fraction", title, scale="sequential")


def _starts(belief: Belief, yes: Side, no: Side, features: Mapping[str, Tensor]) -> Grid:
    assert belief.starts is not None and belief.losses is not None
    near = belief.starts[belief.losses <= belief.losses[0] + NEAR]
    kept: list[Tensor] = []
    rows = []
    for weight in near:
        agreement, side = _agreements(_with(belief, weight), yes, no, features)
        alike = [float((side == other).float().mean()) for other in kept]
        if all(1 - SAME < one < SAME for one in alike):
            kept.append(side)
            rows.append(agreement)
    note = f"{len(near)} of {len(belief.starts)} starts have a loss within {NEAR} of the lowest, {float(belief.losses[0]):.3f}."
    return Grid(torch.stack(rows), ("direction", "feature"), {"feature": tuple(features)}, "fraction",
                "Different directions of low loss, and what they agree with", note, "sequential")  # fmt: skip


def _with(belief: Belief, weight: Tensor) -> Belief:
    """Which side is taken does not depend on the bias, so a start's own is not needed."""
    return Belief(belief.method, weight, 0.0, belief.centre, belief.scale)


def _without(yes, no, known, plain, fitted, restarts, seed) -> Grid:
    """Search again with each candidate levelled out, in the pairs that are searched and in those that judge, each by itself."""
    rows = []
    for feature in plain.values():
        searched, judged = (levelled(yes[part], no[part], feature[part].long()) for part in (fitted, ~fitted))
        belief = ccs(*searched, restarts, seed=seed)
        rows.append(_agreements(belief, *judged, {k: v[~fitted] for k, v in known.items()})[0])
    values = torch.stack(rows) if rows else torch.zeros(0, len(known))
    return Grid(values, ("levelled", "feature"), {"levelled": tuple(plain), "feature": tuple(known)}, "fraction",
                "What is found with a feature levelled out", scale="sequential")  # fmt: skip


def _listed(names) -> str:
    *most, last = names or [""]
    return f"{', '.join(most)} and {last}" if most else last
