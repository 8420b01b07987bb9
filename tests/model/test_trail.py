"""The residual stream through blocks of known make."""

import torch
from torch import nn

from patchclamp.model.trail import leaves, mixes, trail
from patchclamp.model.watch import watch


class Pre(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mix, self.mlp = nn.LayerNorm(8), nn.Conv1d(5, 5, 1), nn.Linear(8, 8)

    def forward(self, x):
        x = x + self.mix(self.norm(x))
        return x + self.mlp(self.norm(x))


class Parallel(Pre):
    def forward(self, x):
        normed = self.norm(x)
        return self.mix(normed) + self.mlp(normed) + x


class Post(Pre):
    def forward(self, x):
        x = self.norm(x + self.mix(x))
        return self.norm(x + self.mlp(x))


class Scaled(Pre):
    def forward(self, x):
        x = x * 0.5 + self.mix(self.norm(x))
        return (x + 2.0 * self.mlp(self.norm(x))) / 3


class Unjoined(Pre):
    def forward(self, x):
        return self.mlp(torch.cat([x[..., :4], x[..., 4:] * x[..., :4]], -1))


def walk(module):
    x = torch.randn(2, 5, 8, requires_grad=True)
    tape = watch(module, {"x": x})
    block = tape.visits[0]
    return tape, block, trail(tape, block, block.ins["x"], block.outs[None])


def test_pre_norm():
    tape, block, steps = walk(Pre())
    assert [s.kind for s in steps] == ["write", "write"]
    assert steps[0].result == steps[1].base
    assert [mixes(tape, s.branch, [block.ins["x"], *(t.result for t in steps[:i])]) for i, s in enumerate(steps)] == [
        True,
        False,
    ]


def test_parallel_writes_are_taken_apart():
    tape, block, steps = walk(Parallel())
    assert [s.kind for s in steps] == ["write"]
    assert len(leaves(tape, block, steps[0].branch)) == 2


def test_norms_in_the_stream():
    assert [s.kind for s in walk(Post())[2]] == ["write", "norm", "write", "norm"]


def test_constant_factors():
    assert [s.kind for s in walk(Scaled())[2]] == ["scale", "write", "write", "scale"]


def test_a_block_that_is_no_sum():
    assert walk(Unjoined())[2] is None
