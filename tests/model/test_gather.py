"""Gathering gives what single runs give, in the order of the prompts."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongAxis
from patchclamp.model.gather import every, gather

PROMPTS = ["Mary", "When Mary and John went to the store, John gave a drink to", "Mary and John", "John gave a drink"]


def test_rows_are_those_of_single_runs_in_their_order(town):
    found = gather(town, "blocks.*.out", PROMPTS, batch=3)
    for i, prompt in enumerate(PROMPTS):
        alone = town.run(prompt, keep="blocks.*.out")["blocks.*.out[pos=-1]"][:, 0]
        torch.testing.assert_close(found[:, i], alone, rtol=1e-4, atol=1e-5)


def test_each_prompt_may_have_its_own_position(town):
    found = gather(town, "blocks.1.attn.z[head=3]", PROMPTS, at=[1, 5, 2, 0], batch=2)
    for i, (prompt, pos) in enumerate(zip(PROMPTS, [1, 5, 2, 0])):
        alone = town.run(prompt, keep="blocks.1.attn.z")[f"blocks.1.attn.z[head=3, pos={pos}]"][0]
        torch.testing.assert_close(found[i], alone, rtol=1e-4, atol=1e-5)


def test_every_token_is_there_once(town):
    rows = every(town, "blocks.2.mlp.out", PROMPTS, batch=3)
    lengths = [town.run(p).tokens.shape[1] for p in PROMPTS]
    assert rows.value.shape == (sum(lengths), town.width)
    assert [int((rows.prompt == i).sum()) for i in range(4)] == lengths
    alone = town.run(PROMPTS[1], keep="blocks.2.mlp.out")["blocks.2.mlp.out"][0]
    torch.testing.assert_close(rows.value[rows.prompt == 1], alone, rtol=1e-4, atol=1e-5)
    assert rows.token[rows.prompt == 1].tolist() == town.run(PROMPTS[1]).tokens[0].tolist()


def test_what_cannot_be_meant_is_refused(town):
    with pytest.raises(ShapeMismatch, match="2 positions for 4 prompts"):
        gather(town, "blocks.1.out", PROMPTS, at=[1, 2])
    with pytest.raises(WrongAxis, match="position itself"):
        gather(town, "blocks.1.out[pos=0]", PROMPTS, at=[1, 2, 0, 0])
    with pytest.raises(ShapeMismatch, match="no prompts"):
        gather(town, "blocks.1.out", [])
    with pytest.raises(WrongAxis, match="one place at a time"):
        every(town, "blocks.*.out", PROMPTS)
