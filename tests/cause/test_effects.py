"""Effects: axes and labels as the pattern says, the metric's change towards the clean run, and every mistake named.

That sweeps equal the naive loop is tests/model/test_replay.py.
"""

import pytest
import torch

import by_weights
import patchclamp as pc
import zoo
from patchclamp.cause.atp_star import atp_star
from patchclamp.cause.integrated import integrated
from patchclamp.cause.shapley import shapley
from patchclamp.core.errors import ShapeMismatch, UnknownSite, Unserved, WrongAxis, WrongPrompt, WrongToken
from patchclamp.core.uncertain import interval

CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36]])
METRIC = pc.logit_diff(7, 8)


@pytest.mark.parametrize(
    ("pattern", "axes", "shape"),
    [
        ("blocks.*.out[pos=*]", ("layer", "pos"), (2, 7)),
        ("blocks.*.attn.z[head=*]", ("layer", "head"), (2, 4)),
        ("blocks.1.attn.z[head=*, pos=*]", ("head", "pos"), (4, 7)),
        ("blocks.*.mlp.act[neuron=3:6]", ("layer", "neuron"), (2, 3)),
        ("blocks.*.attn.out", ("layer",), (2,)),
        ("blocks.*.mlp.out[pos=-1]", ("layer",), (2,)),
        ("blocks.*.attn.pattern[head=*, key=*]", ("layer", "head", "key"), (2, 4, 7)),
        ("blocks.1.out", (), ()),
        ("embed.out[pos=*]", ("pos",), (7,)),
    ],
)
def test_every_star_is_an_axis(gpt2, pattern, axes, shape):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, pattern, METRIC)
    assert grid.axes == axes and tuple(grid.values.shape) == shape
    assert grid.unit == "logits" and grid.note == ""
    assert set(grid.baseline) == {"clean", "corrupt"}
    assert grid.each is not None and grid.each.shape == (1, *shape)


def test_the_whole_stream_restores_everything(gpt2):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out", METRIC)
    assert torch.allclose(grid.fraction().values, torch.ones(2), atol=1e-4)
    assert abs(grid.baseline["clean"] - float(METRIC(gpt2.run(CLEAN).logits))) < 1e-5
    assert abs(grid.baseline["corrupt"] - float(METRIC(gpt2.run(CORRUPT).logits))) < 1e-5


def test_tokens_before_the_first_difference_change_nothing(gpt2):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out[pos=*]", METRIC)
    assert torch.equal(grid.values[:, :2], torch.zeros(2, 2)) and float(grid.values[0, 2]) != 0


def test_an_encoder_looks_both_ways():
    model = pc.load(zoo.build("bert", "masked"))
    grid = pc.effects(model, CLEAN, CORRUPT, "blocks.*.out[pos=*]", METRIC)
    assert bool((grid.values[0, :2].abs() > 0).all())


def test_an_encoder_decoder_is_patched_in_its_encoder():
    with zoo.quiet():
        model = pc.load(zoo.build("t5", "seq2seq"))
        model.hf.generation_config.decoder_start_token_id = 0
        grid = pc.effects(model, CLEAN, CORRUPT, "encoder.blocks.*.out[pos=*]", METRIC)
        run = model.run(CLEAN, keep="encoder.blocks.1.out")
        alone = model.edit(pc.patch("encoder.blocks.1.out[pos=2]", run)).run(CORRUPT)
    expected = METRIC(alone.logits) - METRIC(model.run(CORRUPT).logits)
    assert grid.shape == {"layer": 2, "pos": 7} and torch.allclose(grid.values[1, 2], expected[0], atol=1e-5)


def test_words_become_labels_and_tokens(stories):
    grid = pc.effects(stories, "One day, Lily", "One day, Tim", "blocks.*.out[pos=*]", pc.logit_diff(" She", " He"))
    assert list(grid.words("pos")) == ["0 <s>", "1 One", "2 day", "3 ,", "4 Lily"]
    assert list(grid.words("layer")) == ["0", "1", "2", "3", "4"]
    assert grid.baseline["clean"] > grid.baseline["corrupt"]  # Lily is a girl, Tim a boy
    assert torch.equal(grid.values[:, :4], torch.zeros(5, 4))


def test_a_metric_for_each_prompt(gpt2):
    clean, corrupt = torch.cat([CLEAN, CLEAN + 5]), torch.cat([CORRUPT, CORRUPT + 3])
    both = pc.effects(gpt2, clean, corrupt, "blocks.*.out[pos=*]", pc.logit_diff([7, 9], [8, 10]))
    first = pc.effects(gpt2, clean[:1], corrupt[:1], "blocks.*.out[pos=*]", pc.logit_diff(7, 8))
    second = pc.effects(gpt2, clean[1:], corrupt[1:], "blocks.*.out[pos=*]", pc.logit_diff(9, 10))
    assert torch.allclose(both.each, torch.stack([first.values, second.values]), atol=1e-5)


@pytest.mark.parametrize(
    ("metric", "unit"),
    [(pc.prob(7), "probability"), (pc.nll(7), "nats"), (pc.rank(7), "tokens"), (pc.logit(7), "logits")],
)
def test_metrics_carry_their_unit(gpt2, metric, unit):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out", metric)
    assert grid.unit == unit and abs(float(grid.values[1]) - (grid.baseline["clean"] - grid.baseline["corrupt"])) < 1e-4


