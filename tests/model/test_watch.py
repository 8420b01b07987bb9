"""The recording of a pass: values are followed, nothing is left behind."""

import torch
from torch import nn

from patchclamp.model.watch import DOOR, watch


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x).view(2, 3, 2, 2).transpose(1, 2).contiguous()
        z = self.b(x)
        z += x
        return y, z


def test_calls_and_visits_are_written_down_in_order():
    toy, x = Toy(), torch.randn(2, 3, 4)
    tape = watch(toy, {"x": x})
    assert [v.path for v in tape.visits] == ["", "a", "b"]
    assert [c.name for c in tape.calls] == ["linear", "view", "transpose", "contiguous", "linear", "add_"]
    assert tape.visits[0].ins.keys() == {"x"} and list(tape.visits[0].outs) == [0, 1]
    assert tape.values[tape.visits[0].ins["x"]] is x


def test_a_value_changed_in_place_has_two_numbers():
    tape = watch(Toy(), {"x": torch.randn(2, 3, 4)})
    before = next(iter(tape.visits[2].outs.values()))
    after = tape.visits[0].outs[1]
    assert before != after and before in tape.changed and after not in tape.changed
    assert tape.producer[after].name == "add_"


def test_ancestors_stop_where_they_are_told():
    tape = watch(Toy(), {"x": torch.randn(2, 3, 4)})
    y = tape.visits[0].outs[0]
    calls, values = tape.ancestors(y, set())
    assert [c.name for c in calls] == ["linear", "view", "transpose", "contiguous"]
    assert tape.visits[0].ins["x"] in values
    stop = next(iter(tape.visits[1].outs.values()))
    assert [c.name for c in tape.ancestors(y, {stop})[0]] == ["view", "transpose", "contiguous"]


def test_frozen_weights_still_leave_a_graph():
    toy = Toy().requires_grad_(False)
    tape = watch(toy, {"x": torch.randn(2, 3, 4)})
    assert tape.values[tape.visits[0].outs[0]].requires_grad
    assert not any(p.requires_grad for p in toy.parameters())


def test_watching_leaves_nothing_behind(gpt2):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in gpt2.hf.modules())
    watch(gpt2.hf, {"input_ids": torch.arange(10).view(2, 5)})
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in gpt2.hf.modules()) == hooks == 0


def test_attention_is_seen_at_its_doorway(gpt2):
    tape = watch(gpt2.hf, {"input_ids": torch.arange(10).view(2, 5), "use_cache": False})
    doors = [v for v in tape.visits if v.path == DOOR]
    assert len(doors) == 2 and doors[0].facts == {"pattern": (2, 4, 5, 5), "reason": ""}
