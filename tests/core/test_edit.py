"""Edits as functions of a value, apart from any model."""

import pytest
import torch

from patchclamp.core.edit import Edit, Here, clamp, freeze, mean, patch, project, splice, steer, zero
from patchclamp.core.errors import NotKept, ShapeMismatch
from patchclamp.core.run import Kept, Run
from patchclamp.core.site import Site
from patchclamp.core.window import Window

AXES = ("batch", "pos", "d_model")
VALUE = torch.arange(2 * 3 * 4.0).view(2, 3, 4)
HERE = Here(Site.parse("blocks.1.out"), AXES, {"pos": Window(3)})


def run_of(value, path="blocks.1.out", index=()):
    windows = {"pos": Window(value.shape[1])}
    return Run(
        torch.zeros(value.shape[0], value.shape[1], dtype=torch.long),
        {"": windows["pos"]},
        {path: Kept(value, AXES, windows, index)},
    )


def test_zero_and_clamp():
    assert (zero("blocks.1.out").apply(VALUE, HERE) == 0).all()
    made = clamp("blocks.1.out[pos=1]", 5.0).apply(VALUE, HERE)
    assert (made[:, 1] == 5).all() and torch.equal(made[:, 0], VALUE[:, 0])
    assert torch.equal(clamp("blocks.1.out", torch.ones(4)).apply(VALUE, HERE), torch.ones(2, 3, 4))


def test_steer_adds():
    vector = torch.tensor([1.0, 0, 0, 2])
    assert torch.equal(steer("blocks.1.out", vector).apply(VALUE, HERE), VALUE + vector)


def test_project_takes_a_direction_out_whatever_its_length():
    value = torch.randn(2, 3, 4)
    made = project("blocks.1.out", torch.tensor([[2.0, 0, 0, 0], [1, 3, 0, 0]])).apply(value, HERE)
    assert torch.allclose(made[..., :2], torch.zeros(2, 3, 2), atol=1e-6)
    assert torch.allclose(made[..., 2:], value[..., 2:], atol=1e-6)


def test_patch_from_a_run_or_a_tensor():
    source = torch.randn(2, 3, 4)
    assert torch.equal(patch("blocks.1.out", run_of(source)).apply(VALUE, HERE), source)
    made = patch("blocks.1.out[pos=-1]", run_of(source)).apply(VALUE, HERE)
    assert torch.equal(made[:, -1], source[:, -1]) and torch.equal(made[:, :-1], VALUE[:, :-1])
    assert torch.equal(patch("blocks.1.out", source).apply(VALUE, HERE), source)


def test_patch_of_later_tokens_takes_the_same_tokens_of_the_source():
    source = torch.randn(2, 5, 4)
    later = Here(HERE.site, AXES, {"pos": Window(3, start=2)}, late=True)
    assert torch.equal(patch("blocks.1.out", run_of(source)).apply(VALUE, later), source[:, 2:])
    made = patch("blocks.1.out[pos=3]", run_of(source)).apply(VALUE, later)
    assert torch.equal(made[:, 1], source[:, 3]) and torch.equal(made[:, 0], VALUE[:, 0])


def test_patch_while_generating_stops_where_its_source_ends():
    source = torch.randn(2, 4, 4)
    later = Here(HERE.site, AXES, {"pos": Window(3, start=2)}, late=True)
    made = patch("blocks.1.out", run_of(source)).apply(VALUE, later)
    assert torch.equal(made[:, :2], source[:, 2:]) and torch.equal(made[:, 2], VALUE[:, 2])
    beyond = Here(HERE.site, AXES, {"pos": Window(3, start=9)}, late=True)
    assert patch("blocks.1.out", run_of(source)).apply(VALUE, beyond) is VALUE


def test_mean_is_over_prompts_and_tokens_without_padding():
    source = torch.randn(2, 3, 4)
    made = mean("blocks.1.out", run_of(source)).apply(VALUE, HERE)
    assert torch.allclose(made[0, 0], source.flatten(0, 1).mean(0))
    padded = Run(
        torch.zeros(2, 3, dtype=torch.long),
        {"": Window(3, 0, (2, 0))},
        {"blocks.1.out": Kept(source, AXES, {"pos": Window(3, 0, (2, 0))})},
    )
    made = mean("blocks.1.out", padded).apply(VALUE, HERE)
    assert torch.allclose(made[0, 0], torch.cat([source[0, 2:], source[1]]).mean(0))


def test_mean_at_a_head():
    source = torch.randn(2, 3, 2, 5)
    axes = ("batch", "pos", "head", "d_head")
    run = Run(torch.zeros(2, 3, dtype=torch.long), {"": Window(3)}, {"b.z": Kept(source, axes, {"pos": Window(3)})})
    here = Here(Site.parse("b.z"), axes, {"pos": Window(3)})
    made = mean("b.z[head=1]", run).apply(torch.zeros(2, 3, 2, 5), here)
    assert torch.allclose(made[1, 2, 1], source[:, :, 1].flatten(0, 1).mean(0)) and (made[:, :, 0] == 0).all()


def test_freeze_stops_gradients():
    value = VALUE.clone().requires_grad_()
    assert not freeze("blocks.1.out").apply(value, HERE).requires_grad
    source = torch.randn(2, 3, 4)
    assert torch.equal(freeze("blocks.1.out", run_of(source)).apply(value, HERE), source)


def test_any_function_is_an_edit():
    assert torch.equal(Edit("blocks.1.out", lambda v: -v).apply(VALUE, HERE), -VALUE)
    assert Edit("blocks.1.out", lambda v: v).apply(VALUE, HERE) is VALUE


def test_edits_say_what_they_are():
    assert repr(zero("blocks.*.mlp.out")) == "zero('blocks.*.mlp.out')"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (steer("blocks.1.out", torch.ones(7)), r"steer at blocks.1.out takes a tensor that fits \[2, 3, 4\]; got \[7\]"),
        (project("blocks.1.out", torch.ones(7)), "takes directions of 4 numbers"),
        (patch("blocks.1.out", torch.ones(2, 9, 4)), "another length"),
        (Edit("blocks.1.out", lambda v: v[:, :1]), r"returned \[2, 1, 4\]; the place holds \[2, 3, 4\]"),
        (Edit("blocks.1.out", lambda v: None), "returned NoneType; return the new value"),
        (mean("blocks.1.attn.pattern", Run(torch.zeros(1, 2, dtype=torch.long), {}, {"blocks.1.attn.pattern": Kept(torch.ones(1, 1, 2, 2), ("batch", "head", "query", "key"), {})})), "no mean over tokens"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error_with_the_place_in_it(edit, says):
    here = Here(Site.parse("blocks.1.attn.pattern"), AXES, HERE.windows) if "pattern" in str(edit.site) else HERE
    with pytest.raises(ShapeMismatch, match=says):
        edit.apply(VALUE, here)


def test_patching_what_a_run_did_not_keep():
    with pytest.raises(NotKept, match=r'keep="blocks.2.out"'):
        patch("blocks.2.out", run_of(VALUE)).apply(VALUE, Here(Site.parse("blocks.2.out"), AXES, HERE.windows))
    part = run_of(VALUE[:, -1:], index=(("pos", -1),))
    with pytest.raises(NotKept, match=r"only blocks.1.out\[pos=-1\] was kept"):
        patch("blocks.1.out", part).apply(VALUE, HERE)


def test_a_splice_is_carried_out_by_the_tap():
    class Identity:
        def encode(self, x):
            return x

        def decode(self, latents):
            return latents

    with pytest.raises(AssertionError):
        splice("blocks.1.out", Identity()).apply(VALUE, HERE)
