"""The town: its documents are fresh but fixed, its tests are held out, and its model can do what the card says."""

import json
import re
import subprocess
import sys
from itertools import combinations, islice

import pytest
import torch
from by_hand import layer_by_position, pairs_like_the_classic
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import patchclamp as pc
from patchclamp.core.checkpoint import CHECKPOINT
from patchclamp.core.errors import NotAModel
from patchclamp.specimens.town import (
    agreement,
    facts,
    gifts,
    measure,
    newcomers,
    recipe,
    tasks,
    years,
)
from patchclamp.specimens.town.corpus import SHARES, documents, vocabulary
from patchclamp.specimens.town.item import fill, reserved, words
from patchclamp.specimens.town.lexicon import NAMES, NOUNS, SURNAMES, TOPICS, TWO_DIGITS, gender
from patchclamp.specimens.town.tokenizer import tokenizer
from patchclamp.specimens.town.world import town

WORLD = town(0)


@pytest.fixture(scope="module")
def corpus():
    return list(islice(documents(WORLD, "test"), 5000))


@pytest.fixture(scope="module")
def told(corpus):
    """All but the parrots, who say anything."""
    openings = [saying.partition("{words}")[0] for saying in newcomers.SAYINGS]
    return [text for text in corpus if not any(opening in text for opening in openings)]


@pytest.fixture(scope="module")
def shipped():
    return measure.load()


# The world.


def test_a_world_is_fixed_by_its_seed():
    assert town(3) == town(3)
    assert town(3).residents != town(4).residents


def test_neither_name_alone_tells_who_is_meant():
    assert len({one.name for one in WORLD.residents}) == len(WORLD.residents) == 160
    for part in ("first", "surname"):
        shared = [getattr(one, part) for one in WORLD.residents]
        assert min(shared.count(name) for name in shared) >= 3


def test_values_of_a_relation_are_equally_common():
    for relation in facts.RELATIONS:
        counts = [sum(relation.of(one) == value for one in WORLD.residents) for value in relation.values]
        assert max(counts) - min(counts) <= 1


def test_rare_residents_are_spoken_of_less():
    names = [one.name for one in WORLD.residents[:80]]
    stories = list(islice(documents(WORLD.rarer(names, 0.1), shares={"facts": 1}), 2000))
    rare = sum(name in story for story in stories for name in names)
    common = sum(one.name in story for story in stories for one in WORLD.residents[80:])
    assert 0.05 < rare / common < 0.2


def test_an_unknown_resident_is_refused_by_name():
    with pytest.raises(KeyError, match="nobody called 'Mary Nobody'"):
        WORLD.resident("Mary Nobody")


# The corpus.


def test_the_generator_needs_no_torch():
    probe = "import sys, patchclamp.specimens.town.tasks, patchclamp.specimens.town.corpus; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "tokenizers", "numpy"} & set(loaded)


