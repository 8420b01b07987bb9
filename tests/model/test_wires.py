"""Wires: cutting none changes nothing, cutting all gives the other run, and a gradient at a wire's end is autograd's."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import Unserved
from patchclamp.model.inputs import tiled
from patchclamp.model.wires import Wires

KINDS = ["gpt2", "llama", "gemma2", "qwen3", "gpt_neox", "olmo2", "opt", "phi3", "granite", "mixtral", "cohere"]
CLEAN = torch.tensor([[30, 31, 32, 33, 34, 35, 36], [20, 21, 22, 23, 24, 25, 26]])
CORRUPT = torch.tensor([[30, 31, 50, 33, 51, 35, 36], [20, 21, 40, 23, 41, 25, 26]])
METRIC = pc.logit_diff(7, 8)


class Case:
    """A family's small random model with the wires of two runs."""

    def __init__(self, kind: str) -> None:
        with zoo.quiet():
            self.model = pc.load(zoo.build(kind))
            self.wires = Wires.of(self.model)
        self.clean, self.corrupt = self.model.inputs(CLEAN), self.model.inputs(CORRUPT)
        self.run, self.other = (self.model.run(i, self.wires.sites) for i in (self.clean, self.corrupt))
        self.ours, self.theirs = self.wires.written(self.run), self.wires.written(self.other)
        self.none = torch.zeros(self.wires.joined.shape)

    def cut(self, cut, **options):
        return self.wires.run(self.clean, self.theirs, cut, **options)


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    return Case(request.param)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5 * max(float(b.detach().abs().max()), 1.0))


def test_cutting_nothing_changes_nothing(case):
    assert torch.equal(case.cut(case.none), case.run.logits)


def test_cutting_everything_gives_the_other_run(case):
    assert close(case.cut(case.wires.joined.float()), case.other.logits)


def test_what_is_written_adds_up_but_for_biases(case):
    last = f"{case.wires.blocks[-1].path}.out"
    rest = case.model.run(CLEAN, last)[last] - case.ours.sum(0)
    assert close(rest, rest[:1, :1].expand_as(rest))


def test_a_gradient_at_the_end_of_a_wire_is_autograds(case):
    cut = case.none.clone().requires_grad_()
    (expected,) = torch.autograd.grad(METRIC(case.cut(cut, grad=True)).sum(), cut)
    run = case.model.run(CLEAN, case.wires.ends_sites, grad=True)
    found = torch.zeros_like(case.none)
    for reader, arrived in case.wires.ends(case.clean, run, run.gradient(METRIC)):
        change = (case.theirs - case.ours)[: reader.before]
        found[list(reader.rows), : reader.before] = torch.einsum("rbpd,sbpd->rs", arrived, change)
    assert close(found, expected)


def test_what_a_receiver_hears_is_what_cutting_that_wire_makes_it_hear(case):
    cuts = torch.Generator().manual_seed(0)
    for reader, values in case.wires.heard(case.clean, case.theirs - case.ours):
        i = int(torch.randint(len(reader.rows), (1,), generator=cuts))
        sender = int(torch.randint(reader.before, (1,), generator=cuts))
        one = case.none.clone()
        one[reader.rows[i], sender] = 1
        kind, head, path = reader.kinds[i], reader.heads[i], case.wires.blocks[reader.block].path
        if kind == "in":
            edit = pc.patch(f"{path}.mlp.in" if reader.write else f"{path}.out", values[kind][sender])
        else:
            axis = "head" if kind == "q" else "kv_head"
            edit = pc.patch(f"{path}.attn.{kind}[{axis}={head}]", values[kind][sender][:, :, head])
        assert close(case.model.edit(edit).run(CLEAN).logits, case.cut(one))


def test_a_run_may_start_at_the_first_cut_block_with_many_cuts_in_one_batch(case):
    cuts = case.none[:, :, None].repeat(1, 1, 3)
    row = len(case.wires.receivers) - 2
    for n in range(3):
        cuts[row, n : 2 * n + 1, n] = 1
    settled = case.wires.settled(case.clean, case.ours)
    together = case.wires.run(
        tiled(case.clean, 3), case.theirs.repeat(1, 3, 1, 1), cuts.repeat_interleave(2, 2)[..., None], settled=settled
    )
    for n, logits in enumerate(together.unflatten(0, (3, 2))):
        assert close(logits, case.cut(cuts[:, :, n]))


def test_a_wire_can_be_cut_at_one_token():
    case = Case("gpt2")
    cut = case.none[..., None].repeat(1, 1, 7)
    cut[-1, :, 3] = 1
    logits = case.cut(cut)
    assert torch.equal(logits[:, [0, 1, 2, 4, 5, 6]], case.run.logits[:, [0, 1, 2, 4, 5, 6]])
    assert close(logits[:, 3], case.other.logits[:, 3])


def test_half_a_cut_is_half_the_change():
    case = Case("gpt2")
    cut = case.none.clone()
    cut[-1] = 0.5
    half = (case.ours + case.theirs).sum(0) / 2 - case.ours.sum(0)
    last = f"{case.wires.blocks[-1].path}.out"
    assert close(case.cut(cut), case.model.edit(pc.steer(last, half)).run(CLEAN).logits)


def test_the_wires_of_an_edited_model_are_its_own():
    with zoo.quiet():
        model = pc.load(zoo.build("gpt2")).edit(pc.zero("blocks.0.attn.z[head=1]"))
    wires = Wires.of(model)
    run = model.run(CLEAN, wires.sites)
    assert not wires.written(run)[2].any()
    other = wires.written(model.run(CORRUPT, wires.sites))
    everything = wires.run(model.inputs(CLEAN), other, wires.joined.float())
    assert close(everything, model.run(CORRUPT).logits)


@pytest.mark.parametrize(
    ("kind", "task", "reason"),
    [
        ("bert", "masked", "standing in its stream"),
        ("gptj", "causal", "attention interface"),
        ("mamba", "causal", "also writes mixer"),
        ("qwen3_next", "causal", "no wires"),
    ],
)
def test_a_model_without_wires_is_refused_with_the_reason(kind, task, reason):
    with zoo.quiet():
        model = pc.load(zoo.build(kind, task))
    with pytest.raises(Unserved, match=reason):
        Wires.of(model)


def test_an_edit_where_wires_end_is_refused():
    with zoo.quiet():
        model = pc.load(zoo.build("gpt2")).edit(pc.zero("blocks.0.attn.q[head=1]"))
    with pytest.raises(Unserved, match="edit what is written"):
        Wires.of(model)
