"""Check: exact patching agrees with itself, noise does not, and a saturated head is named."""

import pytest
import torch

import by_weights
import patchclamp as pc
from patchclamp.cause.atp_star import atp_star
from patchclamp.cause.check import check
from patchclamp.cause.comparison import Estimated
from patchclamp.cause.effects import exact

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


def noise(c):
    found = torch.randn(c.corrupt.batch, len(c.spread.sites), generator=torch.Generator().manual_seed(0))
    return Estimated(found, c.read(c.model.run(c.corrupt).logits))


def test_exact_effects_agree_with_themselves_and_noise_does_not(gpt2):
    sites = "blocks.*.attn.z[head=*, pos=2:]"
    found = check(gpt2, CLEAN, CORRUPT, sites, METRIC, estimate=exact, sample=20)
    assert found.spearman == pytest.approx(1) and found.error < 1e-4 and not found.saturated
    assert found.grid.shape == {"kind": 2, "cell": 20}
    assert abs(check(gpt2, CLEAN, CORRUPT, sites, METRIC, estimate=noise, sample=40).spearman) < 0.5


def test_its_cells_are_those_of_the_sweep(gpt2):
    whole = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC)
    found = check(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, sample=5)
    for name, value in zip(found.grid.words("cell"), found.grid.values[0]):
        site = pc.Site.parse(name.removesuffix(" (saturated)"))
        assert float(value) == pytest.approx(float(whole.values[site.layer, dict(site.index)["head"]]), abs=1e-5)


def test_a_saturated_head_is_named_and_mended():
    model, sites = by_weights.saturated(), "blocks.*.attn.q[head=*, pos=*]"
    plain = check(model, [[0, 1, 3]], [[0, 1, 2]], sites, pc.logit(0))
    assert plain.saturated == ("blocks.0.attn.q[head=0, pos=2 3]",)
    assert not check(model, [[0, 1, 3]], [[0, 1, 2]], sites, pc.logit(0), estimate=atp_star(drop=False)).saturated


def test_magnitudes_are_compared_with_magnitudes(gpt2):
    found = check(gpt2, CLEAN, CORRUPT, "blocks.*.attn.z[head=*]", METRIC, estimate=atp_star(), magnitude=True)
    assert bool((found.grid.values >= 0).all())


def test_roles_are_named(gpt2):
    found = check(gpt2, CLEAN, CORRUPT, "blocks.*.out[role=*]", METRIC, roles={"it": [2, 4], "end": [-1, -1]})
    assert sorted(found.grid.words("cell"))[0].startswith("blocks.0.out[role=end]")
