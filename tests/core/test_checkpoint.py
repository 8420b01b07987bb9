"""Checkpoints: what is resumed is what was kept, to the bit, and a run of another recipe is refused."""

import pytest
import torch
from torch import nn

from patchclamp.core import checkpoint
from patchclamp.core.errors import NotAModel


def trained(seed, steps):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_weights_moments_and_step_come_back(tmp_path):
    checkpoint.keep(tmp_path, {"seed": 0}, *trained(0, 3), step=3)
    model, optimizer = trained(1, 0)
    assert checkpoint.resume(tmp_path, {"seed": 0}, model, optimizer) == 3
    wanted, other = trained(0, 3)
    assert torch.equal(model.weight, wanted.weight)
    for i, moments in other.state_dict()["state"].items():
        assert all(torch.equal(optimizer.state_dict()["state"][i][name], value) for name, value in moments.items())


def test_where_there_is_none_a_run_begins_at_the_beginning(tmp_path):
    assert checkpoint.resume(tmp_path, {}, *trained(0, 0)) == 0


def test_another_recipe_is_refused_and_a_finished_run_leaves_nothing(tmp_path):
    checkpoint.keep(tmp_path, {"seed": 0}, *trained(0, 1), step=1)
    with pytest.raises(NotAModel, match="another recipe"):
        checkpoint.resume(tmp_path, {"seed": 1}, *trained(0, 0))
    checkpoint.forget(tmp_path)
    assert not list(tmp_path.iterdir())
