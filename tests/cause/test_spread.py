"""Roles: every prompt is patched at its own token, in a batch as alone, whatever its length; and what does not fit is told."""

import pytest
import torch

import patchclamp as pc
from patchclamp.cause.ablate import ablate, resampled
from patchclamp.cause.path import paths
from patchclamp.core.errors import WrongAxis, WrongPrompt
from patchclamp.core.pair import aligned
from patchclamp.task.tasks import draw

CLEAN = [[30, 31, 32, 33, 34, 35, 36], [40, 41, 42, 43], [50, 51, 52, 53, 54]]
CORRUPT = [[30, 61, 32, 33, 64, 35, 36], [40, 61, 42, 43], [50, 51, 62, 53, 54]]
ROLES = {"first": [1, 1, 2], "last": [-1, -1, -1], "second": [4, 2, 3]}
METRIC = pc.logit_diff(7, 8)


def agree(grid, pattern, ask):
    """Every entry of the batch is what one prompt by itself says, at one token."""
    assert grid.axes[-1] == "role" and grid.words("role") == list(ROLES) and bool(grid.values.any())
    axis = "query" if "pattern" in pattern else "pos"
    for n, tokens in enumerate(ROLES.values()):
        for row, token in enumerate(tokens):
            single = ask(pattern.replace("role=*", f"{axis}={token}"), row)
            assert torch.allclose(grid.each[row, ..., n], single.each[0], atol=1e-5), (pattern, n, row)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "pattern",
    ["blocks.*.out[role=*]", "blocks.*.attn.z[head=*, role=*]", "blocks.1.mlp.out[role=*]", "blocks.*.attn.pattern[role=*]"],
)
def test_a_batch_by_role_is_every_prompt_alone(kind, pattern, request):
    model = request.getfixturevalue(kind)
    for options in ({}, {"estimate": pc.gradient}):
        grid = pc.effects(model, CLEAN, CORRUPT, pattern, METRIC, roles=ROLES, **options)
        agree(grid, pattern, lambda s, row, o=options: pc.effects(model, [CLEAN[row]], [CORRUPT[row]], s, METRIC, **o))
    if "pattern" not in pattern:
        agree(
            ablate(model, CLEAN, pattern, METRIC, roles=ROLES), pattern, lambda s, row: ablate(model, [CLEAN[row]], s, METRIC)
        )


def test_prompts_of_one_length_may_have_their_roles_at_different_tokens(gpt2):
    clean, corrupt = [CLEAN[0], [9, *CLEAN[0][:-1]]], [CORRUPT[0], [9, *CORRUPT[0][:-1]]]
    grid = pc.effects(gpt2, clean, corrupt, "blocks.*.out[role=*]", METRIC, roles={"name": [1, 2], "lead": [0, 0]})
    for row, token in enumerate([1, 2]):
        single = pc.effects(gpt2, [clean[row]], [corrupt[row]], f"blocks.*.out[pos={token}]", METRIC)
        assert torch.allclose(grid.each[row, :, 0], single.each[0], atol=1e-5)
    assert not grid.values[:, 1].any()


def test_windows_and_paths_know_roles(gpt2):
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.mlp.out[role=*]", METRIC, roles=ROLES, window=2)
    agree(grid, "blocks.*.mlp.out[role=*]", lambda s, row: pc.effects(gpt2, [CLEAN[row]], [CORRUPT[row]], s, METRIC, window=2))
    told = paths(gpt2, CLEAN, CORRUPT, "blocks.0.attn.z[head=*, role=*]", "blocks.1.mlp.in", METRIC, roles=ROLES)
    agree(told, "blocks.0.attn.z[head=*, role=*]",
          lambda s, row: paths(gpt2, [CLEAN[row]], [CORRUPT[row]], s, "blocks.1.mlp.in", METRIC))  # fmt: skip


