"""Directions by influence: a model that reads a plane, erasure by hand, and random directions beside."""

from itertools import islice

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.lenses.causal_basis import (
    Basis,
    aitchison,
    alignment,
    by_mean,
    by_resampling,
    causal_basis,
    faithfulness,
    influences,
    random_basis,
)
from patchclamp.model.specimen import Specimen, SpecimenConfig
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as town_of

IDS = [[3, 9, 27, 14, 5, 8, 40, 41], [7, 11, 4, 50, 2, 33, 20, 6]]


def reads_a_plane(varies):
    """A model whose block does nothing and whose logits depend on two directions, the first more; the stream varies in some."""
    torch.manual_seed(0)
    hf = Specimen(SpecimenConfig(layers=1, heads=2, d_head=4, d_model=12, d_mlp=0, norm="none", positional="none")).eval()
    axes = torch.linalg.qr(torch.randn(12, 12)).Q
    with torch.no_grad():
        hf.embed.weight.copy_(torch.randn(64, varies) @ axes[:varies] + 1)
        hf.unembed.weight.copy_(torch.randn(64, 2) @ (torch.tensor([[2.0], [0.7]]) * axes[:2]))
        hf.blocks[0].attn.o.weight.zero_()
    return pc.load(hf), axes[:2]


@pytest.fixture(scope="module")
def plane():
    return reads_a_plane(2)


def test_the_directions_that_are_read_are_found_and_no_others(plane):
    model, axes = plane
    basis = causal_basis(model, IDS, 3)
    first, second, _ = basis.vectors[0]
    assert float((axes @ torch.stack([first, second]).T).square().sum()) == pytest.approx(2, abs=1e-3)  # the same plane
    assert float((first @ axes[0]).abs()) > 0.8
    assert basis.influence[0, 0] > basis.influence[0, 1] > 1e-3 and float(basis.influence[0, 2]) < 1e-4
    assert torch.allclose(basis.vectors[0] @ basis.vectors[0].T, torch.eye(3), atol=1e-4)


def test_no_direction_has_more_influence_and_erasure_may_carry_what_is_not_read_into_what_is():
    model, axes = reads_a_plane(12)
    best = causal_basis(model, IDS, 1)
    turn = torch.linspace(0, torch.pi, 31)[:, None, None]
    around = turn.cos() * axes[0] + turn.sin() * axes[1]
    drawn = torch.nn.functional.normalize(torch.randn(120, 1, 12, generator=torch.Generator().manual_seed(0)), dim=-1)
    read, some = (max(float(influences(model, IDS, Basis(v[None])).values[0]) for v in vs) for vs in (around, drawn))
    assert float(best.influence) > some and float(best.influence) > 1.2 * read
    assert 0.3 < float((axes @ best.vectors[0, 0]).norm()) < 0.95  # half read, half merely varying


def test_nothing_is_left_on_the_models_weights(plane):
    model, _ = plane
    causal_basis(model, IDS, 1)
    assert all(p.grad is None for p in model.hf.parameters())


def test_where_nothing_comes_after_the_model_is_the_lens(plane):
    model, _ = plane
    grid = influences(model, IDS, random_basis(model, 4))
    assert torch.allclose(grid.values[0], grid.values[1], atol=1e-6) and float(grid.values.min()) > 0
    assert alignment(model, IDS, random_basis(model, 4)).values.tolist() == pytest.approx([1.0], abs=1e-4)


def test_influence_on_a_model_is_that_of_erasing_by_hand(llama):
    basis = random_basis(llama, 2)
    prompts = torch.tensor([[30, 31, 32, 33, 34], [40, 41, 42, 43, 44]])
    found = influences(llama, prompts, basis).at(on="model", layer=1, direction=1).values
    v = basis.vectors[1, 1]

    def erase(module, args, kwargs):
        h = args[0]
        return ((h - ((h - h.mean((0, 1))) @ v)[..., None] * v), *args[1:]), kwargs

    with torch.no_grad():
        before = llama.hf(prompts).logits.log_softmax(-1)
        handle = llama.hf.model.layers[1].register_forward_pre_hook(erase, with_kwargs=True)
        after = llama.hf(prompts).logits.log_softmax(-1)
        handle.remove()
    wanted = (before.exp() * (before - after)).sum(-1).mean() / torch.tensor(2.0).log()
    assert float(found) == pytest.approx(float(wanted), rel=1e-3)


def test_padding_is_not_averaged_over(llama):
    prompts, basis = [[30, 31, 32, 33, 34, 35], [40, 41, 42]], random_basis(llama, 2)
    h = [llama.run(p, keep="blocks.1.in")["blocks.1.in"][0] for p in prompts]
    wanted = by_mean(torch.cat(h), basis.vectors[1])
    from patchclamp.model.ending import Ending

    assert torch.allclose(Ending.of(llama, llama.inputs(prompts)).streams[1], torch.cat(h), atol=1e-5)
    mean = torch.cat(h).mean(0) @ basis.vectors[1].T
    assert torch.allclose(wanted @ basis.vectors[1].T, mean.expand(9, 2), atol=1e-5)


def test_resampling_keeps_what_is_there_and_gives_no_token_its_own():
    h, v = torch.randn(50, 6), torch.linalg.qr(torch.randn(6, 2)).Q.T
    made = by_resampling(h, v)
    assert torch.allclose((made @ v.T).sort(0).values, (h @ v.T).sort(0).values, atol=1e-5)
    rest = torch.eye(6) - v.T @ v
    assert torch.allclose(made @ rest, h @ rest, atol=1e-5) and bool(((made - h) @ v.T).abs().amax(-1).gt(0).all())


def test_the_models_own_directions_matter_to_it_and_random_ones_do_not(town):
    texts = list(islice(documents(town_of(0), "basis"), 4))
    basis = causal_basis(town, texts, 3, steps=6)
    found, random = (influences(town, texts, b) for b in (basis, random_basis(town, 3)))
    assert torch.allclose(found.at(on="lens").values, basis.influence, rtol=0.05, atol=0.02)
    on_model = found.at(on="model").values.mean(-1)
    assert bool((on_model[2:] > 10 * random.at(on="model").values.mean(-1)[2:]).all())
    assert faithfulness(found).axes == ("layer",)


def test_aitchison_is_the_cosine_of_centred_changes():
    one, other, weight = torch.randn(4, 9), torch.randn(4, 9), torch.ones(4, 9)
    plain = torch.nn.functional.cosine_similarity(one - one.mean(-1, keepdim=True), other - other.mean(-1, keepdim=True))
    assert torch.allclose(aitchison(one, other, weight), plain, atol=1e-5)
    assert torch.allclose(aitchison(one, -one, torch.rand(4, 9)), -torch.ones(4), atol=1e-5)


def test_mistakes_are_named(llama):
    with pytest.raises(ShapeMismatch, match="has 64 directions at right angles; 65 are asked for"):
        causal_basis(llama, IDS, 65)
    with pytest.raises(WrongPrompt, match="two tokens at least"):
        influences(llama, [[3]], random_basis(llama, 1))
