"""Shapes are said once, and checked while the tests run; nobody else pays for that."""

import doctest
import importlib
import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

import patchclamp as pc
import zoo
from patchclamp.cause.spread import Spread
from patchclamp.core.axes import MEANING, POSITIONS
from patchclamp.core.metric import Metric
from patchclamp.model.norms import Norm
from patchclamp.model.unembed import End

LOGITS = torch.zeros(2, 3, 9)


def test_a_metric_of_logits_without_positions_is_caught():
    assert pc.logit(1)(LOGITS).shape == (2,)
    with pytest.raises(TypeCheckError, match="batch pos vocab"):
        pc.logit(1)(LOGITS[:, 0])
    with pytest.raises(TypeCheckError, match="batch pos vocab"):
        pc.logit(1)(LOGITS.long())


def test_a_metric_that_forgets_its_prompts_is_caught():
    with pytest.raises(TypeCheckError, match="batch"):
        Metric("mean", "logits", lambda at: at.mean())(LOGITS)


def test_shapes_that_do_not_go_together_are_caught(gpt2):
    norm = Norm(torch.ones(8), torch.zeros(8), centres=False)
    assert norm.scale(torch.ones(2, 8), torch.ones(2, 8)).shape == (2, 1)
    with pytest.raises(TypeCheckError):
        norm.scale(torch.ones(2, 8), torch.ones(3, 8))
    with pytest.raises(TypeCheckError):
        End.of(gpt2, gpt2.inputs([3, 4]))(torch.zeros(1, 2, 64))


def test_an_estimate_that_forgets_the_prompts_is_caught(gpt2):
    with pytest.raises(TypeCheckError):
        Spread.shaped(None, torch.zeros(3))


def test_who_uses_the_package_has_no_checks():
    code = "import patchclamp as pc, torch, sys; pc.logit(1); assert 'beartype' not in sys.modules; pc.rank(1)(torch.zeros(2, 3, 9))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["lenses.logit", "cause.effects", "core.metric", "core.edit"])
def test_examples_of_checked_functions_are_found(name):
    module = importlib.import_module(f"patchclamp.{name}")
    found = {test.name for test in doctest.DocTestFinder().find(module) if test.examples}
    assert len(found) >= (1 if name.startswith(("lenses", "cause")) else 6), found


@pytest.mark.parametrize(("kind", "task"), [("gpt2", "causal"), ("mixtral", "causal"), ("mamba", "causal"), ("bert", "masked")])
def test_every_axis_has_a_meaning(kind, task):
    with zoo.quiet():
        model = pc.load(zoo.build(kind, task))
        axes = {a for p in model.anatomy.places.values() for a in p.axes} | {
            a for e in model.weights.entries.values() for a in e.axes
        }
    assert axes <= set(MEANING) and set(POSITIONS) <= set(MEANING)


def test_every_name_of_the_front_door_has_an_example():
    without = [name for name in pc.__all__ if ">>>" not in (getattr(pc, name).__doc__ or "")]
    assert without == []
