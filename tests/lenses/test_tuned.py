"""The tuned lens against gradients taken by hand, a basis that turns, and its own training interrupted."""

from functools import partial
from itertools import islice

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

import patchclamp as pc
import zoo
from patchclamp.core.errors import NotAModel, ShapeMismatch, Unserved, WrongPrompt
from patchclamp.lenses.tuning import Plan, Translators, adam, learn, sgd
from patchclamp.model.ending import Ending
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as town_of
from turned import turned

IDS = [[30, 31, 32, 33, 34, 35, 36], [40, 51, 42, 53], [60, 61, 62, 63, 64, 65, 66]]
ENDS = {
    "gpt2": ("causal", lambda hf, h: hf.lm_head(hf.transformer.ln_f(h))),
    "llama": ("causal", lambda hf, h: hf.lm_head(hf.model.norm(h))),
    "gemma2": ("causal", lambda hf, h: 30 * torch.tanh(hf.lm_head(hf.model.norm(h)) / 30)),
    "granite": ("causal", lambda hf, h: hf.lm_head(hf.model.norm(h)) / 4),
    "bert": ("masked", lambda hf, h: hf.cls(h)),
}
fast = partial(adam, rate=1e-2)


def texts(seed):
    return documents(town_of(0), seed)


@pytest.fixture(scope="module")
def held_out():
    return list(islice(texts("held out"), 30))


@pytest.fixture(scope="module")
def tuned(town):
    return pc.TunedLens.train(town, texts("lens"), steps=25, batch=16, optimizer=fast, warmup=0.1)


def decreases(row):
    return bool((row.diff() < 0).all())


# ---- what it is for


def test_it_is_nearer_to_the_output_than_the_logit_lens_at_every_layer_and_nearer_the_later(town, tuned, held_out):
    grid = tuned.evaluate(town, held_out)
    logit, own = grid.at(lens="logit"), grid.at(lens="tuned")
    assert bool((own.values < 0.6 * logit.values).all())
    assert decreases(own.values) and decreases(logit.values)
    assert bool((own.details["bias"] < 0.5 * logit.details["bias"]).all())


def test_the_same_on_text_that_a_model_writes_itself(stories):
    torch.manual_seed(0)
    prompts = torch.full((48, 1), stories.tokenizer.bos_token_id)
    written = stories.generate(prompts, 50, do_sample=True, eos_token_id=None).tokens
    lens = pc.TunedLens.train(stories, written[:36], steps=24, batch=18, optimizer=fast)
    grid = lens.evaluate(stories, written[36:])
    logit, own = grid.values
    assert bool((own < logit).all()) and decreases(own) and decreases(logit)


def test_where_the_basis_turns_the_logit_lens_fails_and_this_one_does_not(town, held_out):
    model, few = turned(town), held_out[:15]
    assert torch.allclose(model.run(few[0]).logits, town.run(few[0]).logits, atol=1e-3)
    lens = pc.TunedLens.train(model, texts("lens"), steps=45, batch=8, optimizer=partial(adam, rate=2e-2), warmup=0.1)
    plain = pc.TunedLens.untrained(town).evaluate(town, few).values[0, 1:]
    logit, own = lens.evaluate(model, few).values[:, 2::2]  # blocks 1 to 3 of the town, each in its own basis
    assert bool((logit > 2.5 * plain).all()) and float(logit.min()) > 10
    assert bool((own < 0.3 * logit).all()) and bool((own < plain).all())


# ---- what it computes


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("padded", [False, True])
def test_losses_and_gradients_are_those_of_autograd_through_the_models_own_end(kind, padded):
    task, end = ENDS[kind]
    with zoo.quiet():
        model = pc.load(zoo.build(kind, task))
        prompts = IDS if padded else IDS[::2]
        made = Translators(model.layers, model.width, 1)
        torch.manual_seed(0)
        torch.nn.init.normal_(made.weight, std=0.05)
        torch.nn.init.normal_(made.bias, std=0.05)
        losses = learn(made, Ending.of(model, model.inputs(prompts)))
        weight, bias = made.weight.detach().requires_grad_(), made.bias.detach().requires_grad_()
        wanted = [0.0] * model.layers
        for prompt in prompts:
            out = model.hf(torch.tensor([prompt]), output_hidden_states=True)
            for layer in range(model.layers):
                h = out.hidden_states[layer].detach()
                said = end(model.hf, h + h @ weight[layer].T + bias[layer])
                kl = kl_divergence(Categorical(logits=out.logits.detach()), Categorical(logits=said))
                wanted[layer] = wanted[layer] + kl.sum() / sum(map(len, prompts))
    slopes = torch.autograd.grad(sum(wanted), (weight, bias))
    assert torch.allclose(losses, torch.stack(wanted), atol=1e-5)
    assert torch.allclose(made.weight.grad, slopes[0], atol=2e-5) and torch.allclose(made.bias.grad, slopes[1], atol=2e-5)