def test_a_role_is_resampled_by_the_same_role(gpt2):
    run = gpt2.run(CLEAN, "blocks.1.out")
    grid = ablate(gpt2, CLEAN, "blocks.1.out[role=*]", METRIC, by=resampled(run, seed=1), roles=ROLES)
    own = [[run["blocks.1.out[pos=1|1|2]"][row] for row in range(3)], METRIC(run.logits)]
    for row in range(3):
        given = [
            METRIC(gpt2.edit(pc.patch(f"blocks.1.out[pos={ROLES['first'][row]}]", own[0][other])).run([CLEAN[row]]).logits)[0]
            for other in range(3)
            if other != row
        ]
        assert min(abs(float(grid.each[row, 0] - (value - own[1][row]))) for value in given) < 1e-5


def test_tokens_are_counted_without_padding_where_a_place_is_fixed_too(gpt2):
    """The second prompt's token 1 is the batch's column 4, which differs; nothing may be taken for a no-op."""
    grid = pc.effects(gpt2, CLEAN, CORRUPT, "blocks.*.out[pos=1]", METRIC)
    for row in range(3):
        single = pc.effects(gpt2, [CLEAN[row]], [CORRUPT[row]], "blocks.*.out[pos=1]", METRIC)
        assert torch.allclose(grid.each[row], single.each[0], atol=1e-5)


def test_an_edit_may_name_a_token_for_each_prompt(gpt2):
    both = gpt2.edit(pc.zero("blocks.1.out[pos=1|2|-1]")).run(CLEAN)
    for row, token in enumerate([1, 2, -1]):
        single = gpt2.edit(pc.zero(f"blocks.1.out[pos={token}]")).run([CLEAN[row]])
        assert torch.allclose(both.logits[row, -1], single.logits[0, -1], atol=1e-5)
    with pytest.raises(WrongAxis, match="a token for each of 2 prompts; there are 3"):
        gpt2.run(CLEAN, "blocks.1.out[pos=1|2]")
    with pytest.raises(WrongAxis, match="an entry for each prompt, which only tokens have"):
        gpt2.run(CLEAN, "blocks.1.attn.z[head=1|2|3]")


def test_pairs_bring_their_roles(town):
    pairs = sorted(draw("town/ioi", 40, seed=1, tokenizer=town.tokenizer), key=lambda p: len(p.clean))[::13]
    roles, metric = aligned(pairs, town.tokenizer), pc.logit_diff([p.answer for p in pairs], [p.wrong for p in pairs])
    clean, corrupt = [p.clean for p in pairs], [p.corrupt for p in pairs]
    assert len(set(roles["S2"])) > 1 and town.inputs(clean).padded
    grid = pc.effects(town, clean, corrupt, "blocks.*.out[role=*]", metric, roles=roles).fraction()
    assert float(grid.at(layer=0, role="S2").values) > 0.9 and float(grid.at(layer=3, role="end").values) > 0.9
    assert abs(float(grid.at(layer=0, role="end").values)) < 0.1


@pytest.mark.parametrize(
    ("pattern", "roles", "error", "says"),
    [
        ("blocks.*.out[role=*]", None, WrongAxis, "goes through roles; say which token each is"),
        ("blocks.*.out[pos=*]", ROLES, WrongAxis, r"has no star over roles; write it as in blocks\.\*\.out\[role=\*\]"),
        ("blocks.*.out[role=*]", {"end": [-1, -1]}, WrongPrompt, 'the role "end" has 2 tokens for 3 prompts'),
        ("blocks.*.out[role=*]", {"end": [1, 6, 1]}, WrongAxis, 'the role "end": .*prompt 1 has 4 tokens'),
        ("blocks.*.attn.W_Q[role=*]", ROLES, pc.PatchclampError, "is a weight"),
        ("blocks.*.out[pos=*]", None, WrongPrompt, r"run them pair by pair, or say with roles="),
    ],
)
def test_what_does_not_fit_is_told(gpt2, pattern, roles, error, says):
    with pytest.raises(error, match=says):
        pc.effects(gpt2, CLEAN, CORRUPT, pattern, METRIC, roles=roles)
