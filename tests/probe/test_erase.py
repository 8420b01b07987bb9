"""Erasure: nothing linear is left, as little as possible has moved, and an eraser is an edit."""

from __future__ import annotations

import json

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import NotSaved, ShapeMismatch, WrongAxis, WrongPrompt
from patchclamp.model.gather import every, gather
from patchclamp.probe.erase import Eraser, inlp, leace, leace_of, mean_difference, oracle, scrub
from patchclamp.probe.linear import logistic
from patchclamp.probe.moments import Moments, concept, in_batches
from patchclamp.specimens.town import tasks
from patchclamp.specimens.town.world import town as world


@pytest.fixture
def rows():
    """Correlated rows with three classes, and one direction in which nothing varies."""
    chosen = torch.Generator().manual_seed(0)
    y = torch.randint(3, (3000,), generator=chosen)
    x = torch.randn(3000, 12, generator=chosen) @ torch.randn(12, 12, generator=chosen)
    x = x + 2 * torch.randn(3, 12, generator=chosen)[y]
    return torch.cat([x, torch.full((3000, 1), 2.0)], 1), y


@pytest.fixture(scope="module")
def subjects(town):
    """Singular or plural, after two nouns of the other number: activations before the verb."""
    items = tasks.draw("agreement", world(0), 1200, held_out=False, attractors=2)
    return [i.clean for i in items], [i.kind for i in items], gather(town, "blocks.2.out", [i.clean for i in items])


def covariance(x, y):
    z = concept(y).double()
    return (x.double() - x.double().mean(0)).T @ (z - z.mean(0)) / len(x)


@pytest.mark.parametrize("fit", [leace, mean_difference], ids=lambda f: f.__name__)
def test_no_covariance_with_the_concept_is_left(rows, fit):
    x, y = rows
    assert covariance(x, y).abs().max() > 0.1
    assert covariance(fit(x, y)(x), y).abs().max() < 1e-5


def test_the_best_linear_probe_is_then_a_constant(rows):
    x, y = rows
    assert logistic(x, y).layers[0][0].abs().max() > 0.5
    assert logistic(leace(x, y)(x), y).layers[0][0].abs().max() < 1e-2


def test_of_all_maps_that_erase_leace_moves_the_rows_least(rows):
    """Against projections along other directions that take the covariance away as well: any left inverse would do."""
    x, y = rows
    best, chosen = leace(x, y), torch.Generator().manual_seed(1)
    u = torch.linalg.svd(covariance(x, y), full_matrices=False).U[:, :2].float()
    inside = best.right.float() @ torch.linalg.inv(u.T @ best.right.float())
    for size in (0.01, 0.1, 1.0):
        for _ in range(10):
            readers = inside + size * torch.randn(u.shape, generator=chosen) * inside.norm() / inside.numel() ** 0.5
            other = Eraser(readers @ torch.linalg.inv(u.T @ readers), u.T, x.mean(0))  # reads u as itself, and noise beside it
            assert covariance(other(x), y).abs().max() < 1e-3
            assert other.cost(x) >= best.cost(x) * (1 - 1e-6)


def test_leace_is_that_of_the_formula_by_another_way(rows):
    """P = I - S U (U' U)^-1 U' S^-1 written with the pseudo-inverse of the covariance and no whitening."""
    x, y = rows
    found = leace(x, y)
    s, c = torch.cov(x.double().T, correction=0), covariance(x, y)
    inner = torch.linalg.pinv(c.T @ torch.linalg.pinv(s, rtol=1e-9, hermitian=True) @ c, rtol=1e-9, hermitian=True)
    p = torch.eye(13, dtype=torch.float64) - c @ inner @ c.T @ torch.linalg.pinv(s, rtol=1e-9, hermitian=True)
    by_hand = (x.double() - x.double().mean(0)) @ p.T + x.double().mean(0)
    assert torch.allclose(found(x).double(), by_hand, atol=1e-4)


def test_leace_costs_less_than_the_mean_difference_and_the_oracle_less_still(rows):
    x, y = rows
    assert oracle(x, y).cost(x, y) < leace(x, y).cost(x) < 0.9 * mean_difference(x, y).cost(x)
    assert covariance(oracle(x, y)(x, y), y).abs().max() < 1e-5


def test_erasing_twice_is_erasing_once(rows):
    x, y = rows
    once = leace(x, y)
    assert torch.allclose(once(once(x)), once(x), atol=1e-4) and torch.allclose(once(x).mean(0), x.mean(0), atol=1e-4)


def test_numbers_and_several_concepts_are_erased_too(rows):
    x = rows[0]
    both = torch.stack([x[:, 0] + x[:, 1], x[:, 5]], 1)
    assert covariance(leace(x, both)(x), both).abs().max() < 1e-4
    assert covariance(leace(x, both[:, 0].tolist())(x), both[:, 0].tolist()).abs().max() < 1e-4


def test_a_stream_gives_the_same_eraser(rows):
    x, y = rows
    streamed = leace_of(Moments.of(in_batches(x, concept(y), 100)))
    assert torch.allclose(streamed(x), leace(x, y)(x), atol=1e-5)


def test_null_spaces_one_after_another_remove_a_direction_a_round(rows):
    x, y = rows
    two = [v == 0 for v in y.tolist()]
    assert [inlp(x, two, rounds).right.shape[1] for rounds in (1, 3)] == [1, 3]


