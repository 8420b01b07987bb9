"""Noun here, verb there: balanced, and each use is what it is called."""

from __future__ import annotations

from collections import Counter

import pytest

from patchclamp.specimens.town.homographs import HOMOGRAPHS, homographs
from patchclamp.specimens.town.world import town


def test_every_word_is_as_often_a_noun_as_a_verb():
    found = homographs(town(0), 5)
    assert Counter((u.word, u.kind) for u in found) == {(w, k): 5 for w in HOMOGRAPHS for k in ("noun", "verb")}
    assert all(u.text.endswith(u.word) and u.text.split()[-1] == u.word for u in found)
    assert Counter(u.pair for u in found) == {f"{w} {n}": 2 for w in HOMOGRAPHS for n in range(5)}
    assert len({u.document for u in found}) == len(found) and homographs(town(0), 5) == found


def test_a_noun_follows_an_article_or_preposition_and_a_verb_does_not():
    for use in homographs(town(0), 8):
        last = use.before.split()[-1]
        assert (last in ("a", "the", "The", "long", "At", "at", "After")) == (use.kind == "noun")


def test_what_is_too_rare_says_so(monkeypatch):
    monkeypatch.setattr("patchclamp.specimens.town.homographs.PATIENCE", 50)
    with pytest.raises(ValueError, match="50 documents hold"):
        homographs(town(0), 100)
