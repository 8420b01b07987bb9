"""Prompts and answers as the shell is given them: two texts, a task, or a file; and one clear refusal of anything else."""

import json
from pathlib import Path

import pytest

from patchclamp.app.asked import Source, WrongOption, one_of, others, read
from patchclamp.core.errors import NotSaved, PatchclampError, WrongPrompt, WrongToken

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = CLEAN.replace("John gave", "Mary gave")


def test_what_is_not_given_is_what_the_model_says(town):
    asked = read(town, Source(CLEAN, CORRUPT))
    assert asked.words == (" Mary", " John") and asked.told == "one pair of prompts"
    run = town.run(CLEAN)
    logits = run.logits[0, -1]
    assert float(asked.metric()(run.logits)) == pytest.approx(float(logits[town.token(" Mary")] - logits[town.token(" John")]))


def test_answers_may_be_given(town):
    asked = read(town, Source(CLEAN, CORRUPT, " Emma", str(town.token(" Nora"))))
    assert asked.words == (" Emma", " Nora")


def test_a_prompt_alone_has_no_wrong_answer(town):
    asked = read(town, Source(CLEAN).checked(corrupt=False))
    assert asked.wrongs == [] and asked.metric().name == "logit"
    with pytest.raises(WrongToken, match="give --wrong, or take --metric logit"):
        asked.metric("logit_diff")


@pytest.mark.parametrize("name", ["logit_diff", "prob", "nll", "kl", "logit", "rank"])
def test_metrics_by_name(town, name):
    asked = read(town, Source(CLEAN, CORRUPT))
    clean, corrupt = (asked.metric(name)(town.run(p).logits) for p in (CLEAN, CORRUPT))
    better = clean < corrupt if name in ("nll", "kl", "rank") else clean > corrupt
    assert bool(better)


def test_a_task_and_other_pairs_of_it(town):
    source = Source(task="town/ioi", count=6, seed=1)
    asked, fresh = read(town, source), others(town, source)
    assert len(asked.clean) == len(fresh.clean) == 6 and not set(asked.clean) & set(fresh.clean)
    assert asked.told == "6 pairs of town/ioi, seed 1"
    assert others(town, Source(CLEAN, CORRUPT)) is None


def test_a_file_of_pairs_and_those_left_out(town, tmp_path):
    rows = [{"clean": CLEAN.replace("store", place), "corrupt": CORRUPT.replace("store", place), "answers": [" Mary"],
             "wrong_answers": [" John"]} for place in ("store", "market", "zebra")]  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps({"prompts": rows}))
    asked = read(town, Source(pairs=tmp_path / "pairs.json"))
    assert len(asked.clean) == 2 and "a word is not in the vocabulary" in asked.left_out
    assert len(read(town, Source(pairs=tmp_path / "pairs.json", count=1)).clean) == 1


def test_a_file_of_a_relation(town, tmp_path):
    relation = {"name": "work", "prompt_templates": ["At work, {} is a"],
                "samples": [{"subject": "Mary Holt", "object": "doctor"}, {"subject": "John Nash", "object": "baker"}]}  # fmt: skip
    (tmp_path / "work.json").write_text(json.dumps(relation))
    asked = read(town, Source(pairs=tmp_path / "work.json"))
    assert asked.told == "2 pairs of work.json" and asked.words == (" doctor", " baker")


def test_pairs_without_a_corrupt_prompt_are_refused(town):
    with pytest.raises(WrongPrompt, match="3 of them have no corrupt prompt to compare with; use another task"):
        read(town, Source(task="town/topic", count=3))


def test_a_model_without_a_tokenizer_is_asked_by_ids(gpt2):
    asked = read(gpt2, Source("20 21 22", "20 30 22", "7", "8"))
    assert asked.clean == [[20, 21, 22]] and asked.answers == [7] and asked.wrongs == [8]
    with pytest.raises(WrongPrompt, match="its prompt is token ids"):
        read(gpt2, Source("the boy", "the girl"))
    with pytest.raises(WrongToken, match="there is no token 990"):
        read(gpt2, Source("20 21", "20 22", "990"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source(), "give prompts as --clean and --corrupt, as --task, or as --pairs; this is none of them"),
        (Source("a", "b", task="ioi"), "this is both --clean and --task"),
        (Source("a"), "--clean needs --corrupt beside it"),
        (Source("a", "b", count=3), "--clean and --corrupt are one pair"),
        (Source(task="ioi", wrong="x"), "--wrong goes with --clean"),
        (Source(task="ioi", count=0), "one or more; got 0"),
        (Source(pairs=Path("nowhere.json")), "there is no file nowhere.json"),
    ],
)
def test_mistakes_are_told_before_a_model_is_opened(source, said):
    with pytest.raises(PatchclampError, match=said):
        source.checked()


def test_right_and_wrong_differ(town):
    with pytest.raises(WrongToken, match='both " Mary"; give another'):
        read(town, Source(CLEAN, CORRUPT, " Mary", " Mary"))


def test_a_value_that_an_option_does_not_have():
    with pytest.raises(WrongOption, match='--by is one of zero, mean; not "men". Did you mean "mean"'):
        one_of("--by", "men", ("zero", "mean"))


def test_a_file_that_is_neither(town, tmp_path):
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(NotSaved, match='expected an object with "prompts" or "samples"'):
        read(town, Source(pairs=tmp_path / "other.json"))