def test_the_probe_falls_to_chance_and_leace_pays_less(subjects):
    _, labels, x = subjects
    half = len(x) // 2
    score = {}
    for name, fit in (("before", None), ("leace", leace), ("means", mean_difference)):
        own = fit(x[:half], labels[:half]) if fit else (lambda v: v)
        said = logistic(own(x[:half]), labels[:half]).predict(own(x[half:]))
        per = [[a == b for a, b in zip(said, labels[half:]) if b == kind] for kind in ("singular", "plural")]
        score[name] = sum(sum(p) / len(p) for p in per) / 2
    assert score["before"] > 0.99 and abs(score["leace"] - 0.5) <= 0.01
    assert leace(x[:half], labels[:half]).cost(x[half:]) < mean_difference(x[:half], labels[:half]).cost(x[half:])


def test_an_eraser_is_an_edit(town, subjects):
    texts, labels, x = subjects
    eraser = leace(x, labels)
    edited = town.edit(eraser.edit("blocks.2.out[pos=-1]"))
    assert torch.allclose(gather(edited, "blocks.2.out", texts[:50]), eraser(x[:50]), atol=1e-4)
    assert torch.allclose(gather(town, "blocks.2.out", texts[:50]), x[:50], atol=1e-4)


def test_an_oracle_is_an_edit_for_its_prompts(town, subjects):
    texts, labels, x = subjects
    told = oracle(x, labels)
    edited = town.edit(told.edit("blocks.2.out[pos=-1]", labels[:20]))
    run = edited.run(texts[:20], "blocks.2.out[pos=-1]")
    assert torch.allclose(run["blocks.2.out[pos=-1]"], told(x[:20], labels[:20]), atol=1e-4)
    with pytest.raises(ShapeMismatch, match="20 labels, and the place holds 3 prompts"):
        edited.run(texts[:3])


def test_scrubbing_takes_the_number_away_at_every_layer_and_nothing_else(town):
    """Signed at each token from the subject on, 0 elsewhere, gifts among the prompts: verbs become a guess, gifts stay known."""
    items, gifts = tasks.draw("agreement", world(0), 550, held_out=False, attractors=2), tasks.draw("ioi", world(0), 300)
    prompts = [i.clean for i in [*items[:400], *gifts[:200]]]
    count = torch.bincount(every(town, "embed.out", prompts).prompt).tolist()
    labels = [[0.0] * n for n in count]
    for own, item in zip(labels, items):
        start = item.positions["subject"]
        own[start:] = [1.0 if item.kind == "plural" else -1.0] * (len(own) - start)
    scrubbed = town.edit(*scrub(town, "blocks.*.out", prompts, labels))
    rows = every(scrubbed, "blocks.3.out", prompts)
    assert covariance(rows.value, [v for own in labels for v in own]).abs().max() < 1e-4

    def right(model, asked):
        logits = model.run([i.clean for i in asked]).logits[:, -1]
        return sum(bool(row[town.token(i.answer)] > row[town.token(i.wrong)]) for row, i in zip(logits, asked)) / len(asked)

    assert right(town, items[400:]) > 0.99 and right(scrubbed, items[400:]) < 0.75
    assert right(town, gifts[200:]) - right(scrubbed, gifts[200:]) < 0.02


def test_labels_for_every_token(town):
    prompts = ["Mary and John went to the store", "Anna saw a boat"]
    labels = [[n % 2 for n in range(len(every(town, "embed.out", [p]).token))] for p in prompts]
    (edit,) = scrub(town, "blocks.1.out", prompts, labels)
    rows = every(town.edit(edit), "blocks.1.out", prompts)
    assert covariance(rows.value, [v for own in labels for v in own]).abs().max() < 1e-4
    with pytest.raises(ShapeMismatch, match="prompt 1 has 5 tokens and 2 labels"):
        scrub(town, "blocks.1.out", prompts, [labels[0], [0, 1]])
    with pytest.raises(WrongAxis, match="give one for each prompt"):
        scrub(town, "blocks.1.out[pos=-1]", prompts, labels)


def test_an_eraser_comes_back_from_disk_as_it_was(rows, tmp_path):
    made = leace(*rows)
    again = Eraser.load(made.save(tmp_path / "eraser"))
    assert torch.equal(again(rows[0]), made(rows[0])) and again.method == "leace"
    (tmp_path / "card.json").write_text(json.dumps({"noun": "Probe"}))
    with pytest.raises(NotSaved, match="holds no Eraser"):
        Eraser.load(tmp_path)
    with pytest.raises(NotSaved, match=r"no readable card\.json"):
        Eraser.load(tmp_path / "nothing")


def test_half_precision_stays_half_precision(rows):
    assert leace(*rows)(rows[0].bfloat16()).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused(rows, town):
    x, y = rows
    with pytest.raises(ShapeMismatch, match="fitted on 13 numbers and is given 4"):
        leace(x, y)(torch.randn(2, 4))
    with pytest.raises(ShapeMismatch, match="3000 rows and 4 labels"):
        leace(x, y[:4])
    with pytest.raises(WrongPrompt, match="knows the labels 0, 1, 2, not 9"):
        oracle(x, y)(x[:1], [9])
    with pytest.raises(ShapeMismatch, match="1 labels for 2 prompts"):
        scrub(town, "blocks.*.out", ["a", "the"], [1])
    assert isinstance(leace(x, y).edit("blocks.1.out"), pc.Edit)
