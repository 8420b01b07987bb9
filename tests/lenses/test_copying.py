"""Which heads copy: hand-set circuits score one, minus one and nothing."""

import pytest
import torch

import patchclamp as pc
import six_heads
from patchclamp.core.errors import WrongPrompt
from patchclamp.lenses.copying import copying, moving
from patchclamp.model.specimen import Specimen, SpecimenConfig


def test_copies_are_told_from_what_is_moved_elsewhere():
    grid = copying(six_heads.model())
    assert grid.values[0].tolist() == pytest.approx([0, 0, 0, 1, 0], abs=0.1)
    assert float(grid.values[1, 0]) == 1 and grid.details["other"].nan_to_num().abs().max() < 0.2


def test_a_head_that_writes_the_opposite_scores_minus_one():
    model = six_heads.model()
    turned = model.edit(pc.Edit("blocks.0.attn.W_O[head=3]", lambda w: -w))
    assert float(copying(turned).at(layer=0, head=3).values) == -1


def test_random_weights_do_not_copy():
    torch.manual_seed(0)
    model = pc.load(
        Specimen(SpecimenConfig(vocab=60, layers=2, heads=4, d_model=64, d_head=16, d_mlp=0, norm="none", length=48))
    )
    assert copying(model).values.abs().max() < 0.25


def test_who_looks_at_the_answer_is_read_off_the_pattern(town):
    prompts = [
        "When Mary and John went to the store, John gave a drink to",
        "Then Mary and John went home, and John gave a key to",
    ]
    grid = moving(town, prompts, [" Mary"] * 2, [" John"] * 2)
    run = town.run(prompts[1], "blocks.3.attn.pattern")
    places = [n for n, w in enumerate(run.words[0]) if w.strip() == "Mary"]
    expected = run["blocks.3.attn.pattern"][0, :, -1, places].sum(-1)
    assert torch.allclose(grid.each[1, 3], expected, atol=1e-5)
    direct = pc.direct(town, prompts, "blocks.*.attn.z[head=*]", pc.logit_diff(" Mary", " John"))
    assert torch.allclose(grid.details["direct"], direct.values, atol=1e-5)
    with pytest.raises(WrongPrompt, match="1 answers and 2 wrong ones for 2 prompts"):
        moving(town, prompts, [" Mary"], [" John"] * 2)
    with pytest.raises(WrongPrompt, match="these have 2; give more"):
        copying(town, [[5, 6]])
