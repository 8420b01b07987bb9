"""Conditional steering: on for some prompts, off for others, decided when they are read."""

import threading

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import WrongAxis, WrongPrompt
from patchclamp.probe.conditional import conditional
from patchclamp.probe.steering import renormed

GOOD, BAD = "The film was lovely. We went home", "The soup was hopeless. I left the restaurant"
LONG = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def joy(town):
    liked, disliked = ([f"The {show} was {word}. We went home" for show in ("film", "play", "soup") for word in words]
                       for words in (("lovely", "superb", "perfect"), ("dull", "boring", "terrible")))  # fmt: skip
    return pc.contrast(town, "blocks.*.out", liked, disliked)


@pytest.fixture(scope="module")
def sobered(town, joy):
    """Good reviews are made to end badly; nothing else is touched."""
    return town.edit(*conditional("blocks.1.out[pos=-1]", joy.at(layer=1), pc.steer("blocks.2.out", -1.5 * joy.at(layer=2))))


def test_a_prompt_that_passes_is_steered_and_another_is_left_bit_for_bit(town, joy, sobered):
    always = town.edit(pc.steer("blocks.2.out", -1.5 * joy.at(layer=2)))
    assert torch.equal(sobered.run(GOOD).logits, always.run(GOOD).logits)
    assert torch.equal(sobered.run(BAD).logits, town.run(BAD).logits)


def test_prompts_of_a_padded_batch_are_judged_one_by_one(town, sobered):
    run = sobered.run([LONG, GOOD, BAD, GOOD])
    for row, prompt in enumerate((LONG, GOOD, BAD, GOOD)):
        alone = sobered.run(prompt).logits[0, -1]
        assert torch.allclose(run.logits[row, -1], alone, atol=1e-3)


def test_what_was_decided_holds_for_all_that_is_generated(town, joy, sobered):
    always = town.edit(pc.steer("blocks.2.out", -1.5 * joy.at(layer=2)))
    assert sobered.generate([GOOD, BAD], 6).new == (always.generate(GOOD, 6).new[0], town.generate(BAD, 6).new[0])
    assert sobered.generate([BAD, GOOD], 6).new == (town.generate(BAD, 6).new[0], always.generate(GOOD, 6).new[0])


def test_the_average_over_the_prompt_can_be_looked_at(town):
    """By hand: the mean projection of each prompt's own tokens, the beginning of the text among them."""
    vector = torch.randn(128, generator=torch.Generator().manual_seed(1))
    means = [float((town.run(p, keep="blocks.0.out")["blocks.0.out"][0] @ vector).mean()) for p in (LONG, GOOD)]
    threshold = sum(means) / 2
    edit = conditional(
        "blocks.0.out", vector, pc.zero("blocks.2.attn.out"), **{"above" if means[0] > means[1] else "below": threshold}
    )
    run, plain, zeroed = (m.run([LONG, GOOD]).logits for m in (town.edit(*edit), town, town.edit(pc.zero("blocks.2.attn.out"))))
    assert torch.equal(run[0], zeroed[0]) and torch.equal(run[1], plain[1])


def test_any_edit_can_be_conditional_and_several_at_once(town, joy):
    edits = renormed("blocks.2.out", -1 * joy.at(layer=2)), pc.Edit("blocks.3.mlp.out", lambda value: value / 2)
    model = town.edit(*conditional("blocks.1.out[pos=-1]", joy.at(layer=1), edits))
    assert torch.equal(model.run(GOOD).logits, town.edit(*edits).run(GOOD).logits)
    assert torch.equal(model.run(BAD).logits, town.run(BAD).logits)


def test_a_sweep_over_a_conditional_model_is_exact(town, sobered):
    metric = pc.logit_diff(" pleased", " bored")
    corrupt = GOOD.replace("lovely", "dull")
    grid = pc.effects(sobered, GOOD, corrupt, "blocks.*.out[pos=*]", metric)
    source = sobered.run(GOOD, keep="blocks.*.out")
    base = sobered.run(corrupt)
    for layer, pos in ((0, 4), (1, -1), (2, -1)):
        naive = sobered.edit(pc.patch(f"blocks.{layer}.out[pos={pos}]", source)).run(corrupt)
        change = [float(sobered.metric(metric)(run.logits)[0]) for run in (naive, base)]
        assert change[0] - change[1] == pytest.approx(float(grid.values[layer, pos]), abs=2e-3)


def test_two_threads_do_not_meet(town, joy, sobered):
    found = {}

    def asked(prompt, name):
        found[name] = [sobered.run(prompt).logits for _ in range(5)]

    threads = [threading.Thread(target=asked, args=(p, p)) for p in (GOOD, BAD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt in (GOOD, BAD):
        alone = sobered.run(prompt).logits
        assert all(torch.equal(one, alone) for one in found[prompt])


def test_mistakes_are_named(town, joy):
    late = pc.steer("blocks.1.out", 1 * joy.at(layer=1))
    with pytest.raises(WrongAxis, match="comes before its condition"):
        conditional("blocks.2.out", joy.at(layer=2), late)
    with pytest.raises(WrongPrompt, match="has no middle"):
        conditional("blocks.0.out", torch.ones(128), late)
    with pytest.raises(WrongAxis, match="reads the prompt's last token"):
        conditional("blocks.0.out[pos=3]", joy.at(layer=0), late)
    with pytest.raises(WrongAxis, match="leave pos out"):
        conditional("blocks.0.out", joy.at(layer=0), pc.zero("blocks.1.out[pos=3]"))
