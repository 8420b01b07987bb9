"""Heads named by evidence: six hand-set ones of six kinds all are, an inert one changes nothing, an untrained one has no name."""

import pytest
import torch

import induction as published
import patchclamp as pc
import six_heads
from patchclamp.core.errors import WrongPrompt
from patchclamp.lenses.attention import back, looks, repeated
from patchclamp.lenses.heads import ablations, listed, name_heads
from patchclamp.model.untrained import untrained
from patchclamp.task.tasks import draw


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 4, 0, 1, 3)])
def test_six_hand_set_heads_of_six_kinds_are_named_six_of_six(order):
    grid = name_heads(six_heads.model(order), seed=order[0])
    expected = [six_heads.KINDS[0, kind] for kind in order]
    assert grid.text[0] == expected and grid.text[1][0] == "induction"
    inert = expected.index("inert")
    assert float(grid.values[0, inert]) < 1e-6 and float(grid.each[:, 0, inert].max()) < 1e-6
    assert sorted(set(six_heads.KINDS.values())) == sorted([*grid.text[0], "induction"])


def test_a_published_models_heads_are_named_as_its_card_has_them_and_no_others(shared):
    model, generator = pc.load(published.module(shared)), torch.Generator().manual_seed(0)
    copy = torch.cat([torch.zeros(16, 1, dtype=torch.long), torch.randint(1, 128, (16, 27), generator=generator)], 1)
    other = torch.randint(1, 128, (16, 85), generator=generator)
    grid = name_heads(model, torch.cat([copy, copy, copy, copy[:, :1]], 1), other)
    assert grid.text == [["", "", "previous token", ""], ["", "induction", "induction", "induction"]]
    assert grid.values[0, 2] > 0.5 and (grid.values[1, 1:] > 0.1).all()


def test_what_a_head_matters_is_the_divergence_without_it(gpt2, ids):
    found = ablations(gpt2, gpt2.inputs(ids))
    whole = gpt2.run(ids).logits.log_softmax(-1)
    without = gpt2.edit(pc.zero("blocks.1.attn.z[head=2]")).run(ids).logits.log_softmax(-1)
    expected = (whole.exp() * (whole - without)).sum(-1).mean(-1)
    assert torch.allclose(found[:, 1, 2], expected, atol=1e-6)


def test_of_a_large_vocabulary_fewer_prompts_are_run(gpt2, monkeypatch):
    ids = torch.randint(99, (6, 7), generator=torch.Generator().manual_seed(0))
    whole = ablations(gpt2, gpt2.inputs(ids))
    monkeypatch.setattr("patchclamp.lenses.heads.ROOM", 3 * 7 * 99)
    assert torch.allclose(ablations(gpt2, gpt2.inputs(ids)), whole[:3], atol=1e-6)


def test_padding_does_not_count(town):
    """Two prompts of unequal length give what each gives alone."""
    both = ["The list began: sun hat. The second list was the same: sun hat.", "Mary and John went to the store."]
    together = ablations(town, town.inputs(both))
    for r, prompt in enumerate(both):
        assert torch.allclose(together[r], ablations(town, town.inputs([prompt]))[0], atol=1e-5)


def test_the_towns_induction_heads_act_in_its_own_language_and_an_untrained_town_has_none(town):
    parrots = [p.clean for p in draw("town/parrot", 6, seed=0, tokenizer=town.tokenizer)]
    grid = name_heads(town, parrots)
    strong = [grid.text[3][h] for h in (3, 4, 5)]
    assert strong == ["induction"] * 3
    assert grid.details["induction"][3, 3:6].min() > 0.6 and grid.details["induction, control"].max() < 0.1
    plain = name_heads(untrained(town), parrots)
    assert not any(name for row in plain.text for name in row)
    assert plain.details["induction"].max() < 0.1


def test_on_random_tokens_that_it_never_saw_the_town_does_nothing_of_the_kind(town):
    assert looks(town, repeated(town, 8)).at(look="induction").values.max() < 0.1


def test_detections_of_ones_own_and_name_movers_are_looked_for_when_asked(town):
    pairs = draw("town/ioi", 16, seed=0, tokenizer=town.tokenizer)
    parrots = [p.clean for p in draw("town/parrot", 4, seed=0, tokenizer=town.tokenizer)]
    grid = name_heads(town, parrots, detections={"two back": back(2)}, pairs=pairs)
    assert {"two back", "two back, control", "name mover", "negative name mover"} <= set(grid.details)
    assert grid.text[3][2] == "name mover"
    table = listed(grid)
    assert table.rows[0][1] == "induction" and table.rows[0][2] > 5 * table.rows[0][3]
    assert "induction" in grid.html()


def test_prompts_that_cannot_be_compared_are_refused(town):
    tokens = repeated(town, 4, 6)
    with pytest.raises(WrongPrompt, match="give equal lengths"):
        name_heads(town, tokens, tokens[:, :-1])
    with pytest.raises(WrongPrompt, match="two prompts of 5 tokens"):
        name_heads(town, tokens[:1])
