"""Metrics against their formulas."""

import pytest
import torch

from patchclamp.core.errors import WrongToken
from patchclamp.core.metric import kl, logit, logit_diff, nll, prob, rank

LOGITS = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
LAST = LOGITS[:, -1]


def test_the_formulas():
    assert torch.equal(logit(3)(LOGITS), LAST[:, 3])
    assert torch.equal(logit_diff(3, 5)(LOGITS), LAST[:, 3] - LAST[:, 5])
    assert torch.allclose(prob(3)(LOGITS), LAST.softmax(-1)[:, 3])
    assert torch.allclose(nll(3)(LOGITS), -LAST.log_softmax(-1)[:, 3])
    order = LAST.argsort(-1, descending=True)
    assert rank(int(order[0, 4]))(LOGITS)[0] == 4


def test_kl_is_zero_only_on_itself():
    assert torch.allclose(kl(LAST)(LOGITS), torch.zeros(2), atol=1e-6)
    expected = torch.nn.functional.kl_div(LOGITS[:, 0].log_softmax(-1), LAST.softmax(-1), reduction="none").sum(-1)
    assert torch.allclose(kl(LAST)(LOGITS[:, :1]), expected, atol=1e-6)


def test_one_token_a_prompt():
    assert torch.equal(logit([3, 4])(LOGITS), torch.stack([LAST[0, 3], LAST[1, 4]]))
    tiled = LOGITS.repeat(3, 1, 1)  # a sweep asks about several cells at a time, prompts within cells
    assert torch.equal(logit([3, 4])(tiled), logit([3, 4])(LOGITS).repeat(3))


def test_words_become_ids_where_they_are_bound():
    bound = logit_diff(" Mary", [" John", " Tom"]).bind({" Mary": 1, " John": 2, " Tom": 3}.__getitem__)
    assert torch.equal(bound(LOGITS), LAST[:, 1] - torch.stack([LAST[0, 2], LAST[1, 3]]))


def test_a_masked_token_is_read_where_it_stands():
    bound = logit(3).bind(int, columns=(1, 2))
    assert torch.equal(bound(LOGITS), torch.stack([LOGITS[0, 1, 3], LOGITS[1, 2, 3]]))


@pytest.mark.parametrize(
    ("metric", "says"),
    [(logit(" Mary"), 'has the word " Mary" but no tokenizer'), (logit(9), "no token 9 in a vocabulary of 9"),
     (logit([1, 2, 3]), "3 tokens for 2 prompts")],
)  # fmt: skip
def test_a_wrong_token_is_said_so(metric, says):
    with pytest.raises(WrongToken, match=says):
        metric(LOGITS)
