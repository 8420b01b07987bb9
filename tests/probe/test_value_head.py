"""P(IK): heads on planted activations, and on the people's model against what it is known to have read."""

from __future__ import annotations

import pytest
import torch

import patchclamp as pc
from patchclamp.core.errors import ShapeMismatch, WrongPrompt
from patchclamp.model.gather import gather
from patchclamp.probe.calibration import auroc, reliability, temperature, tempered
from patchclamp.probe.choices import knows, samples, score
from patchclamp.probe.value_head import fitted, spectrum, value_head
from patchclamp.specimens.exposures import tasks
from patchclamp.specimens.exposures.people import people
from patchclamp.specimens.exposures.recipe import overconfident


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


def test_whether_a_fact_is_known_is_foretold_for_people_and_a_relation_never_met():
    """The promise: an AUROC of 0.85 on the model that read each fact so often; ECE falls when an overconfident copy is tempered."""
    model = pc.load("specimen:exposures/step-read")
    facts = people(0).graded
    half = len(facts) // 2
    prompts = [fact.prompt() for fact in facts]
    answers = torch.tensor([model.token(f" {fact.value}") for fact in facts])
    drawn = samples(model, prompts, 10)
    known, right = knows(drawn, answers), drawn[:, 0] == answers
    new = torch.tensor([fact.relation.name == "food" for fact in facts])
    fit = (torch.arange(len(facts)) < half) & ~new
    rows = gather(model, "logits", prompts)
    head = fitted(rows[fit], known[fit], "logits", spectrum)
    for there in (~fit & ~new, (torch.arange(len(facts)) >= half) & new):
        assert auroc(head(rows[there]), right[there]).value > 0.85
    test = (torch.arange(len(facts)) >= half) & ~new
    assert reliability(head(rows[test]), right[test]).error < 0.08
    unread = [fact for fact in facts[half:] if fact.exposures <= 2][:150]
    alone, told = (
        head.of(model, texts).mean() for texts in ([f.prompt() for f in unread], [f"{f.said(1)} {f.prompt()}" for f in unread])
    )
    assert told > alone + 0.02, "a source in the prompt makes it surer"


def test_temperature_mends_a_copy_that_was_made_overconfident():
    model = pc.load("specimen:exposures/step-read")
    facts = people(0).graded
    shown, right = tasks.four(facts)
    so = torch.nn.functional.one_hot(torch.tensor(right), 4).bool()
    half = len(facts) // 2
    errors = []
    for one in (model, pc.load(overconfident(model.hf, model.tokenizer, steps=40), model.tokenizer)):
        p = score(one, [fact.prompt() for fact in facts], shown).softmax(-1)
        by = temperature(p[:half].flatten(), so[:half].flatten())
        later = p[half:].flatten(), so[half:].flatten()
        errors.append((reliability(*later).error, reliability(tempered(later[0], by), later[1]).error))
    (plain, mended), (bold, cured) = errors
    assert mended < plain < 0.08
    assert bold > plain + 0.01
    assert cured < 0.8 * bold