def test_the_fast_way_through_a_matrix_and_the_way_through_any_end_agree(town, monkeypatch):
    inputs = town.inputs(list(islice(texts("two ways"), 4)))
    found = []
    for way in ("fast", "any"):
        made = Translators(town.layers, town.width, 1)
        passed = Ending.of(town, inputs)
        assert passed.tail is not None
        if way == "any":
            passed.__dict__["tail"] = None
        found.append((learn(made, passed), made.weight.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4) and torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_bfloat16_is_near(town):
    inputs = town.inputs(list(islice(texts("two ways"), 4)))
    one, other = (
        learn(Translators(town.layers, town.width, 1), Ending.of(town, inputs), p) for p in (torch.float32, torch.bfloat16)
    )
    assert torch.allclose(one, other, rtol=0.01, atol=0.01)


def test_history_is_the_divergence_before_each_step(town, tuned):
    first = list(islice(texts("lens"), 16))
    before = pc.TunedLens.untrained(town).evaluate(town, first).values[0] * torch.tensor(2.0).log()
    assert torch.allclose(tuned.history[0], before, atol=1e-3)
    assert tuned.history.shape == (25, 4) and float(tuned.history[-5:].mean()) < float(tuned.history[:5].mean())


def test_an_edited_model_is_learnt_as_edited(llama):
    edited = llama.edit(pc.zero("blocks.1.attn.out"), pc.zero("blocks.1.mlp.out"))
    lens = pc.TunedLens.train(edited, torch.tensor([IDS[0], IDS[2]]), steps=2, batch=2)
    assert torch.allclose(lens.history[:, 1], torch.zeros(2), atol=1e-5)  # the last block adds nothing, so nothing is to learn


def test_the_rate_rises_and_falls():
    plan = Plan(steps=10, warmup=0.3)
    assert [round(plan.rate(s), 3) for s in range(10)] == [0.333, 0.667, 1.0, 1.0, 0.857, 0.714, 0.571, 0.429, 0.286, 0.143]
    assert [Plan(steps=4).rate(s) for s in range(4)] == [1.0, 0.75, 0.5, 0.25]


# ---- how it is used


def test_reading_through_it_ends_with_the_output(town, tuned):
    prompt = "When Mary and John went to the store, John gave a drink to"
    plain, through = pc.lens(town, prompt), pc.lens(town, prompt, through=tuned)
    assert torch.equal(plain.values[-1], through.values[-1])
    assert float(through.details["KL"][:-1].mean()) < float(plain.details["KL"][:-1].mean())
    run = town.run(prompt, keep="blocks.2.out")["blocks.2.out"]
    by_hand = town.hf.lm_head(town.hf.model.norm(run + run @ tuned.weight[3].T + tuned.bias[3])).softmax(-1).amax(-1)
    assert torch.allclose(through.values[2], by_hand[0], atol=1e-5)


def test_stopping_a_training_loses_nothing(llama, tmp_path):
    rows = [torch.randint(3, 99, (8,), generator=torch.Generator().manual_seed(s)).tolist() for s in range(40)]
    whole = pc.TunedLens.train(llama, rows, steps=10, batch=4, optimizer=adam)

    def until_stopped():
        for n, row in enumerate(rows):
            if n == 22:
                raise KeyboardInterrupt
            yield row

    with pytest.raises(KeyboardInterrupt):
        pc.TunedLens.train(llama, until_stopped(), steps=10, batch=4, optimizer=adam, folder=tmp_path)
    met = []
    again = pc.TunedLens.train(llama, (met.append(r) or r for r in rows), steps=10, batch=4, optimizer=adam, folder=tmp_path)
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.history, whole.history)
    once_more = pc.TunedLens.train(llama, rows, steps=10, batch=4, optimizer=adam, folder=tmp_path)
    assert torch.equal(once_more.weight, whole.weight)
    with pytest.raises(NotAModel, match="another recipe"):
        pc.TunedLens.train(llama, rows, steps=10, batch=4, optimizer=sgd, folder=tmp_path)


def test_a_training_can_be_watched_and_left(llama):
    seen = []
    for lens in pc.TunedLens.stages(llama, IDS, every=2, steps=7, batch=1):
        seen.append(lens.about["steps"])
        if len(seen) == 2:
            break
    assert seen == [2, 4] and lens.history.shape == (4, llama.layers)
    assert [s.about["steps"] for s in pc.TunedLens.stages(llama, IDS, every=3, steps=7, batch=1)] == [3, 6, 7]


def test_strings_ids_and_tensors_are_texts(town):
    ids = town.inputs("Mary and John").tokens[0].tolist()
    ways = (["Mary and John"], [ids], [torch.tensor(ids)], torch.tensor([ids]), iter([torch.tensor([ids])]))
    histories = [pc.TunedLens.train(town, way, steps=1, batch=1).history for way in ways]
    assert all(torch.equal(h, histories[0]) for h in histories)


def test_mistakes_are_named(town, tuned, llama, gpt2):
    with pytest.raises(WrongPrompt, match="the texts ended after 1 of 5 steps; give more of them, or steps=1"):
        pc.TunedLens.train(llama, iter(IDS), steps=5, batch=3)
    with pytest.raises(WrongPrompt, match="there is none"):
        pc.TunedLens.train(llama, [], steps=1)
    with pytest.raises(WrongPrompt, match="a single string is no stream"):
        pc.TunedLens.train(town, "Mary", steps=1)
    with pytest.raises(Unserved, match=r"blocks.\*.in or blocks.\*.out; blocks.0.mid is neither"):
        pc.lens(town, "Mary", "blocks.*.mid", through=tuned)
    with pytest.raises(Unserved, match="trained on a model of 4 blocks"):
        tuned("blocks.4.in", torch.zeros(128))
    with pytest.raises(ShapeMismatch, match="width 32 and this lens 128: it was trained on specimen:town"):
        tuned("blocks.1.in", torch.zeros(32))
