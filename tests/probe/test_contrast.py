"""Contrast directions, against planted ones, closed forms and the conditions of an optimum."""

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.core.uncertain import auroc
from patchclamp.model.gather import every
from patchclamp.probe.contrast import Logistic, MeanDifference, Principal, held_out

LIKED = [f"The {show} was {word}. We went home" for show in ("film", "play") for word in ("lovely", "superb", "perfect")]
DISLIKED = [f"The {show} was {word}. We went home" for show in ("film", "play") for word in ("dull", "boring", "terrible")]
METHODS = [
    MeanDifference(),
    MeanDifference(whitened=True),
    Principal(),
    Principal(whitened=True),
    Logistic(),
    Logistic(whitened=True),
]


def drawn(n=300, d=8, gap=3.0, seed=0):
    """Two heaps, a planted gap along the first axis, and ten times the spread along the second."""
    rng = torch.Generator().manual_seed(seed)
    spread = torch.ones(d)
    spread[1] = 10.0
    liked, disliked = (spread * torch.randn(n, d, generator=rng) for _ in range(2))
    liked[:, 0] += gap
    return liked, disliked


def cosine(vector, axis=0):
    return float(vector[axis] / vector.norm())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method_finds_a_planted_direction(method):
    liked, disliked = drawn(gap=20.0)
    assert cosine(method(liked, disliked)) > 0.9
    assert held_out(method, liked, disliked) > 0.99


def test_whitening_turns_away_from_where_the_classes_vary_anyway():
    liked, disliked = drawn()
    liked[:, 1] += 10.0  # the classes differ there too, within their spread
    plain, white = (MeanDifference(whitened=w)(liked, disliked) for w in (False, True))
    assert cosine(plain, 1) > 0.9 and cosine(white) > 0.9
    assert held_out(MeanDifference(whitened=True), liked, disliked) > held_out(MeanDifference(), liked, disliked) + 0.1


def test_whitened_mean_difference_is_fishers_discriminant():
    liked, disliked = (rows.double() for rows in drawn(n=20_000))
    inside = (torch.cov(liked.T) + torch.cov(disliked.T)) / 2
    wanted = torch.linalg.solve(inside, liked.mean(0) - disliked.mean(0))
    found = MeanDifference(whitened=True)(liked, disliked)
    assert float(torch.cosine_similarity(found, wanted, dim=0)) > 0.999


def test_centring_the_differences_takes_away_what_they_share():
    liked, disliked = drawn(gap=60.0)
    assert cosine(Principal()(liked, disliked)) > 0.9
    centred = Principal(centred=True)(liked, disliked)
    assert abs(cosine(centred)) < 0.2 and abs(cosine(centred, 1)) > 0.9


def test_the_logistic_plane_is_an_optimum():
    """At the optimum of the penalised loss the data pull as much as the penalty, in every coordinate."""
    liked, disliked = drawn(n=50, gap=1.0)
    normal = Logistic(strength=2.0)(liked, disliked).double()
    values = torch.cat([liked, disliked]).double()
    values, signs = values - values.mean(0), torch.cat([torch.ones(50), -torch.ones(50)]).double()
    offset = torch.zeros((), dtype=torch.float64)
    for _ in range(50):  # the offset by Newton's method
        p = torch.sigmoid(-signs * (values @ normal + offset))
        offset = offset + (signs * p).sum() / (p * (1 - p)).sum()
    pull = (signs * torch.sigmoid(-signs * (values @ normal + offset))) @ values
    assert torch.allclose(pull, normal / 2.0, atol=1e-3)


