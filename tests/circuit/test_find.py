"""The town's circuit for indirect objects: found, sufficient, complete, better than chance, and its heads look where they should.

Nothing here hangs on which heads they are, so another training of the same model has to pass as well.
"""

from random import Random

import pytest
import torch
from scipy.stats import spearmanr

import patchclamp as pc
from patchclamp.circuit.eap import eap
from patchclamp.circuit.edges import Question, edges, label
from patchclamp.circuit.faithful import curve, judge, share
from patchclamp.circuit.find import NoCircuit, _smallest, found, living, trimmed
from patchclamp.circuit.roles import named, roles
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.journal import keeping
from patchclamp.core.pair import aligned, alike
from patchclamp.task.tasks import draw


@pytest.fixture(scope="module")
def pairs(town):
    return alike(draw("town/ioi", 1500, seed=1, tokenizer=town.tokenizer), town.tokenizer)[0][:20]


@pytest.fixture(scope="module")
def batch(pairs):
    metric = pc.logit_diff([p.answer for p in pairs], [p.wrong for p in pairs])
    return [p.clean for p in pairs], [p.corrupt for p in pairs], metric


@pytest.fixture(scope="module")
def ranking(town, batch):
    return edges(town, *batch, estimate=eap)


@pytest.fixture(scope="module")
def circuit(town, batch, ranking):
    return found(town, *batch, ranking=ranking)


def test_heads_found_by_exact_patching_and_by_gradient_agree(town, batch):
    exact = pc.effects(town, *batch[:2], "blocks.*.attn.z[head=*]", batch[2])
    estimated = pc.effects(town, *batch[:2], "blocks.*.attn.z[head=*]", batch[2], estimate=pc.gradient)
    assert spearmanr(exact.values.flatten(), estimated.values.flatten()).statistic >= 0.9


def test_the_circuit_does_the_work_and_neither_the_rest_nor_chance_does(town, batch, circuit):
    verdict = judge(town, circuit, *batch, random=10)
    assert verdict.share <= 0.15
    assert verdict.faithfulness >= 0.9
    assert verdict.complement < 0.15
    assert max(verdict.random) < 0.15


def test_it_is_the_smallest_of_its_ranking_between_two_sizes_tried(town, batch, ranking, circuit):
    less = ranking.only(ranking.strongest(len(circuit.edges) - 1))
    assert judge(town, less, *batch, random=0).faithfulness < 0.9


def test_trimming_takes_out_what_is_not_missed(town, pairs):
    one = pairs[0].clean, pairs[0].corrupt, pc.logit_diff(pairs[0].answer, pairs[0].wrong)
    ranking = edges(town, *one, estimate=eap)
    circuit = found(town, *one, ranking=ranking)
    padded = ranking.only([*circuit.edges, *ranking.strongest()[-8:]])
    less = trimmed(town, padded, *one)
    assert len(less.edges) <= len(circuit.edges)
    assert judge(town, less, *one, random=0).faithfulness >= 0.9


def test_its_curve_rises_from_nothing_to_everything(town, batch, ranking):
    grid = curve(town, ranking, *batch, shares=(0, 0.02, 0.15, 1))
    assert grid.values[0] == pytest.approx(0, abs=1e-3)
    assert grid.values[-1] == pytest.approx(1, abs=1e-3)
    assert grid.baseline["CMD"] < 0.1


def test_its_heads_look_where_their_roles_look(town, pairs, batch, circuit):
    """Which roles there are depends on the training: where S2 is what differs, name movers may read the same in both runs."""
    grid = roles(town, *batch[:2], aligned(pairs, town.tokenizer), circuit)
    kinds = named(grid)
    found = [label(n.site) for n in circuit.nodes if "attn.z" in n.site]
    assert len(kinds) > len(found) / 2 and {"S-inhibition", "name mover"} & set(kinds.values())
    for head, kind in kinds.items():
        here, at = grid.at(head=head, role=kind), (list(grid.words("head")).index(head), list(grid.words("role")).index(kind))
        assert all(float(here.values) > 1.5 * float(grid.details[control][at]) for control in ("beside", "shuffled"))


def test_by_token_it_is_a_smaller_share_of_all_edges(town, batch, circuit):
    q = Question.of(town, *batch, positions=True)
    single = found(town, *batch, ranking=edges(town, *batch, estimate=eap, positions=True))
    assert len(single.edges) / int(q.all().sum()) < len(circuit.edges) / int(q.wires.joined.sum())


@pytest.mark.parametrize("positions", [False, True])
def test_edges_that_lead_nowhere_are_left_out_and_nothing_changes(gpt2, llama, positions):
    ids = torch.arange(20, 34).view(2, 7)
    other = torch.cat([ids[:, :3], torch.arange(50, 58).view(2, 4)], 1)
    for model in (gpt2, llama):
        ranking = edges(model, ids, other, pc.logit_diff(5, 9), estimate=eap, positions=positions)
        q, left = Question.of(model, ids, other, pc.logit_diff(5, 9), positions), []
        live = [e for e in ranking.edges if e.weight] if positions else ranking.edges
        for n in (15, 20, 25, 30):
            some = ranking.only(Random(n).sample(live, 4 * n if positions else n))
            alive = living(model, some)
            left.append(len(alive.edges) / len(some.edges))
            assert share(q, q.kept(alive.edges)) == pytest.approx(share(q, q.kept(some.edges)), abs=1e-4)
            assert living(model, alive).edges == alive.edges
        assert any(0 < part < 1 for part in left)
        assert living(model, ranking.only(live)).edges == tuple(live)


def test_sizes_that_are_known_are_not_tried_again(gpt2, tmp_path, monkeypatch):
    asked = torch.arange(20, 34).view(2, 7), torch.arange(50, 64).view(2, 7), pc.logit_diff(5, 9)
    ranking = edges(gpt2, *asked, estimate=eap)
    with keeping(tmp_path):
        before = found(gpt2, *asked, ranking=ranking, largest=1)
    monkeypatch.setattr("patchclamp.circuit.find.share", pytest.fail)
    with keeping(tmp_path):
        assert found(gpt2, *asked, ranking=ranking, largest=1).edges == before.edges
    with pytest.raises(WrongPrompt, match="above 0 and up to 1; got 90"):
        found(gpt2, *asked, ranking=ranking, faithful=90)


def test_too_small_a_circuit_is_refused_with_how_far_it_came(town, batch, ranking):
    with pytest.raises(NoCircuit, match="the best kept"):
        found(town, *batch, ranking=ranking, largest=0.002)


@pytest.mark.parametrize("goal", [1, 2, 7, 50])
def test_the_search_finds_the_size_from_which_it_is_enough(goal):
    assert _smallest(lambda n: n >= goal, 50) == goal
    assert _smallest(lambda n: False, 50) is None


def test_pairs_cut_alike_make_one_batch(town, pairs):
    assert len({len(town.tokenizer(p.clean)["input_ids"]) for p in pairs}) == 1
    assert all(len(set(tokens)) == 1 for tokens in aligned(pairs, town.tokenizer).values())
    assert len(pairs) == 20
