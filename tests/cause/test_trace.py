"""Causal tracing: equal to the plain loop with the same noise; blurring nothing that matters restores nothing."""

import pytest
import torch

import patchclamp as pc
from patchclamp.cause.ablate import noised
from patchclamp.cause.trace import trace
from patchclamp.core.errors import WrongPrompt

METRIC = pc.logit_diff(5, 9)


def test_it_equals_the_plain_loop(gpt2, ids):
    grid = trace(gpt2, ids, "blocks.*.out[pos=*]", METRIC, blurred="embed.out[pos=2:4]", draws=2, seed=3)
    clean = gpt2.run(ids, ["blocks.*.out", "embed.out"])
    scale, found, base = 3 * float(clean["embed.out"].std()), [], []
    for n in range(2):
        noisy = gpt2.edit(noised(scale, 3 + n)(pc.Site.parse("embed.out[pos=2:4]")))
        base.append(float(METRIC(noisy.run(ids).logits).mean()))
        places = [[pc.patch(f"blocks.{layer}.out[pos={pos}]", clean) for pos in range(7)] for layer in range(gpt2.layers)]
        found.append([[float(METRIC(noisy.edit(p).run(ids).logits).mean()) - base[-1] for p in row] for row in places])
    assert torch.allclose(grid.values, torch.tensor(found).mean(0), atol=1e-5)
    assert grid.baseline["corrupt"] == pytest.approx(sum(base) / 2, abs=1e-5)
    assert grid.details["draws"].shape == grid.values.shape
    assert grid.values[:, :2].abs().max() < 1e-6  # before the noise nothing is to be restored


def test_what_is_severed_passes_nothing_on(llama, ids):
    options = {"blurred": "embed.out[pos=2]", "draws": 1}
    whole, cut = (trace(llama, ids, "blocks.*.out[pos=2]", METRIC, severed=s, **options).values for s in ((), ("attn", "mlp")))
    assert whole[0].abs() > 1e-3 and cut[0].abs() < 1e-5  # only attention could carry it to the last token


def test_no_noise_is_refused(gpt2, ids):
    with pytest.raises(WrongPrompt, match="got 0 draws"):
        trace(gpt2, ids, "blocks.*.out[pos=*]", METRIC, blurred="embed.out[pos=1]", draws=0)
