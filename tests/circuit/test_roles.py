"""Roles: planted patterns are named, and a head that looks at a place whatever stands there is not."""

import pytest
import torch

from patchclamp.circuit.roles import Look, _given, named, roles, titled
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.graph import Graph, Node
from patchclamp.core.grid import Grid

AT = {"IO": [2, 2], "S1": [4, 4], "S2": [6, 6], "end": [6, 6]}
IDS = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
HEADS = ["blocks.0.attn.z[head=0]", "blocks.1.attn.z[head=3]"]


def test_a_score_is_the_models_own_attention(gpt2):
    grid = roles(gpt2, IDS, IDS.flip(0), AT, HEADS)
    pattern = gpt2.run(IDS, "blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    assert float(grid.at(head="1.3", role="name mover").values) == pytest.approx(float(pattern[:, 3, 6, 2].mean()), abs=1e-6)
    assert grid.details["corrupt"][1, 0] == pytest.approx(float(pattern.flip(0)[:, 3, 6, 2].mean()), abs=1e-6)


def test_a_step_from_a_role_is_that_many_tokens_on():
    pattern = torch.arange(2 * 7 * 7).view(2, 7, 7).float()
    assert _given(pattern, AT, "end", "S1-1").tolist() == [pattern[0, 6, 3], pattern[1, 6, 3]]


def test_every_token_may_look_back():
    pattern = torch.arange(2 * 7 * 7).view(2, 7, 7).float()
    for back in (-1, -2):
        expected = torch.stack([pattern[:, i, i + back] for i in range(2, 7)]).mean(0)
        assert torch.equal(_given(pattern, AT, "*", str(back)), expected)


def _grid(there, beside, shuffled=0.0):
    values = torch.tensor([[there]])
    details = {k: torch.tensor([[v]]) for k, v in {"beside": beside, "shuffled": shuffled, "chance": 0.0}.items()}
    return Grid(values, ("head", "role"), {"head": ["3.1"], "role": ["name mover"]}, details=details)


def test_a_role_needs_more_than_the_place_beside_and_than_shuffled_words():
    assert named(_grid(0.6, 0.1)) == {"3.1": "name mover"}
    assert named(_grid(0.6, 0.5)) == {}
    assert named(_grid(0.6, 0.1, shuffled=0.5)) == {}
    assert named(_grid(0.1, 0.0)) == {}


def test_roles_become_notes_of_a_graph():
    graph = Graph((Node("blocks.3.attn.z[head=1]", label="3.1"), Node("logits", label="logits")))
    assert [n.note for n in titled(graph, {"3.1": "name mover"}).nodes] == ["name mover", ""]


def test_a_role_that_is_not_there_and_heads_that_are_none_are_refused(gpt2):
    with pytest.raises(WrongPrompt, match='no role "IQ"'):
        roles(gpt2, IDS, IDS, AT, HEADS, looks=[Look("x", "end", "IQ", "S1")])
    with pytest.raises(WrongPrompt, match="no head"):
        roles(gpt2, IDS, IDS, AT, ["blocks.0.mlp.out"])
    with pytest.raises(WrongPrompt, match="2 places for 1 prompts"):
        roles(gpt2, IDS[:1], IDS[:1], AT, HEADS)
