"""P(IK): heads on planted activations, and on the people's model against what it is known to have read."""

from __future__ import annotations

import pytest
import torch

from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.model.gather import gather
from patchclamp.probe.calibration import auroc
from patchclamp.probe.value_head import fitted, spectrum, value_head


@pytest.fixture
def planted():
    """Known-ness along one axis, and in the size of another, which no line can read."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(800, 10, generator=draw)
    straight = torch.rand(800, generator=draw) < (3 * rows[:, 0]).sigmoid()
    bent = torch.rand(800, generator=draw) < (4 * (rows[:, 1].abs() - 0.7)).sigmoid()
    return rows, straight, bent


def test_a_logistic_head_reads_a_line_and_a_hidden_layer_reads_a_size(planted):
    rows, straight, bent = planted
    for outcome, hidden, low, high in ((straight, 0, 0.8, 1.0), (bent, 0, 0.3, 0.6), (bent, 16, 0.75, 1.0)):
        head = fitted(rows[:600], outcome[:600].float(), hidden=hidden)
        assert low < auroc(head(rows[600:]), outcome[600:]).value < high


def test_a_spectrum_is_in_falling_order_and_knows_no_words():
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    found = spectrum(logits, 6)
    assert torch.equal(found, found.sort(dim=1, descending=True).values)
    assert torch.allclose(found, spectrum(logits[:, torch.randperm(50)], 6), atol=1e-6)
    assert torch.allclose(found[:, 0].exp(), logits.softmax(-1).max(-1).values)


def test_a_head_reads_the_site_it_was_fitted_at(town):
    prompts = [f"{name} Holt works as a" for name in ("Mary", "Anna", "Ivan", "Leo", "Paul", "Carl")] * 2
    known = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0, 0.2] * 2)
    for site, through in (("blocks.1.out[pos=-1]", None), ("logits", spectrum)):
        head = value_head(town, prompts, known, site, through)
        assert torch.allclose(head.of(town, prompts), head(gather(town, site, prompts)))
        assert head.site == site


def test_a_head_needs_something_to_tell_apart():
    with pytest.raises(WrongPrompt, match="some of which are answered right"):
        fitted(torch.randn(20, 4), torch.ones(20))
    with pytest.raises(ShapeMismatch, match="one vector each"):
        fitted(torch.randn(20, 3, 4), torch.rand(20))
