"""A journal keeps finished answers bit for bit, goes on from them, and never mixes the answers to two questions."""

import json

import pytest
import torch

from patchclamp.core.errors import NotSaved
from patchclamp.core.journal import digest, keeping, leaf, remembered


def halves(stop=None, calls=None):
    """Half of each of five numbers; stopped by hand at one of them."""

    def half(n):
        if n == stop:
            raise KeyboardInterrupt
        if calls is not None:
            calls.append(n)
        return n / 3

    return remembered(range(5), half, "halving", lambda: ("numbers",))


def test_what_is_stopped_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt), keeping(tmp_path / "work") as journal:
        halves(stop=3)
    assert journal.count == 3
    calls = []
    with keeping(tmp_path / "work"):
        found = halves(calls=calls)
    assert calls == [3, 4] and found == halves()


def test_answers_are_safetensors_and_the_question_is_a_readable_card(tmp_path):
    with keeping(tmp_path, {"model": "town", "seed": 0}):
        halves()
    assert json.loads((tmp_path / "card.json").read_text())["asked"] == {"model": "town", "seed": 0}
    assert [p.name for p in sorted(tmp_path.glob("*.safetensors"))] == ["0000-halving.safetensors"]
    assert not list(tmp_path.glob("*.part"))


def test_another_question_is_refused(tmp_path):
    with keeping(tmp_path, {"model": "town", "seed": 0}):
        halves()
    with pytest.raises(NotSaved, match="another question: its seed was 0, and is 1 now. Ask the same, or name another folder"):
        with keeping(tmp_path, {"model": "town", "seed": 1}):
            pass


def test_other_work_under_the_same_card_is_refused(tmp_path):
    with keeping(tmp_path):
        leaf("work", lambda: (torch.zeros(3),)).write(0, torch.zeros(2))
    with pytest.raises(NotSaved, match="the prompts or the places are not those"), keeping(tmp_path):
        leaf("work", lambda: (torch.ones(3),))


@pytest.mark.parametrize("name", ["notes.txt", "card.json"])
def test_a_folder_with_other_things_in_it_is_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(NotSaved, match="holds something else than finished answers; name a folder that is new or empty"):
        with keeping(tmp_path):
            pass
    with pytest.raises(NotSaved, match="something else"), keeping(tmp_path / name):
        pass


def test_answers_that_cannot_be_read_say_so(tmp_path):
    with keeping(tmp_path):
        halves()
    (tmp_path / "0000-halving.safetensors").write_bytes(b"torn")
    with pytest.raises(NotSaved, match="could not be read .*; delete it, and its answers are found again"), keeping(tmp_path):
        halves()


def test_without_a_journal_nothing_is_written_and_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = leaf("work", pytest.fail)
    page.write(0, torch.zeros(1))
    assert page.known.keys() == {0} and not list(tmp_path.iterdir())


def test_what_is_due_is_written_while_the_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("patchclamp.core.journal.PATIENCE", 0.0)
    with keeping(tmp_path) as journal:
        journal.due = 0.0
        leaf("work").write(7, torch.tensor(0.1))
        assert (tmp_path / "0000-work.safetensors").is_file()


def test_a_digest_counts_every_bit():
    a = torch.tensor([0.1, 0.2])
    assert digest(a) == digest(a.clone()) != digest(torch.nextafter(a, torch.ones(2)))
    assert digest(torch.tensor(1.0)) != digest(torch.tensor(1)) and digest("a", "b") != digest("ab")


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotSaved, match="could not be made .*; name another folder"), keeping(tmp_path / "file" / "work"):
        pytest.fail("the work began")
