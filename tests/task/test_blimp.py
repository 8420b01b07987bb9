"""BLiMP: the good sentence is the one that a bare Hugging Face model finds more probable, and files are read line by line."""

import json

import pytest
import torch

import patchclamp as pc
import words
import zoo
from patchclamp.core.errors import NotSaved, WrongPrompt
from patchclamp.core.journal import keeping
from patchclamp.task.blimp import Contrast, blimp, load_blimp

PAIRS = [Contrast("the cat saw a dog .", "the cat saw a ran ."), Contrast("a big ball", "ball a big red")]
CARD = {"anaphor_gender_agreement": 0.76, "determiner_noun_agreement_1": 0.72, "regular_plural_subject_verb_agreement_1": 0.61,
        "wh_questions_subject_gap": 0.77}  # fmt: skip
"""Of the checkpoint's card: first hundred pairs."""


def test_a_real_model_has_the_figures_of_its_card(stories, shared):
    found = {name: load_blimp(shared / "data" / "blimp" / f"{name}.jsonl", 100)[name] for name in CARD}
    grid = blimp(stories, found)
    for name, share in CARD.items():
        assert float(grid.at(paradigm=name).values) == pytest.approx(share, abs=0.02)
    assert (grid.details["low"] < grid.values).all() and (grid.values < grid.details["high"]).all()
    assert grid.details["pairs"].tolist() == [100] * 4


def test_it_prefers_what_the_bare_model_prefers():
    model = pc.load(zoo.build("gpt2"), words.tokenizer())
    grid = blimp(model, {"one": PAIRS})
    ids = [[torch.tensor([model.tokenizer(s)["input_ids"]]) for s in (p.good, p.bad)] for p in PAIRS]

    def said(row):
        row = row if row[0, 0] == 1 else torch.cat([torch.tensor([[1]]), row], 1)
        with torch.no_grad():
            return -float(model.hf(row, labels=row).loss) * (row.shape[1] - 1)

    margins = [said(good) - said(bad) for good, bad in ids]
    assert float(grid.details["margin"]) == pytest.approx(sum(margins) / 2, abs=1e-4)
    assert float(grid.values) == sum(m > 0 for m in margins) / 2


def test_sentences_that_cannot_be_told_apart_are_ties_and_not_right(town):
    grid = blimp(town, {"unknown": [Contrast("Zyxw is here.", "Qvut is here.")]})
    assert grid.values.tolist() == [0.0] and grid.details["ties"].tolist() == [1.0]


def test_what_is_finished_is_not_read_again(tmp_path, monkeypatch):
    model = pc.load(zoo.build("gpt2"), words.tokenizer())
    with keeping(tmp_path / "work"):
        once = blimp(model, {"one": PAIRS})
    monkeypatch.setattr("patchclamp.task.blimp.log_probability", None)
    with keeping(tmp_path / "work"):
        again = blimp(model, {"one": PAIRS})
    assert torch.equal(once.values, again.values) and torch.equal(once.details["margin"], again.details["margin"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 is not readable JSON"),
        ("[1]", "line 2 is a list"),
        ('{"sentence_good": "a"}', 'line 2 has no text "sentence_bad"'),
        ('{"sentence_good": " ", "sentence_bad": "b"}', 'line 2 has no text "sentence_good"'),
    ],
)
def test_a_mistake_in_a_file_names_file_and_line(tmp_path, line, says):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"sentence_good": "a", "sentence_bad": "b"}) + "\n" + line + "\n")
    with pytest.raises(NotSaved, match="p.jsonl, " + says.replace("(", r"\(")):
        load_blimp(tmp_path)


def test_folders_without_files_and_models_without_words_are_refused(tmp_path, gpt2):
    with pytest.raises(NotSaved, match="holds no file that ends in .jsonl"):
        load_blimp(tmp_path)
    with pytest.raises(NotSaved, match="could not be read"):
        load_blimp(tmp_path / "nothing.jsonl")
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(NotSaved, match="is empty"):
        load_blimp(tmp_path)
    with pytest.raises(WrongPrompt, match="has no tokenizer"):
        blimp(gpt2, {"one": PAIRS})
