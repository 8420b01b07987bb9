"""Work that is stopped by hand keeps what is finished, says how to go on, and ends with the status that shells expect."""

import pytest

from patchclamp.app.work import resumable
from patchclamp.core.errors import WrongPrompt
from patchclamp.core.journal import remembered

CARD = {"command": "x", "seed": 0}


def work(folder, out, stop=None, error=KeyboardInterrupt):
    def half(n):
        if n == stop:
            raise error("stop")
        return n / 2

    with resumable(folder, out, CARD):
        return remembered(range(4), half, "halving")


def test_stopped_it_says_how_to_go_on(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        work(tmp_path / "kept", tmp_path / "report.html", stop=2)
    said = capsys.readouterr().err
    assert end.value.code == 130
    assert said == f"Stopped: 2 finished answers are kept; go on with --resume {tmp_path / 'kept'}.\n"
    assert work(tmp_path / "kept", tmp_path / "report.html") == [0, 0.5, 1, 1.5]
    assert "Going on from what is finished in" in capsys.readouterr().err


def test_without_a_folder_it_is_kept_beside_the_report_until_all_is_done(tmp_path, capsys):
    with pytest.raises(SystemExit):
        work(None, tmp_path / "report.html", stop=3)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("report.") and kept.suffix == ".part" and str(kept) in capsys.readouterr().err
    assert work(None, tmp_path / "report.html") == [0, 0.5, 1, 1.5]
    assert not list(tmp_path.iterdir())


def test_before_anything_is_finished_nothing_is_kept(tmp_path, capsys):
    with pytest.raises(SystemExit):
        work(None, tmp_path / "report.html", stop=0)
    assert capsys.readouterr().err == "Stopped: nothing was finished yet.\n" and not list(tmp_path.iterdir())


def test_a_users_mistake_leaves_nothing_behind(tmp_path):
    with pytest.raises(WrongPrompt):
        work(None, tmp_path / "report.html", stop=2, error=WrongPrompt)
    assert not list(tmp_path.iterdir())


def test_quick_work_writes_nothing(tmp_path):
    work(None, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
