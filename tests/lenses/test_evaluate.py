"""What a lens is worth, counted by hand; and what it is worth on another model of the same family."""

from itertools import islice
from math import log

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.lenses.evaluate import evaluate
from patchclamp.lenses.tuned import TunedLens
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as town_of

IDS = [[30, 31, 32, 33, 34, 35, 36], [40, 51, 42, 53], [60, 61]]


def some_lens(model):
    torch.manual_seed(0)
    layers, width = model.layers, model.width
    return TunedLens(0.1 * torch.randn(layers, width, width), 0.1 * torch.randn(layers, width))


def test_every_figure_is_what_it_is_called(llama):
    lens = some_lens(llama)
    grid = evaluate({"mine": lens}, llama, IDS, batch=2)
    kl, ce, mean_q, mean_p, n, followed = 0.0, 0.0, 0.0, 0.0, 0, 0
    each = []
    with torch.no_grad():
        for prompt in IDS:
            out = llama.hf(torch.tensor([prompt]), output_hidden_states=True)
            h = out.hidden_states[1][0]
            q = llama.hf.lm_head(llama.hf.model.norm(h + h @ lens.weight[1].T + lens.bias[1])).softmax(-1)
            p = out.logits[0].softmax(-1)
            each.append(float((p * (p / q).log2()).sum()))
            kl, mean_p, mean_q, n = kl + each[-1], mean_p + p.sum(0), mean_q + q.sum(0), n + len(prompt)
            ce -= float(q[:-1].gather(-1, torch.tensor(prompt)[1:, None]).log2().sum())
            followed += len(prompt) - 1
    p, q = mean_p / n, mean_q / n
    at = grid.at(lens="mine", layer=1)
    assert float(at.values) == pytest.approx(kl / n, rel=1e-4)
    assert float(at.details["cross-entropy"]) == pytest.approx(ce / followed, rel=1e-4)
    assert float(at.details["perplexity"]) == pytest.approx(2 ** (ce / followed), rel=1e-3)
    assert float(at.details["bias"]) == pytest.approx(float((p * (p / q).log2()).sum()), rel=1e-3)
    assert at.each.tolist() == pytest.approx([e * len(IDS) / n for e in each], rel=1e-4)
    assert float(at.each.mean()) == pytest.approx(float(at.values), rel=1e-5)


def test_the_baseline_is_the_models_own_loss(town):
    texts = list(islice(documents(town_of(0), "base"), 6))
    base = TunedLens.untrained(town).evaluate(town, texts).baseline
    nats, count = 0.0, 0
    for text in texts:
        ids = torch.tensor(town.tokenizer([text])["input_ids"])
        with torch.no_grad():
            nats += float(torch.nn.functional.cross_entropy(town.hf(ids).logits[0, :-1], ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    assert base["cross-entropy"] == pytest.approx(nats / count / log(2), rel=1e-4)
    assert 0.1 < base["bits per byte of one bit per token"] < 0.5


def test_a_lens_serves_a_model_trained_further(town):
    """Trained on an earlier checkpoint, read on the one that ships: better than no lens at every layer."""
    earlier = pc.load("specimen:town/step-1600")
    lens = TunedLens.train(earlier, documents(town_of(0), "lens"), steps=15, batch=12)
    grid = lens.evaluate(town, list(islice(documents(town_of(0), "held out"), 15)))
    assert bool((grid.at(lens="tuned").values < grid.at(lens="logit").values).all())


def test_a_lens_of_another_shape_is_refused(town, llama):
    with pytest.raises(ShapeMismatch, match="trained on 2 blocks of width 64; specimen:town has 4 of width 128"):
        some_lens(llama).evaluate(town, ["Mary"])
    with pytest.raises(WrongPrompt, match="there is none"):
        TunedLens.untrained(town).evaluate(town, [])
