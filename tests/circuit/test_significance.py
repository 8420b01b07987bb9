"""Significance: each test rejects what is false and keeps what is true, on numbers and on the town's circuit."""

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.eap import eap
from patchclamp.circuit.edges import edges
from patchclamp.circuit.find import found
from patchclamp.circuit.significance import equivalence, independence, significance
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.graph import Graph
from patchclamp.core.pair import alike
from patchclamp.task.tasks import draw


def test_equivalence_is_rejected_only_where_one_side_wins():
    noise = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert equivalence(torch.zeros(40), noise).p_value > 0.05
    assert equivalence(torch.zeros(40), noise.abs()).p_value < 1e-6
    assert equivalence(torch.zeros(40), torch.zeros(40)).p_value == 1


def test_independence_is_rejected_as_rarely_as_it_should_be():
    generator = torch.Generator().manual_seed(0)
    draws = [independence(*torch.randn(2, 20, generator=generator), draws=39, seed=i).p_value for i in range(100)]
    assert sum(p <= 0.05 for p in draws) <= 11  # 5 expected; the chance of more than 11 is 0.4 %
    x = torch.randn(20, generator=generator)
    assert independence(x, x.abs()).p_value < 0.05


@pytest.fixture(scope="module")
def batch(town):
    pairs = alike(draw("town/ioi", 1000, seed=3, tokenizer=town.tokenizer), town.tokenizer)[0][:5]
    metric = pc.logit_diff([p.answer for p in pairs], [p.wrong for p in pairs])
    return [p.clean for p in pairs], [p.corrupt for p in pairs], metric


def test_the_towns_circuit_is_better_than_chance(town, batch):
    told = significance(town, found(town, *batch, ranking=eap), *batch, draws=19)
    assert told["sufficiency"].p_value == pytest.approx(0.05)
    assert "equivalence" in told.picture().rows[0]


def test_the_weakest_edges_are_neither_sufficient_nor_needed(gpt2):
    clean = torch.randint(3, 90, (5, 7), generator=torch.Generator().manual_seed(0))
    corrupt = clean.clone()
    corrupt[:, 2] = (clean[:, 2] + 5) % 80 + 3
    ranking = edges(gpt2, clean, corrupt, pc.logit_diff(7, 8), estimate=eap)
    told = significance(gpt2, ranking.only(ranking.strongest()[-12:]), clean, corrupt, pc.logit_diff(7, 8), draws=19)
    assert told["sufficiency"].p_value > 0.05
    assert not told["minimality"].passed() and len(told.idle) > 8


def test_too_few_prompts_are_refused(town, batch):
    clean, corrupt = batch[0][:2], batch[1][:2]
    with pytest.raises(WrongPrompt, match="5 prompts or more"):
        significance(town, Graph(()), clean, corrupt, pc.logit_diff(" Mary", " John"))
