"""Function vectors: indirect effects against the naive loop, vectors against what heads write, and what they do in the town."""

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import ShapeMismatch, Unserved, WrongPrompt
from patchclamp.probe.direction import random_like
from patchclamp.probe.function_vector import carriers, function_vector, head_means, indirect_effects, task_vector
from patchclamp.probe.lesson import first_tokens, shown
from patchclamp.probe.measure_steering import added, bare_accuracy, found, functions

SITE = "blocks.1.out[pos=-1]"


@pytest.fixture(scope="module")
def made(town):
    """Means and effects of all nine relations, from half of their cues."""
    return found(town, 0, count=16)


@pytest.fixture(scope="module")
def vectors(town, made):
    heads = carriers(list(made.effects.values()), 2)
    return {name: function_vector(town, means, heads) for name, means in made.means.items()}


def test_means_are_averages_over_prompts_by_hand(town, made):
    lesson = made.lessons["plural"]
    each = [town.run(prompt, keep="blocks.2.attn.z")["blocks.2.attn.z[pos=-1, head=5]"][0] for prompt in lesson.prompts]
    assert torch.allclose(made.means["plural"][2, 5], torch.stack(each).mean(0), atol=1e-4)


def test_indirect_effects_are_those_of_the_naive_loop(town, made):
    half = [function.split(0.5, 0)[0] for function in functions()["animals"]]
    corrupted = shown(half[0], 4, 6, mixed=half)
    grid = indirect_effects(town, made.means["plural"], corrupted)
    ids = first_tokens(town, corrupted.answers)
    for layer, head in ((0, 0), (1, 3), (2, 7), (3, 4)):
        edit = pc.patch(f"blocks.{layer}.attn.z[head={head}, pos=-1]", made.means["plural"][layer, head])
        for row, (prompt, token) in enumerate(zip(corrupted.prompts, ids)):
            after, before = (float(m.run(prompt).logits[0, -1].softmax(-1)[token]) for m in (town.edit(edit), town))
            assert float(grid.each[row, layer, head]) == pytest.approx(after - before, abs=1e-4)
    assert set(grid.details) == {"low", "high"}


def test_the_vector_is_the_sum_of_what_the_heads_write(town, made):
    """With only these heads left on, and held at their averages, attention writes the vector."""
    means = made.means["plural"]
    heads = [(1, 3), (1, 5)]
    held = [pc.zero("blocks.1.attn.z")] + [pc.patch(f"blocks.1.attn.z[head={h}]", means[1, h]) for _, h in heads]
    written = town.edit(*held).run("We went home", keep="blocks.1.attn.out")["blocks.1.attn.out"][0, -1]
    assert torch.allclose(function_vector(town, means, heads), written, atol=1e-4)


def test_residual_factors_count_and_norms_are_refused(ids):
    granite = pc.load(zoo.build("granite"))
    means = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    held = granite.edit(pc.zero("blocks.0.attn.z"), pc.patch("blocks.0.attn.z[head=1]", means[0, 1]))
    assert torch.allclose(
        function_vector(granite, means, [(0, 1)]), held.run(ids, keep="blocks.0.attn.out")["blocks.0.attn.out"][0, 0], atol=1e-5
    )
    with pytest.raises(Unserved, match="A task vector"):
        function_vector(pc.load(zoo.build("gemma2")), means, [(0, 1)])


def test_one_head_carries_which_relation_is_meant(made):
    """The same head for all nine, by its causal effect; see LOG for what else it carries."""
    for grid in made.effects.values():
        assert grid.top(1)[0][0] == {"layer": "1", "head": "3"}
        assert float(grid.values[1, 3]) > 0.2


def test_function_vectors_do_the_function_on_bare_cues(town, made, vectors):
    """80 % of in-context accuracy, on cues that nothing was made from, where random vectors of equal length stay at chance."""
    context = sum(made.context.values()) / len(made.context)
    chance = len(functions()) / len(made.tried)  # one of the relations of its kind: the shares of a kind add up to one
    assert context >= 0.95 and bare_accuracy(town, made) <= chance + 0.05
    assert bare_accuracy(town, made, added(vectors)) >= 0.8 * context
    for seed in (1, 2):
        noise = {name: random_like(vector, seed) for name, vector in vectors.items()}
        assert bare_accuracy(town, made, added(noise)) <= chance + 0.05


def test_the_vector_of_another_relation_does_that_one(town, made, vectors):
    swap = {"plural": "young", "young": "plural", "past": "doing", "doing": "past"}
    swapped = {name: vectors[swap.get(name, name)] for name in vectors}
    assert bare_accuracy(town, made, added(swapped)) <= 0.65  # five of nine at best


def test_task_vectors_put_the_whole_stream_in_its_place(town, made):
    lesson = made.lessons["plural"]
    vector = task_vector(town, lesson.prompts, "blocks.1.out")
    each = [town.run(prompt, keep="blocks.1.out")["blocks.1.out[pos=-1]"][0] for prompt in lesson.prompts]
    assert torch.allclose(vector, torch.stack(each).mean(0), atol=1e-4)
    edits = {name: pc.patch(SITE, task_vector(town, one.prompts, "blocks.1.out")) for name, one in made.lessons.items()}
    assert bare_accuracy(town, made, edits) > 0.7


def test_mistakes_are_named(town, made):
    with pytest.raises(ShapeMismatch, match="means of 2 layers"):
        indirect_effects(town, made.means["plural"][:2], made.lessons["plural"])
    with pytest.raises(WrongPrompt, match="name one head at least"):
        function_vector(town, made.means["plural"], [])
    with pytest.raises(ShapeMismatch, match="there are 32 heads"):
        carriers(list(made.effects.values()), 40)
    with pytest.raises(ShapeMismatch, match="no single vector a token"):
        task_vector(town, ["cat:"], "blocks.1.attn.z")
    assert head_means(town, ["cat:"]).shape == (4, 8, 16)
