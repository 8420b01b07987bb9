"""Examine on every kind of model: each section is filled or left out with a reason, and says what its numbers say."""

import re

import pytest
import torch

import induction
import patchclamp as pc
import words
import zoo
from patchclamp.app import readings
from patchclamp.app.examine import LONGEST, examine
from patchclamp.core.errors import WrongPrompt

SECTIONS = ["What it says", "What each block would say", "Who writes the answer", "What the heads look at"]
MAPS = ["Where the difference travels", "Attention layers", "Feed-forward layers", "Heads"]
CLASSIC = (
    "When Mary and John went to the store, John gave a drink to",
    "When Mary and John went to the store, Mary gave a drink to",
)
IDS, OTHER = [30, 31, 32, 33, 34, 35, 36], [30, 31, 50, 33, 51, 35, 36]


def small(kind, task="causal", tokenizer=None, **more):
    with zoo.quiet():
        model = pc.load(zoo.build(kind, task, **more), tokenizer)
        if task == "seq2seq":
            model.hf.generation_config.decoder_start_token_id = 0
    return model


def looked(model, *args, **more):
    with zoo.quiet():
        return examine(model, *args, **more)


def named(found):
    return {s.title: s for s in found.sections}


KINDS = {
    "gpt2": ("causal", set()),
    "llama": ("causal", set()),
    "gemma2": ("causal", set()),
    "gpt_neox": ("causal", set()),
    "bert": ("masked", {"Who writes the answer"}),
    "albert": ("masked", {"Who writes the answer"}),
    "t5": ("seq2seq", set()),
    "bart": ("seq2seq", set()),
    "mamba": ("causal", {"What the heads look at", "Attention layers", "Feed-forward layers", "Heads"}),
    "qwen3_next": ("causal", set()),  # attention in one block of two, with a gate
    "mixtral": ("causal", set()),
}
"""Model kinds, and the sections that are left out."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_section_is_filled_or_says_why_not(kind):
    task, missing = KINDS[kind]
    found = looked(small(kind, task), IDS, OTHER, answer=7, wrong=8)
    mixers = ["Mixers"] if kind in ("mamba", "qwen3_next") else []
    assert [s.title for s in found.sections] == SECTIONS + MAPS + mixers
    for section in found.sections:
        if section.title in missing:
            assert not section.pictures and re.match(r"\S.*\.$", section.left_out), section
        else:
            assert section.pictures and section.reading.endswith("."), (kind, section)
            assert not section.left_out or section.title == "Who writes the answer", (kind, section)
    assert found.page().html().count("<details") >= len(found.sections)
    found.summary().show()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "gpt_neox", "t5", "bart", "mamba", "qwen3_next", "mixtral"])
def test_contributions_add_up_to_what_the_model_says(kind):
    found = looked(small(kind, KINDS[kind][0]), IDS)
    whole = found.grids["contributions"]
    with torch.no_grad():
        top = found.run.logits[0, -1].max()
    assert float(whole.values.sum()) == pytest.approx(float(top), abs=1e-4)
    assert whole.baseline["metric"] == pytest.approx(float(top), abs=1e-5)


# ---- what is said of each kind ---------------------------------------------------------------------------------------


def test_a_story(stories):
    found = examine(stories, "Once upon a time, there was a little girl named")
    said = named(found)["What it says"].reading
    assert said.startswith("It continues with “Lily”, with probability 0.926; “")
    assert abs(float(found.grids["contributions"].values.sum()) - found.grids["contributions"].baseline["metric"]) < 1e-4
    assert found.facts["model"] == "LlamaForCausalLM, 260 k parameters, 5 blocks, 8 heads, width 64"
    assert found.facts["prompt"].endswith("named (14 tokens)") and found.facts["answer"] == "“Lily”"
    assert [s.title for s in found.sections] == SECTIONS


def test_the_town_knows_who_is_given_the_drink(town):
    found = examine(town, *CLASSIC, parts=("q", "k", "v", "pattern"))
    sections = named(found)
    assert found.facts["answer"] == "“Mary”" and found.facts["wrong answer"] == "“John”"
    assert list(sections) == [*SECTIONS, *MAPS, "Heads: q", "Heads: k", "Heads: v", "Heads: pattern"]
    assert all(s.pictures and s.reading for s in found.sections) and not any(s.left_out for s in found.sections)
    stream = found.grids["patching stream"]
    second = stream.words("pos").index(next(w for w in stream.words("pos")[6:] if w.endswith(("John", "Mary"))))
    assert int(stream.values[0].argmax()) == second  # early the difference sits at the second name ...
    assert int(stream.values[-1].argmax()) == stream.values.shape[1] - 1  # ... and at the end where the answer is given
    head = re.match(
        r"At the answer's place head (\d)\.(\d) looks at “John” \(token 10\), weight",
        sections["What the heads look at"].reading,
    )
    carries = found.grids["patching heads"]  # the head that carries the difference looks at the second name
    assert head is not None and {"layer": head[1], "head": head[2]} == carries.top(1, "magnitude")[0][0]
    assert sections["Where the difference travels"].reading.startswith("What makes the difference moves as the blocks go by:")
    gap = found.grids["contributions"]
    assert abs(float(gap.values.sum()) - gap.baseline["metric"]) < 1e-4


def test_a_masked_token_is_what_an_encoder_is_asked_about():
    model = small("bert", "masked", words.tokenizer())
    found = looked(model, "the boy [MASK] a dog", "the girl [MASK] a dog")
    assert found.run.last == [2] and found.facts["prompt"] == "the boy [MASK] a dog (5 tokens)"
    said = named(found)
    assert said["What it says"].reading.startswith("In the masked place it puts “")
    p, top = found.run.logits[0, 2].softmax(-1).max(-1)
    assert f"with probability {float(p):.3f};" in said["What it says"].reading
    assert found.facts["answer"] == f"“{words.tokenizer().convert_ids_to_tokens(int(top))}”"
    assert said["What it says"].pictures[0].values is None  # no surprise where there is no order
    assert said["Who writes the answer"].left_out.endswith("contributions would not add up.")
    assert bool(found.grids["patching stream"].values.isfinite().all())


def test_without_a_masked_token_an_encoder_says_so():
    model = small("bert", "masked", words.tokenizer())
    assert named(looked(model, "the boy saw a dog"))["What it says"].reading.startswith("No token is masked; in its last place")


def test_an_albert_reads_chemistry(shared):
    model = pc.load(shared / "models" / "rxnmapper-albert")
    ids = model.tokenizer("CC(=O)O.OCC>>CC(=O)OCC")["input_ids"]
    found = looked(model, [*ids[:5], model.tokenizer.mask_token_id, *ids[6:]])
    right = model.run_reader.words([ids[5]])[0]
    assert found.facts["answer"] == f"“{right}”" and named(found)["What each block would say"].reading.count(f"“{right}”") == 1
    assert all(s.pictures or s.left_out for s in found.sections)


def test_an_encoder_decoder_is_asked_how_its_answer_begins():
    model = small("t5", "seq2seq", words.tokenizer())
    found = looked(model, "the boy saw a dog", "the girl saw a dog")
    said = named(found)
    assert found.facts["prompt"] == "the boy saw a dog (5 tokens)" and found.facts["against"] == "the girl saw a dog"
    assert found.json()["tokens"] == ["the", "boy", "saw", "a", "dog"]
    assert said["What it says"].reading.startswith("Its answer begins with “")
    assert said["What it says"].pictures[0].tokens == ("the", "boy", "saw", "a", "dog")
    looks = said["What the heads look at"].pictures[0]
    assert looks.keys == ("0 the", "1 boy", "2 saw", "3 a", "4 dog") and len(looks.queries) == 1
    stream = found.grids["patching stream"]
    assert list(stream.words("pos")) == ["0 the", "1 boy", "2 saw", "3 a", "4 dog"]
    assert bool(stream.values.isfinite().all()) and int(stream.values[0].abs().argmax()) == 1  # where the words differ


def test_an_attention_only_module_of_somebody_elses(shared):
    prompt, following = induction.repeated()
    found = looked(pc.load(induction.module(shared)), prompt)
    said = named(found)
    assert said["What it says"].reading.startswith(f"It continues with “{following}”")
    assert "block 1's attention" in said["Who writes the answer"].reading
    assert "“" + str(int(prompt[0, 10])) + "” (token 10)" in said["Who writes the answer"].reading
    assert all(s.pictures and not s.left_out for s in found.sections)


def test_a_sorting_gpt_on_ids(shared):
    found = looked(pc.load(shared / "models" / "gpt-nano-sort"), [2, 0, 1, 1, 0, 2], [2, 1, 1, 1, 0, 2])
    assert found.facts["answer"] == "“0”" and all(s.pictures and not s.left_out for s in found.sections)


def test_a_model_without_a_head_shows_what_there_is():
    found = looked(small("bert", "base"), IDS, OTHER)
    said = named(found)
    assert said["What it says"].pictures and "returns no logits, so it says nothing" in said["What it says"].left_out
    assert said["What the heads look at"].pictures and "answer" not in found.facts
    for title in ("What each block would say", "Who writes the answer", *MAPS):
        assert "returns no logits" in said[title].left_out
    assert found.json()["grids"] == {}


def test_an_edited_model_is_examined_as_edited(gpt2):
    plain, edited = looked(gpt2, IDS), looked(gpt2.edit(pc.zero("blocks.0.mlp.out")), IDS)
    assert float(edited.grids["contributions"].at(component="0 mlp").values) == 0
    assert not torch.equal(plain.grids["predictions"].values, edited.grids["predictions"].values)


# ---- edges -----------------------------------------------------------------------------------------------------------


def test_one_token_is_a_prompt(gpt2):
    found = looked(gpt2, [30])
    assert all(section.pictures for section in found.sections) and found.facts["prompt"] == "30 (1 token)"


def test_long_prompts_show_the_part_of_a_pattern_that_holds_the_answer():
    model = small("bert", "masked", words.tokenizer(), max_position_embeddings=256)
    for place in (3, 150, 199):
        text = ["w1"] * 200
        text[place] = "[MASK]"
        found = looked(model, " ".join(text))
        picture = named(found)["What the heads look at"].pictures[0]
        assert len(picture.queries) <= LONGEST and f"{place} [MASK]" in picture.queries and f"{place} [MASK]" in picture.keys
        layer, head = map(int, picture.patterns[0].name.split("."))
        row = list(picture.queries).index(f"{place} [MASK]")
        whole = model.run(" ".join(text), keep=f"blocks.{layer}.attn.pattern")[f"blocks.{layer}.attn.pattern"][0, head, place]
        first = int(picture.keys[0].split()[0])
        seen = torch.from_numpy(picture.patterns[0].weights[row])
        assert torch.allclose(seen, whole[first : first + LONGEST], atol=1e-6)


def test_prompts_with_the_same_answer_leave_nothing_to_restore(gpt2):
    model = gpt2.edit(pc.zero("norm.out"))
    found = looked(model, IDS, OTHER, answer=7, wrong=8)
    assert named(found)["Heads"].reading.endswith("nothing to restore.")


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        (([[30, 31], [32, 33]],), WrongPrompt, "examine looks at one prompt; this is 2"),
        ((IDS, IDS), WrongPrompt, "the same tokens"),
        ((IDS, IDS[:3]), WrongPrompt, "7 tokens, the corrupt one 3"),
        ((IDS, None, 1000), pc.PatchclampError, "there is no token 1000 in a vocabulary of 99"),
        ((IDS, None, 7, -1), pc.PatchclampError, "there is no token -1"),
    ],
)
def test_mistakes_are_named(gpt2, args, error, says):
    with pytest.raises(error, match=says):
        examine(gpt2, *args)


# ---- readings say what the grids say ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "mamba"])
def test_numbers_in_readings_are_the_grids_own(kind):
    found = looked(small(kind, KINDS[kind][0]), IDS, OTHER, answer=7, wrong=8)
    said, grids = named(found), found.grids
    p = grids["predictions"].values.topk(2).values.tolist()
    assert f"{p[0]:.3f}" in said["What it says"].reading and f"({p[1]:.3f})" in said["What it says"].reading
    words_ = [row[found.run.last[0]] for row in grids["lens"].text]
    assert f"“{words_[-1]}”" in said["What each block would say"].reading
    for grid, title in (("contributions", "Who writes the answer"), ("heads", "Who writes the answer")):
        for _, value in grids[grid].top(3, "magnitude") if grid in grids else ():
            assert readings.signed(value) in said[title].reading
    for name, title in (("patching attention", "Attention layers"), ("patching heads", "Heads")):
        for _, value in grids[name].top(1, "magnitude") if name in grids else ():
            assert readings.signed(value, "+.0%") in said[title].reading or abs(value) < 0.05
    for section in found.sections:
        assert section.reading.count("\n") == 0


# ---- the page --------------------------------------------------------------------------------------------------------

OUTSIDE = re.compile(
    r"""https?:|//cdn|\s(?:src|href|action|data)=["'](?!data:|#)|@import|url\((?!["']?data:)|\bfetch\(|XMLHttpRequest|\bimport\("""
)


def test_the_report_asks_for_nothing_and_is_small(town, tmp_path):
    found = examine(town, *CLASSIC, parts=("q", "k", "v", "pattern"))
    page = found.page().html()
    assert len(page.encode()) < 1_500_000
    assert OUTSIDE.findall(page) == []


def test_a_long_prompts_report_is_still_small(stories):
    text = stories.generate("Once upon a time, there was a little girl named", 180).texts[0]
    found = examine(stories, text)
    assert len(found.run.words[0]) > 150
    page = found.page().html()
    assert len(page.encode()) < 1_500_000 and OUTSIDE.findall(page) == []
