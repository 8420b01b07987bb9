"""One head is three tables; what they bound is true, and exchanging them for the ideal keeps what the model does."""

import pytest
import torch

import attention_only
import patchclamp as pc
from patchclamp.core.errors import Unserved
from patchclamp.matrix.tables import Tables, accuracy, bound, every_list


@pytest.fixture(scope="module")
def model():
    return pc.load("specimen:maximum")


@pytest.fixture(scope="module")
def tables(model):
    return Tables.of(model)


def drawn(vocab, seed, skill):
    """Tables between noise and the algorithm."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(vocab, vocab, generator=generator).double() for _ in range(3)]
    return Tables(noise[0], noise[1] + skill * torch.arange(vocab), noise[2] + 3 * skill * torch.eye(vocab), 8)


def test_tables_are_the_model(model, tables):
    lists = torch.randint(64, (50, 4), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tables.logits(lists).float(), model.run(lists).logits[:, -1], atol=1e-3)


def test_the_model_laid_out_in_its_tables_is_the_model(model, tables):
    lists = torch.randint(64, (50, 3), generator=torch.Generator().manual_seed(0))
    wide = pc.load(tables.specimen())
    assert torch.allclose(wide.run(lists).logits, model.run(lists).logits, atol=1e-3)
    assert torch.allclose(wide.weights["blocks.0.attn.W_Q"][0, :64], tables.scores.float())


def test_every_pair_is_answered_and_the_bound_says_so_for_most(model, tables):
    known = bound(tables)
    assert 0.5 < known.share <= accuracy(model) and known.work * 50 < known.brute
    assert known.share > 0.99 and accuracy(model) == 1.0  # as the card says
    assert str(known).startswith("at least 99.")
    assert known.grid().shape == {"last": 64, "largest": 64} and int(known.grid().values.nansum()) == int(known.sure.sum())


def test_replacing_both_circuits_by_the_ideal_keeps_the_answers(tables):
    ideal, wide = tables.ideal(), pc.load(tables.specimen())
    assert torch.linalg.matrix_rank(ideal.scores) == 1 and (ideal.scores.diff(dim=1) > 0).all()
    assert torch.equal(ideal.values, ideal.values.diagonal().diag())

    def put(site, table):
        return pc.Edit(
            site, lambda weight: torch.cat([table, torch.zeros_like(table)], 0 if "W_Q" in site else 1)[None].to(weight)
        )

    queries, output = (
        put("blocks.0.attn.W_Q", ideal.scores),
        pc.Edit("blocks.0.attn.W_O", lambda w: torch.cat([torch.zeros(64, 64), ideal.values.float()], 1)[None]),
    )
    assert accuracy(wide.edit(queries, output)) >= 0.99
    assert accuracy(ideal) >= 0.99
    # The controls: without the head the direct path says the last token, the largest in half of all pairs; a head that looks the
    # other way is wrong wherever the two differ.
    assert accuracy(wide.edit(pc.Edit("blocks.0.attn.W_O", torch.zeros_like))) < 0.52
    assert accuracy(wide.edit(put("blocks.0.attn.W_Q", -ideal.scores), output)) < 0.05


@pytest.mark.parametrize("length", [2, 3, 4])
@pytest.mark.parametrize("skill", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_the_bound_is_never_above_the_truth(length, skill):
    for seed in range(4):
        made = drawn(7, seed, skill)
        assert bound(made, length).share <= accuracy(made, length) + 1e-12
        sure = bound(made, length).sure
        for lists in every_list(7, length):
            right = made.logits(lists).argmax(1) == lists.max(1).values
            assert right[sure[lists[:, -1], lists.max(1).values]].all()


def test_the_bound_of_a_perfect_model_is_everything():
    perfect = Tables(torch.zeros(6, 6).double(), 50 * torch.arange(6).double().expand(6, 6), 10 * torch.eye(6).double(), 4)
    for length in (2, 3, 5):
        assert bound(perfect, length).share == 1.0 == accuracy(perfect, length)
    with pytest.raises(ValueError, match="two tokens at least"):
        bound(perfect, 1)


def test_noise_in_the_weights_lowers_the_bound_and_never_above_the_truth(model, tables):
    shares = []
    for size in (0.1, 0.2, 0.3):
        generator = torch.Generator().manual_seed(0)
        loud = model.edit(
            pc.Edit("blocks.0.attn.W_V", lambda w: w + size * w.std() * torch.randn(w.shape, generator=generator))
        )
        shares.append((bound(Tables.of(loud)).share, accuracy(loud)))
    assert all(low <= true for low, true in shares) and shares[0][0] > shares[-1][0]


def test_models_that_are_more_than_three_tables_are_refused(town):
    with pytest.raises(Unserved, match="not one attention head alone"):
        Tables.of(town)
    with pytest.raises(Unserved, match="has norms"):
        Tables.of(attention_only.drawn(layers=1, heads=1, norm="layer"))
    with pytest.raises(Unserved, match="positions matter"):
        Tables.of(attention_only.drawn(layers=1, heads=1))


def test_tables_are_drawn(tables):
    assert [g.axes for g in tables.grids()] == [("token", "logit"), ("query", "key"), ("token", "logit")]
    assert tables.grids()[1].picture().values.shape == (64, 64)
