"""The shelf: every paper opens, and says what it claims."""

import pytest

from patchclamp.papers.claims import UnknownPaper
from patchclamp.papers.shelf import PAPERS, paper


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_opens_and_its_claims_say_how(name):
    opened = paper(name)
    assert opened.name == name and len({c.name for c in opened.claims}) == len(opened.claims)
    assert all(c.how and c.source and c.control and c.statement.endswith(".") for c in opened.claims)


def test_a_name_that_is_none_is_met_with_the_nearest():
    with pytest.raises(
        UnknownPaper, match='there is no paper "circuit" here; there is circuits, framework. Did you mean "circuits"'
    ):
        paper("circuit")
