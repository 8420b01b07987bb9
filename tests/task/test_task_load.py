"""Files that others wrote become pairs, with their roles; a file of another form says what it lacks."""

import json

import pytest

from patchclamp.core.errors import NotSaved
from patchclamp.core.pair import aligned, fitting, role_tokens
from patchclamp.task.load import load_examples, load_prompts, load_relation

ROW = {
    "clean": "Ann saw Bob; Bob bowed to",
    "corrupt": "Ida saw Tom; Sam bowed to",
    "answers": [" Ann"],
    "wrong_answers": [" Bob"],
}
PROMPTS = {
    "seq_labels": ["One", " saw", " two", "; ", ",_A", " bowed to"],
    "word_idxs": {"first": 0, "second": 2, "again": 4, "both": 5, "end": 5},
    "prompts": [ROW],
}
RELATION = {
    "name": "colour of fruit",
    "prompt_templates": ["The colour of {} is"],
    "prompt_templates_zs": ["Every {} has the colour"],
    "samples": [
        {"subject": s, "object": o}
        for s, o in (("lemon", "yellow"), ("plum", "blue"), ("plum", "red"), ("cherry", "red"), ("a\\u00e7ai", "black"))
    ],
}


def written(folder, data):
    path = folder / "file.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


# Prompts.


def test_places_of_a_sample_become_roles_of_every_prompt(tmp_path):
    data = PROMPTS | {"seq_labels": ["One", " saw", " two", ";", " B_again", " bowed to"]}
    (pair,) = load_prompts(written(tmp_path, data))
    assert (pair.clean, pair.corrupt, pair.answers, pair.wrongs, pair.kind) == (
        ROW["clean"],
        ROW["corrupt"],
        (" Ann",),
        (" Bob",),
        "file",
    )
    assert {r: pair.clean[slice(*at)] for r, at in pair.roles.items()} == {
        "first": "Ann",
        "second": "Bob",
        "again": "Bob",
        "both": "bowed to",
    }
    assert pair.corrupt[slice(*pair.corrupt_roles["again"])] == "Sam"


def test_a_label_may_be_a_sign_with_a_name_or_only_space(tmp_path):
    data = PROMPTS | {
        "seq_labels": ["One", " saw two", "\n", ";_A", " B_again", " bowed", " to"],
        "word_idxs": {"sign": 3, "gap": 2},
    }
    (pair,) = load_prompts(written(tmp_path, data))
    assert {r: pair.clean[slice(*at)] for r, at in pair.roles.items()} == {"sign": ";"}


def test_without_places_there_are_no_roles(tmp_path):
    (pair,) = load_prompts(written(tmp_path, {"prompts": [ROW]}))
    assert pair.roles == {} and pair.corrupt_roles == {}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("no json {", "file.json is not readable JSON"),
        ([1, 2], "file.json holds a list; expected an object"),
        ({"rows": []}, 'is no file of prompts: it has no list "prompts"'),
        (RELATION, "It looks like a relation: use load_relation"),
        ({"prompts": ["text"]}, 'prompt 0: "clean" is missing; it should be a str'),
        ({"prompts": [ROW, ROW | {"corrupt": 5}]}, 'prompt 1: "corrupt" is a int; it should be a str'),
        ({"prompts": [ROW | {"answers": " Ann"}]}, 'prompt 0: "answers" is a str; it should be a list'),
        ({"prompts": [ROW | {"wrong_answers": [1]}]}, 'prompt 0: "wrong_answers" should be a list of texts'),
        ({"prompts": [ROW | {"answers": []}]}, 'prompt 0: .* has no answer'),
        (PROMPTS | {"word_idxs": {"far": 9}}, 'prompt 0: "word_idxs" puts far at 9, but "seq_labels" has 6 tokens'),
        (PROMPTS | {"seq_labels": ["One", " saw"]}, 'prompt 0: its 7 words do not match the 2 words of "seq_labels"'),
    ],
)  # fmt: skip
def test_what_is_no_file_of_prompts_says_why(tmp_path, data, says):
    with pytest.raises(NotSaved, match=says):
        load_prompts(written(tmp_path, data))


def test_a_file_that_is_not_there_is_named(tmp_path):
    for load in (load_prompts, load_relation):
        with pytest.raises(NotSaved, match=r"nothing.json could not be read \(No such file"):
            load(tmp_path / "nothing.json")


# Relations.


def test_every_subject_is_asked_about_once_and_another_in_its_place(tmp_path):
    pairs = load_relation(written(tmp_path, RELATION))
    assert [pair.clean[slice(*pair.roles["subject"])] for pair in pairs] == ["lemon", "plum", "cherry", "açai"]
    true = {"lemon": {" yellow"}, "plum": {" blue", " red"}, "cherry": {" red"}, "açai": {" black"}}
    for pair in pairs:
        subject, other = pair.clean[slice(*pair.roles["subject"])], pair.corrupt[slice(*pair.corrupt_roles["subject"])]
        assert pair.clean == f"Every {subject} has the colour" and pair.corrupt == f"Every {other} has the colour"
        assert set(pair.answers) == true[subject] and not true[subject] & true[other]
        assert set(pair.wrongs) == true[other] and pair.kind == "colour of fruit"


def test_the_seed_says_who_stands_in(tmp_path):
    path = written(tmp_path, RELATION)
    assert load_relation(path, seed=1) == load_relation(path, seed=1)
    assert len({tuple(pair.corrupt for pair in load_relation(path, seed)) for seed in range(8)}) > 1


