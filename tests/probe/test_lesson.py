"""Lessons in context: how prompts are written, what is shown in them, and what the published files say."""

import json
import random

import pytest
import torch

from patchclamp.core.errors import NotSaved, WrongPrompt
from patchclamp.probe.lesson import QUESTIONS, Function, Wording, bare, first_tokens, read, right, shown

PLURAL = Function("plural", tuple((cue, f"{cue}s") for cue in ("cat", "dog", "hen", "cow", "pig", "owl")))
YOUNG = Function(
    "young", (("cat", "kitten"), ("dog", "puppy"), ("hen", "chick"), ("cow", "calf"), ("pig", "piglet"), ("owl", "owlet"))
)


def parts(prompt):
    *pairs, cue = prompt.split(", ")
    return [tuple(pair.split(": ")) for pair in pairs], cue.removesuffix(":")


def test_prompts_show_pairs_of_the_function_and_ask_for_one_that_is_not_among_them():
    lesson = shown(PLURAL, 3, 20)
    for prompt, answer in zip(lesson.prompts, lesson.answers):
        pairs, cue = parts(prompt)
        assert len(set(pairs)) == 3 and set(pairs) <= set(PLURAL.pairs) and cue not in [one for one, _ in pairs]
        assert answer == f" {cue}s"
    assert shown(PLURAL, 3, 20) == lesson and shown(PLURAL, 3, 20, seed=1) != lesson


def test_what_is_asked_can_be_of_the_other_half():
    one, other = PLURAL.split(0.5)
    assert sorted(one.pairs + other.pairs) == sorted(PLURAL.pairs) and len(one.pairs) == 3
    assert [cue for cue, _ in one.pairs] == [cue for cue, _ in YOUNG.split(0.5)[0].pairs]
    lesson = shown(one, 3, 10, asked=other)
    assert all(parts(prompt)[1] in dict(other.pairs) for prompt in lesson.prompts)


def test_corrupted_lessons_keep_the_cues_and_lose_the_function():
    mixed = [answer for prompt in shown(PLURAL, 3, 40, mixed=(PLURAL, YOUNG)).prompts for _, answer in parts(prompt)[0]]
    assert 0.3 < sum(answer.endswith("s") for answer in mixed) / len(mixed) < 0.7
    for prompt in shown(PLURAL, 4, 10, shuffled=True).prompts:
        pairs, _ = parts(prompt)
        assert sorted(f"{cue}s" for cue, _ in pairs) == sorted(answer for _, answer in pairs)


def test_the_wording_of_the_paper():
    assert QUESTIONS([("big", "small")], "hot") == "Q: big\nA: small\n\nQ: hot\nA:"
    assert bare(PLURAL, Wording(" -> ")).prompts[0] == "cat ->"


def test_shuffling_leaves_the_town_as_sure_as_before_and_mixing_does_not(town):
    """Whatever the order of its answers, a list of plurals is a list of plurals."""
    accuracy = {name: float(right(town, shown(PLURAL, 4, 40, **how)).mean())
                for name, how in (("plain", {}), ("shuffled", {"shuffled": True}), ("mixed", {"mixed": (PLURAL, YOUNG)}))}  # fmt: skip
    assert accuracy["plain"] == accuracy["shuffled"] == 1.0 and accuracy["mixed"] < 0.8


def test_right_is_the_likeliest_of_all_tokens_by_hand(town):
    lesson = bare(PLURAL)
    wanted = []
    for prompt, answer in zip(lesson.prompts, lesson.answers):
        logits = town.hf(torch.tensor([town.tokenizer(prompt)["input_ids"]])).logits[0, -1]
        wanted.append(float(logits.argmax() == town.token(answer)))
    assert right(town, lesson).tolist() == wanted
    assert first_tokens(town, [" Mary Holt"]) == [town.token(" Mary")]


def test_functions_are_read_from_json(tmp_path):
    (tmp_path / "opposite.json").write_text(json.dumps([{"input": "big", "output": "small"}]))
    assert read(tmp_path) == [Function("opposite", (("big", "small"),))] == read(tmp_path / "opposite.json")
    (tmp_path / "other.json").write_text(json.dumps([{"cue": "big"}]))
    with pytest.raises(NotSaved, match="other.json is no list of"):
        read(tmp_path)
    with pytest.raises(NotSaved, match="holds no JSON"):
        read(tmp_path / "missing")


def test_the_published_tasks_are_read(shared):
    found = {function.name: function for function in read(shared / "data" / "icl_tasks")}
    assert {"antonym", "country-capital", "english-french", "present-past", "singular-plural"} <= set(found)
    assert ("wallet", "wallets") in found["singular-plural"].pairs and all(len(f.pairs) > 20 for f in found.values())
    lesson = shown(found["country-capital"], 10, 5, wording=QUESTIONS)
    assert all(prompt.count("\nA:") == 11 for prompt in lesson.prompts)


def test_too_few_pairs_are_refused():
    with pytest.raises(WrongPrompt, match="6 pairs, too few to show 6 of them"):
        shown(PLURAL, 6, 1)
    assert len(shown(PLURAL, 5, 1).prompts) == 1


def test_splitting_is_by_cue_and_seed():
    seeds = {PLURAL.split(0.5, seed)[0].pairs for seed in range(5)}
    assert len(seeds) > 1 and random.Random(0).random() != random.Random(1).random()
