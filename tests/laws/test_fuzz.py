"""Whatever is asked of a model, and whatever goes wrong inside an edit, it is left bit for bit as it was."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import patchclamp as pc
import zoo

PROMPT = torch.arange(20, 27)[None]
AXES = ["pos", "head", "kv_head", "d_head", "d_model", "neuron", "query", "key", "batch", "vocab", "nonsense"]
PARTS = ["blocks", "attn", "mlp", "q", "k", "v", "z", "in", "out", "mid", "act", "pre", "pattern", "scores", "norm", "logits", "embed",
         "*", "0", "1", "2", "-1", "0:2", ":1", "W_Q", "W_O", "latents", "", "encoder", "@transformer", "h"]  # fmt: skip
path = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(".".join)
number = st.integers(-9, 9).map(str) | st.sampled_from(["*", "1:3", ":", "-2:", ""])
index = st.lists(st.tuples(st.sampled_from(AXES), number).map("=".join), max_size=3).map(
    lambda items: f"[{', '.join(items)}]" if items else ""
)
sites = st.tuples(path, index).map("".join) | st.text(max_size=20)


@pytest.fixture(scope="module")
def model():
    return pc.load(zoo.build("gpt2"))


def state(model):
    """Hooks, replaced forwards, and every weight bit for bit."""
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in m.__dict__) for m in model.hf.modules()]
    return hooks, [p.detach().clone() for p in model.hf.parameters()], model.run(PROMPT).logits


def same(a, b):
    return a[0] == b[0] and all(torch.equal(x, y) for x, y in zip(a[1], b[1])) and torch.equal(a[2], b[2])


@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(site=sites)
def test_ten_thousand_site_strings(model, site):
    """Each is served or refused with an error that names it; hooks are looked at each time, weights below."""
    try:
        model.run(PROMPT, keep=site, logits=False)
    except pc.PatchclampError as error:
        assert str(error).startswith(type(error).__name__ + ": ")
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in model.hf.modules())


def test_a_thousand_exceptions_inside_edits(model):
    before = state(model)
    rng = random.Random(0)
    places = [s for s in model.sites if s != "logits"] + ["blocks.0.attn.W_O", "logits.W_U"]
    for n in range(1000):
        error = rng.choice([KeyError, RuntimeError, MemoryError, KeyboardInterrupt, StopIteration, ZeroDivisionError])

        def fail(value, error=error):
            raise error("inside an edit")

        edited = model.edit(pc.Edit(rng.choice(places), fail))
        with pytest.raises((error, RuntimeError)):
            if n % 10 == 0:
                edited.generate(PROMPT, 3)
            else:
                edited.run(PROMPT, keep=rng.choice(places[:-2]))
        assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in model.hf.modules())
    assert same(before, state(model))


def test_weights_are_as_before_after_all_that(model):
    fresh = zoo.build("gpt2")
    assert all(torch.equal(a, b) for a, b in zip(model.hf.parameters(), fresh.parameters()))