def test_shots_come_before_both_prompts(tmp_path):
    for pair in load_relation(written(tmp_path, RELATION), shots=2):
        *shown, asked = pair.clean.split("\n")
        assert len(shown) == 2 and asked.startswith("The colour of ")
        subject, other = pair.clean[slice(*pair.roles["subject"])], pair.corrupt[slice(*pair.corrupt_roles["subject"])]
        assert asked == f"The colour of {subject} is" and pair.corrupt.split("\n")[:2] == shown
        assert not any(f"of {one} is" in line for one in (subject, other) for line in shown)


@pytest.mark.parametrize(
    ("change", "shots", "says"),
    [
        ({"samples": None}, 0, 'is no relation: it has no list "samples"'),
        ({"samples": None, "prompts": []}, 0, "It looks like a list of prompts: use load_prompts"),
        ({"name": None}, 0, '"name" is missing'),
        ({"samples": [{"subject": "plum"}]}, 0, 'sample 0: "object" is missing'),
        ({"prompt_templates_zs": ["no slot"]}, 0, "the template 'no slot' should be a text with one"),
        ({"prompt_templates_zs": [], "prompt_templates": []}, 0, "has no template"),
        ({"samples": [{"subject": s, "object": "x"} for s in "ab"]}, 0, 'all subjects share the objects of "a"'),
        ({}, 3, "has 2 subjects beside the two of a pair; 3 shots are too many"),
    ],
)
def test_what_is_no_relation_says_why(tmp_path, change, shots, says):
    with pytest.raises(NotSaved, match=says):
        load_relation(written(tmp_path, RELATION | change), shots=shots)


# The files themselves.


def test_the_published_prompts_are_read(shared, bpe):
    folder = shared / "data" / "prompts"
    ioi, greater, docstring, cities = (
        load_prompts(folder / f"{name}_prompts.json")
        for name in ("ioi_vanilla_template", "greater_than", "docstring", "capital_cities_pythia-70m-deduped")
    )
    assert (len(ioi), len(greater), len(docstring), len(cities)) == (1000, 200, 1000, 16)
    for pair in ioi:
        says = {role: pair.clean[slice(*at)] for role, at in pair.roles.items()}
        assert f" {says['IO']}" == pair.answer and f" {says['S1']}" == f" {says['S2']}" == pair.wrong
        assert (says["starts"], says["punct"], says["IO+1"]) == ("When", ",", "and")
    for pair in docstring:
        says = {role: pair.clean[slice(*at)] for role, at in pair.roles.items()}
        assert says["A_def"] == says["A_doc"] and says["B_def"] == says["B_doc"] and f" {says['C_def']}" == pair.answer
        assert says["param_2"] == "param" and says[",_B"] == ","
    at = aligned(ioi[:50], bpe)
    assert set(at["IO"]) == {1} and set(at["S2"]) == {9} and set(at["end"]) == {13}, "where the file itself says"
    with pytest.warns(UserWarning, match=r"left out: \d+ of 200 pairs do not fit .*an answer is not one token"):
        assert len(fitting(greater, bpe)) > 100


def test_every_published_relation_is_read(shared):
    files = sorted((shared / "data" / "relations").glob("*/*.json"))
    assert len(files) == 47
    for path in files:
        data = json.loads(path.read_text(encoding="utf-8"))
        pairs = load_relation(path)
        assert len(pairs) == len({row["subject"] for row in data["samples"]})
        for pair in pairs:
            assert "\\u" not in pair.clean and all(
                answer == f" {answer.strip()}" or answer != answer.strip() for answer in pair.answers
            )
        assert load_relation(path, shots=3)[0].clean.count("\n") >= 3


def test_with_a_tokenizer_the_other_subject_is_one_that_fits(shared, bpe):
    path = shared / "data" / "relations" / "factual" / "country_capital_city.json"
    with pytest.warns(UserWarning, match=r"of 24 pairs do not fit this tokenizer \(\d+ x an answer is not one token"):
        kept = load_relation(path, tokenizer=bpe)
    assert aligned(kept, bpe)["subject"] == [at["subject"] for at in (role_tokens(pair, bpe) for pair in kept)]
    found = {pair.clean[slice(*pair.roles["subject"])]: pair.answer for pair in kept}
    assert len(found) > 12 and {" Madrid", " Paris", " Berlin", " Ottawa"} <= set(found.values())
    # Only one-word capitals are asked for, and only of countries that have as long a name as another one.
    with pytest.warns(UserWarning, match="pairs do not fit"):
        assert len(fitting(load_relation(path), bpe)) < len(kept)


# ---- examples, line by line ----------------------------------------------------------------------------------------------


def test_examples_are_questions_with_answers(tmp_path):
    lines = [{"prompt": "Mary works as a", "answer": " doctor"}, {"prompt": [1, 2], "answers": [7, 8]}]
    (tmp_path / "wrong.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    first, second = load_examples(tmp_path / "wrong.jsonl")
    assert first.clean == "Mary works as a" and first.answers == (" doctor",) and first.corrupt is None
    assert second.clean == (1, 2) and second.answers == (7, 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; give one example a line"),
        ("{", "line 1 is not readable JSON"),
        ('{"prompt": "a", "answer": " b"}\n[]', 'line 2: "prompt" is missing; it should be a str or list'),
        ('{"prompt": "a"}', 'line 1: "answers" is missing; it should be a list'),
        ('{"prompt": "a", "answer": 1.5}', '"answer" is a float; it should be a str or int'),
        ('{"prompt": "a", "answers": []}', "has no answer; a pair needs one or more"),
    ],
)
def test_examples_that_are_none(tmp_path, text, said):
    (tmp_path / "wrong.jsonl").write_text(text)
    with pytest.raises(NotSaved, match=said):
        load_examples(tmp_path / "wrong.jsonl")