@pytest.mark.parametrize("size", [40, 300])
def test_the_logistic_plane_is_scikit_learns(size, monkeypatch):
    """Rows fewer than the width, and more; the offset bears no penalty in either."""
    linear = pytest.importorskip("sklearn.linear_model")
    liked, disliked = drawn(n=size // 2, d=64, gap=1.0)
    rows = torch.cat([liked, disliked]).double()
    theirs = linear.LogisticRegression(C=2.0, solver="newton-cholesky", tol=1e-10).fit(
        rows.numpy(), [1] * len(liked) + [0] * len(disliked)
    )
    wanted = torch.from_numpy(theirs.coef_[0]).float()
    for wide in (2000, 10):  # by Newton's method, and as where that would take too long
        monkeypatch.setattr("patchclamp.probe.contrast.WIDE", wide)
        assert float((Logistic(strength=2.0)(liked, disliked) - wanted).norm() / wanted.norm()) < 1e-4


def test_a_direction_between_two_heaps_alike_is_said_to_be_poor(town):
    mixed = [*LIKED[:3], *DISLIKED[:3]], [*LIKED[3:], *DISLIKED[3:]]
    poor = pc.contrast(town, "blocks.2.out", *mixed)
    assert "NO BETTER THAN CHANCE" in repr(poor)
    assert "NO BETTER" not in repr(pc.contrast(town, "blocks.2.out", LIKED, DISLIKED))


def test_noise_in_many_dimensions_is_not_called_separable():
    """What fits the prompts at hand perfectly is judged by prompts that it was not made from."""
    rng = torch.Generator().manual_seed(0)
    liked, disliked = torch.randn(30, 200, generator=rng), torch.randn(30, 200, generator=rng)
    vector = Logistic()(liked, disliked)
    assert auroc(liked @ vector, disliked @ vector) > 0.99
    assert abs(held_out(Logistic(), liked, disliked) - 0.5) < 0.25


def test_one_prompt_of_each_kind_is_never_tested(town):
    lone = pc.contrast(town, "blocks.2.out", LIKED[:1], DISLIKED[:1])
    assert "never tested" in repr(lone) and (1 * lone).shape == (128,)


def test_pooled_prompts_are_averages_of_their_tokens(town):
    line = pc.contrast(town, "blocks.1.out", LIKED, [*DISLIKED, "We went"], pooled=True)
    means = []
    for prompts in (LIKED, [*DISLIKED, "We went"]):
        rows = every(town, "blocks.1.out", prompts)
        means.append(torch.stack([rows.value[rows.prompt == i].mean(0) for i in range(len(prompts))]).mean(0))
    assert torch.allclose(1 * line, means[0] - means[1], atol=1e-3)


def test_each_prompt_can_be_read_at_its_own_token(town):
    line = pc.contrast(town, "blocks.1.out", LIKED, DISLIKED, at=([4] * 6, [4] * 6))
    there = pc.contrast(town, "blocks.1.out[pos=4]", LIKED, DISLIKED)
    assert torch.allclose(1 * line, 1 * there, atol=1e-4) and str(there.site) == "blocks.1.out"


def test_mistakes_are_named(town):
    with pytest.raises(ShapeMismatch, match="name one vector, such as a head"):
        pc.contrast(town, "blocks.1.attn.z", LIKED, DISLIKED)
    with pytest.raises(WrongPrompt, match="needs pairs"):
        pc.contrast(town, "blocks.1.out", LIKED, DISLIKED[:3], method=Principal())
    with pytest.raises(WrongPrompt, match="not both"):
        pc.contrast(town, "blocks.1.out", LIKED, DISLIKED, at=([1] * 6, [1] * 6), pooled=True)
    with pytest.raises(ShapeMismatch, match="a method gives one vector of 128 numbers"):
        pc.contrast(town, "blocks.1.out", LIKED, DISLIKED, method=lambda a, b: a)


def test_heads_have_directions_too(town):
    line = pc.contrast(town, "blocks.1.attn.z[head=3]", LIKED, DISLIKED)
    assert line.vector.shape == (16,) and str(line.site) == "blocks.1.attn.z[head=3]"
    assert town.edit(pc.steer(line.site, 2 * line)).run("We went home").output is not None


def test_what_is_held_out_has_no_copy_among_the_rest():
    """Noise in fifty dimensions separates nothing; ten copies of each row would seem to."""
    draw = torch.Generator().manual_seed(0)
    liked, disliked = (torch.randn(6, 50, generator=draw).repeat(10, 1) for _ in range(2))
    assert held_out(MeanDifference(), liked, disliked) < 0.9


def test_one_prompt_however_often_leaves_none_to_hold_out(town):
    found = pc.contrast(town, "blocks.2.out", ["The film was lovely."] * 4, ["The film was dull."] * 4)
    assert bool(found.separation.values.isnan())