def test_divergence_from_the_clean_run_goes_to_zero(gpt2):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out", pc.kl(gpt2.run(CLEAN)))
    assert grid.baseline["clean"] == pytest.approx(0, abs=1e-6) and grid.baseline["corrupt"] > 0
    assert torch.allclose(grid.values, torch.full((2,), -grid.baseline["corrupt"]), atol=1e-5)


@pytest.mark.parametrize(
    ("clean", "corrupt", "pattern", "metric", "error", "says"),
    [
        (CLEAN, CORRUPT[:, :5], "blocks.*.out", METRIC, WrongPrompt, "the clean one has 7 tokens, the corrupt one 5"),
        (CLEAN, CLEAN, "blocks.*.out", METRIC, WrongPrompt, "the same tokens"),
        (CLEAN, CORRUPT, "blocks.*.ot", METRIC, UnknownSite, "Did you mean"),
        (CLEAN, CORRUPT, "blocks.*.out[head=*]", METRIC, WrongAxis, 'has no axis "head"; its axes are batch pos d_model'),
        (CLEAN, CORRUPT, "blocks.*.attn.z[head=9]", METRIC, WrongAxis, "9"),
        (CLEAN, CORRUPT, "blocks.*.out", lambda logits: logits.mean(), ShapeMismatch, r"one number per prompt, a tensor \[1\]"),
        (CLEAN, CORRUPT, "blocks.*.out", lambda logits: 3.0, ShapeMismatch, "this one gave float"),
        (CLEAN, CORRUPT, "blocks.*.out", pc.logit(1000), WrongToken, "no token 1000 in a vocabulary of 99"),
        (CLEAN, CORRUPT, "blocks.*.out", pc.logit(" Mary"), WrongToken, "Mary"),
        (CLEAN, CORRUPT, "blocks.0.attn.W_Q", METRIC, Unserved, "is a weight"),
    ],
)
def test_mistakes_are_named(gpt2, clean, corrupt, pattern, metric, error, says):
    with pytest.raises(error, match=says):
        pc.effects(gpt2, clean, corrupt, pattern, metric)


def test_a_model_without_logits_has_no_answer():
    model = pc.load(zoo.build("gpt2", "base"))
    with pytest.raises(Unserved, match="returns no logits"):
        pc.effects(model, CLEAN, CORRUPT, "blocks.*.out", METRIC)


def test_no_gap_has_no_fractions(gpt2):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out", lambda logits: torch.zeros(len(logits)))
    with pytest.raises(WrongPrompt, match="no gap"):
        grid.fraction()


def test_prompts_of_unequal_length_go_pair_by_pair(gpt2):
    clean, corrupt = [[30, 31, 32], [40, 41]], [[30, 50, 32], [40, 51]]
    whole = pc.effects(gpt2, clean, corrupt, "blocks.*.out", METRIC)
    assert whole.shape == {"layer": 2} and torch.allclose(whole.fraction().values, torch.ones(2), atol=1e-4)
    with pytest.raises(WrongPrompt, match="differ in length; run them pair by pair"):
        pc.effects(gpt2, clean, corrupt, "blocks.*.out[pos=*]", METRIC)


@pytest.mark.parametrize("prompts", [5, 20])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_intervals_hold_the_effect_of_the_population(kind, prompts):
    """All prompts there are have a known mean effect; of 500 draws of a few of them, 92 to 98 % have it in their interval."""
    points = (torch.arange(499) + 0.5) / 499
    planted = torch.special.ndtri(points) + 1 if kind == "normal" else -torch.log1p(-points)
    model = by_weights.population(planted)
    drawn = torch.randint(1, 500, (prompts * 500, 1), generator=torch.Generator().manual_seed(1))
    grid = pc.effects(model, drawn, torch.zeros_like(drawn), "blocks.0.mlp.out", pc.logit(0))
    assert torch.allclose(grid.each, planted[drawn[:, 0] - 1], atol=1e-5)
    low, high = interval(grid.each.reshape(prompts, 500), draws=1000)
    assert 0.92 <= float(((low <= planted.mean()) & (planted.mean() <= high)).float().mean()) <= 0.98


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (pc.logit_diff(" Mary Anne", " John"), r'" Mary Anne" is .*tokens'),
        (pc.logit(" Xzqy"), "Xzqy"),
        (pc.logit_diff([1, 2, 3], [4, 5, 6]), "has 3 tokens for 1 prompts"),
    ],
)
def test_an_answer_is_one_token(town, metric, says):
    clean = "When Mary and John went to the store, John gave a drink to"
    with pytest.raises(WrongToken, match=says):
        pc.effects(town, clean, clean.replace("John gave", "Mary gave"), "blocks.*.out", metric)


@pytest.mark.parametrize("estimate", [pc.gradient, integrated(2), atp_star(), shapley()])
def test_every_estimate_names_the_same_mistakes(gpt2, estimate):
    for clean, corrupt, metric, error, says in [
        (CLEAN, CORRUPT[:, :5], METRIC, WrongPrompt, "the clean one has 7 tokens, the corrupt one 5"),
        (CLEAN, CORRUPT, lambda logits: logits.mean(), ShapeMismatch, "one number per prompt"),
        (CLEAN, CORRUPT, pc.logit(1000), WrongToken, "no token 1000"),
    ]:
        with pytest.raises(error, match=says):
            pc.effects(gpt2, clean, corrupt, "blocks.*.mlp.out", metric, estimate=estimate)
