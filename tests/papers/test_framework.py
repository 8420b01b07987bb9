"""The framework's claims hold on one seed each; those that teach a model are tested where the model is."""

from patchclamp.papers.framework import PAPER


def test_claims_that_take_no_teaching_hold():
    taught = {"skip trigrams have bugs", "no layer is a table of bigrams"}
    names = [c.name for c in PAPER.claims if c.name not in taught]
    verdicts = PAPER.reproduce(quick=True, only=names).verdicts
    assert {verdicts[name] for name in names} == {"holds"}, verdicts
