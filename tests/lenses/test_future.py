"""The future lens: maps against a language whose future is known, and on the town against what the token alone would say."""

from itertools import islice

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import UnknownSite, Unserved, WrongPrompt
from patchclamp.lenses.future import FutureLens, Rows
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town as world

TEXTS = [[3, 4, 5, 3, 4], [3, 4, 5], [5, 3, 4, 5, 3, 4]]


@pytest.fixture(scope="module")
def said():
    """Documents of the town: to fit on, and others."""
    texts = list(islice(documents(world(0), seed="future"), 500))
    return texts[:440], texts[440:]


def test_pairs_never_leave_their_text(llama):
    rows = Rows.of(llama, TEXTS, ["blocks.0.out"], "blocks.1.out", 3)
    texts = torch.cat([torch.full((len(t),), i) for i, t in enumerate(TEXTS)])
    assert [len(rows.after(n)) for n in range(3)] == [14, 11, 8]
    for n in range(3):
        assert torch.equal(texts[rows.after(n)], texts[rows.after(n) + n])
    alone = llama.run([TEXTS[1]], ["blocks.0.out", "blocks.1.out"])
    assert torch.allclose(rows.streams[0, 5:8], alone["blocks.0.out"][0], atol=1e-5)
    assert torch.allclose(rows.final[5:8], alone["blocks.1.out"][0], atol=1e-5)


def test_the_bigram_is_a_count(llama):
    rows = Rows.of(llama, TEXTS, ["blocks.0.out"], "blocks.1.out", 2)
    answers, tokens = rows.answers.tolist(), rows.tokens.tolist()
    following = [answers[i + 1] for i in rows.after(1).tolist() if tokens[i] == 3]
    assert following.count(rows.bigram()[1][3]) == max(map(following.count, following))


def test_at_no_distance_the_last_block_is_the_output(llama):
    lens = FutureLens.fit(llama, TEXTS * 8, ahead=1, sites="blocks.1.out", steps=3)
    assert float(lens.accuracy(llama, TEXTS).values[0, 0]) == 1.0
    grid = pc.lens(llama, TEXTS[0], "blocks.1.out", through=lens.at(0))
    assert float(grid.details["KL"].max()) < 1e-3


def test_the_town_knows_more_than_its_last_token(town, said):
    """At a middle layer, for the next token and the one after it, beyond the bigram; a lens of shuffled texts stays below it."""
    known, fresh = said
    grid = FutureLens.fit(town, known, ahead=2, sites="blocks.1.out", steps=80).accuracy(town, fresh)
    assert grid.shape == {"ahead": 2, "reader": 2} and list(grid.words("reader")) == ["1", "bigram"]
    lens, bigram = grid.values.T
    assert float(lens[0]) > float(bigram[0]) + 0.05 and float(lens[1]) > float(bigram[1])


def test_what_it_expects_is_shown(town, said):
    lens = FutureLens.fit(town, said[0][:40], ahead=2, sites="blocks.2:.out", steps=0)
    grid = lens.read(town, "When Mary and John went to the store, John gave a drink to")
    assert grid.axes == ("ahead", "layer", "pos") and list(grid.words("ahead")) == ["+1", "+2"]
    given = grid.details["p(output)"]
    assert not given[0].isnan().any() and given[1, :, -1].isnan().all() and not given[1, :, :-1].isnan().any()
    assert "Future lens" in grid.html()


def test_it_is_saved_and_loaded(llama, tmp_path):
    lens = FutureLens.fit(llama, TEXTS, ahead=2, steps=1)
    again = FutureLens.load(lens.save(tmp_path / "lens"))
    assert torch.equal(again.accuracy(llama, TEXTS).values, lens.accuracy(llama, TEXTS).values)
    assert (again.paths, again.ahead, again.bigram) == (lens.paths, lens.ahead, lens.bigram)


def test_what_it_cannot_do_is_said(llama):
    lens = FutureLens.fit(llama, TEXTS, ahead=1, sites="blocks.0.out", steps=0)
    with pytest.raises(UnknownSite, match="no map for blocks.1.out at 0; it has blocks.0.out at 0 to 0"):
        pc.lens(llama, TEXTS[0], through=lens.at(0))
    with pytest.raises(WrongPrompt, match="one prompt at a time; got 2"):
        lens.read(llama, TEXTS[:2])
    with pytest.raises(WrongPrompt, match="there are none"):
        FutureLens.fit(llama, [])
    with zoo.quiet(), pytest.raises(Unserved, match="sees later tokens"):
        FutureLens.fit(pc.load(zoo.build("bert", "masked")), TEXTS)