def test_documents_are_fixed_by_world_and_seed():
    first, again, other = (list(islice(documents(WORLD, seed), 100)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("family", SHARES)
def test_every_family_writes_sentences(family):
    for text in islice(documents(WORLD, shares={family: 1}), 200):
        assert re.fullmatch(r"\w.*[.!?]", text)
        assert "{" not in text
        assert "  " not in text


def test_the_article_never_gives_the_noun_away(told):
    assert not [text for text in told if re.search(r"\b[Aa] [aeiou]", text)]


def test_every_word_of_the_vocabulary_is_used_and_no_other():
    used = {word for text in islice(documents(WORLD, "words"), 20_000) for word in words(text)}
    assert {word for word in used if not word.isdigit()} == set(vocabulary())


def test_the_classic_sentence_is_in_the_corpus():
    clean = gifts.classic().clean
    assert clean == "When Mary and John went to the store, John gave a drink to"
    anyone = re.sub("Mary|John", r"\\w+", clean)
    stories = list(islice(documents(WORLD, shares={"gifts": 1}), 1000))
    assert 5 < sum(bool(re.search(anyone, story)) for story in stories) < 60
    assert not reserved("Mary", "John")


# What is held out.


def test_reserved_first_names_never_meet(told):
    strangers = {frozenset(pair) for pair in combinations(NAMES, 2) if reserved(*pair)}
    assert len(strangers) > 100
    for text in told:
        present = set(NAMES).intersection(words(text))
        assert not strangers.intersection(frozenset(pair) for pair in combinations(present, 2)), text


def test_reserved_full_names_never_occur(told):
    never = {f"{first} {surname}" for first in NAMES for surname in SURNAMES if reserved(first, surname)}
    heard = {name for text in told for name in re.findall(r"[A-Z]\w+ [A-Z]\w+", text)}
    assert len(heard) > 500
    assert not heard & never


def test_held_out_templates_never_occur(corpus):
    templates = [*gifts.HELD_OUT, *years.HELD_OUT, *(text for one in facts.RELATIONS for text in one.held_out)]
    for template in templates:
        body = template.rstrip(".")
        pattern = re.compile(re.sub(r"\\\{\w+\\\}", r"\\w+( \\w+)?", re.escape(body)).replace(r"\{", "{"))
        assert pattern.search(re.sub(r"\{\w+\}", "Mary", body))
        assert not [text for text in corpus if pattern.search(text)], template


def test_words_of_held_out_templates_occur_elsewhere(corpus):
    known = {word for text in corpus for word in words(text)}
    for template in (*gifts.HELD_OUT, *years.HELD_OUT, *(text for one in facts.RELATIONS for text in one.held_out)):
        assert set(words(re.sub(r"\{\w+\}", "", template))) <= known


def test_reserved_subjects_and_verbs_never_agree():
    lemma = {form: singular for singular, plural in NOUNS.items() for form in (singular, plural)}
    verbs = {form: verb for verb, (plural, _) in agreement.VERBS.items() for form in (verb, plural)}
    for text in islice(documents(WORLD, shares={"agreement": 1}), 3000):
        for sentence in text.split(". "):
            found = words(sentence)
            subject = next((word for word in found if word in lemma), None)
            verb = next((word for word in found if word in verbs), None)
            if subject and verb:
                assert not reserved(lemma[subject], verbs[verb])


def test_reserved_years_never_begin_anything():
    for text in islice(documents(WORLD, shares={"years": 1}), 3000):
        for sentence in text.split(". "):
            for century, start in re.findall(r"(\d\d)(\d\d)", sentence)[:1]:
                assert not reserved(century, start)


# Items.


@pytest.mark.parametrize("task", tasks.TASKS)
def test_items_are_well_formed(task, shipped):
    _, cut = shipped
    items = tasks.draw(task, WORLD, 200)
    assert len(items) == len({item.clean for item in items}) == 200
    for item in items:
        ids = cut(item.clean)["input_ids"]
        assert all(len(one) == 1 for one in cut([*item.answers, *item.wrongs], add_special_tokens=False)["input_ids"])
        assert not set(item.answers) & set(item.wrongs)
        assert item.positions["end"] == len(ids) - 1
        assert item.corrupt is None or len(cut(item.corrupt)["input_ids"]) == len(ids)
        assert item.corrupt != item.clean


def test_items_are_fixed_by_their_seed():
    assert tasks.draw("ioi", WORLD, 20, seed=1) == tasks.draw("ioi", WORLD, 20, seed=1)
    assert tasks.draw("ioi", WORLD, 20, seed=1) != tasks.draw("ioi", WORLD, 20, seed=2)


def test_positions_are_where_the_roles_stand():
    for item in tasks.draw("ioi", WORLD, 100):
        pieces = ["<bos>", *words(item.clean)]
        assert " " + pieces[item.positions["IO"]] == item.answer
        assert " " + pieces[item.positions["S1"]] == " " + pieces[item.positions["S2"]] == item.wrong
    for item in tasks.draw("repeated_name", WORLD, 100):
        pieces = ["<bos>", *words(item.clean)]
        assert pieces[item.positions["first"]] == pieces[item.positions["end"]]
        assert " " + pieces[item.positions["surname"]] == item.answer


def test_fill_says_where_each_slot_ends():
    assert fill("The {a} of {b}", a="key", b="Mary Holt") == ("The key of Mary Holt", {"a": 2, "b": 5, "end": 5})


def test_attractors_have_the_other_number():
    plurals = set(NOUNS.values())
    for count in range(4):
        for item in tasks.draw("agreement", WORLD, 50, attractors=count):
            subject, *others = [word for word in words(item.clean) if word in plurals or word in NOUNS]
            assert len(others) == count
            assert all((other in plurals) != (subject in plurals) for other in others)


def test_no_word_belongs_to_two_topics():
    listed = [word for topic in TOPICS.values() for word in topic.words]
    assert len(listed) == len(set(listed))


# The tokenizer.


def test_text_comes_back_exactly(corpus, shipped):
    _, cut = shipped
    for text in corpus[:500]:
        ids = cut(text)["input_ids"]
        assert ids[0] == cut.bos_token_id
        assert cut.unk_token_id not in ids
        assert len(ids) == 1 + len(words(text))
        assert cut.decode(ids, skip_special_tokens=True) == text


def test_a_word_is_one_token_with_or_without_its_space(shipped):
    _, cut = shipped
    assert cut(" Mary", add_special_tokens=False)["input_ids"] == cut("Mary", add_special_tokens=False)["input_ids"]
    assert cut.tokenize("Mary met Mary in 1732, Mary.") == ["▁Mary", "▁met", "▁Mary", "▁in", "▁17", "32", ",", "▁Mary", "."]
    assert [cut.convert_tokens_to_ids(two) for two in TWO_DIGITS] == list(range(4, 104))


def test_prompts_are_padded_on_the_left(shipped):
    _, cut = shipped
    short, long = cut(["Mary", "Mary and John"], padding=True)["input_ids"]
    assert short == [cut.pad_token_id] * 2 + [cut.bos_token_id, long[1]]


def test_the_shipped_tokenizer_is_the_one_that_the_code_makes(shipped):
    _, cut = shipped
    assert cut.get_vocab() == tokenizer(128).get_vocab()


# The model.


MARKED = [pytest.param(row, id=row.name) for row in measure.ROWS if row.mark]


@pytest.mark.parametrize("row", MARKED)
def test_the_shipped_model_reaches_its_mark(row, shipped):
    scores = measure.score(*shipped, row.items(WORLD, 300))
    assert getattr(scores, row.figure) >= row.mark


def test_the_classic_pair(shipped):
    item = gifts.classic()
    model, cut = shipped
    clean, corrupt = measure.next_word(model, cut, [item.clean, item.corrupt])
    assert cut.decode(clean.argmax()) == "Mary"
    assert cut.decode(corrupt.argmax()) == "John"


def test_patching_tells_the_usual_story():
    """The second name in early blocks, the last token in late ones; the sweep and hooks by hand agree on every cell."""
    model = pc.load("specimen:town", dtype=torch.float32)
    items = pairs_like_the_classic(10)
    answers = pc.logit_diff([item.answer for item in items], [item.wrong for item in items])
    clean, corrupt = [item.clean for item in items], [item.corrupt for item in items]
    restored = layer_by_position(model.hf, model.tokenizer, items)
    grid = pc.effects(model, clean, corrupt, "blocks.*.out[pos=*]", answers).fraction()
    assert torch.allclose(grid.values, restored[1:], atol=1e-4)
    second, end = items[0].positions["S2"], items[0].positions["end"]
    assert restored[0, second] == pytest.approx(1, abs=1e-3)
    assert restored[-1, end] == pytest.approx(1, abs=1e-3)
    assert restored[:, :second].abs().max() < 1e-3


def test_earlier_checkpoints_know_less(shipped):
    _, cut = shipped
    steps = sorted(measure.SHIPPED.glob("step-*"))
    rows = {row.name: row.items(WORLD, 100) for row in measure.ROWS if row.task in ("ioi", "parrot")}
    before, within = (
        [measure.score(AutoModelForCausalLM.from_pretrained(step), cut, items).top for items in rows.values()] for step in steps
    )
    assert max(before) < 0.2
    assert all(early < late < 0.99 for early, late in zip(before, within))


def test_the_folder_is_small_and_its_card_complete():
    assert sum(path.stat().st_size for path in measure.SHIPPED.rglob("*") if path.is_file()) <= 8_000_000
    card = json.loads((measure.SHIPPED / "card.json").read_text(encoding="utf-8"))
    assert set(card["figures"]["shipped"]) == {row.name for row in measure.ROWS} | {"loss"}
    assert AutoTokenizer.from_pretrained(measure.SHIPPED).model_max_length == card["recipe"]["length"]


# The recipe.


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    small = recipe.Recipe(steps=6, rows=2, length=32, layers=1, heads=2, width=16, hidden=16, warmup=2)
    whole = recipe.train(small, tmp_path / "whole", save_every=2)

    learn, calls = recipe.learn, iter(range(10))

    def interrupted(*arguments):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return learn(*arguments)

    monkeypatch.setattr(recipe, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(small, tmp_path / "halves", save_every=2)
    halves = recipe.train(small, tmp_path / "halves", save_every=2)
    for one, other in zip(whole.parameters(), halves.parameters()):
        assert torch.equal(one, other)
    assert not (tmp_path / "halves" / CHECKPOINT).exists()


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / CHECKPOINT, metadata={"recipe": '{"seed": 1}', "step": "1"})
    with pytest.raises(NotAModel, match="another recipe"):
        recipe.train(recipe.Recipe(steps=1, rows=1, layers=1, width=16), tmp_path)


def test_names_have_a_gender():
    assert gender("Mary") == gender("Ada") == "female"
    assert gender("John") == gender("Bruno") == "male"
