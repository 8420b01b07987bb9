"""Readings: single plain sentences that say what the numbers of a grid say, and no more."""

import re

import pytest
import torch

from patchclamp.app import readings
from patchclamp.core.grid import Grid

NAN = float("nan")


def grid(values, axes, labels=None, **more):
    return Grid(torch.tensor(values), axes, labels or {}, **more)


@pytest.mark.parametrize(("word", "shown"), [(" Mary", "“Mary”"), ("12", "“12”"), ("\n", "“↵”"), (" ", "“␣”")])
def test_a_token_stands_between_quotation_marks(word, shown):
    assert readings.quoted(word) == shown


def test_a_negative_number_has_a_true_minus():
    assert (readings.signed(-1.234), readings.signed(0.5, "+.0%")) == ("−1.23", "+50%")


@pytest.mark.parametrize(
    ("place", "opening"),
    [
        ("next", "It continues with"),
        ("masked", "In the masked place it puts"),
        ("first", "Its answer begins with"),
        ("last", "No token is masked; in its last place it puts"),
    ],
)
def test_a_prediction(place, opening):
    said = readings.prediction(grid([0.1, 0.7, 0.2], ("vocab",), {"vocab": [" a", " Mary", " John"]}), place)
    assert said == f"{opening} “Mary”, with probability 0.700; “John” comes second (0.200)."


def lens(words, probabilities):
    return grid([[p] for p in probabilities], ("layer", "pos"), {"layer": [str(i) for i in range(len(words))]},
                text=[[w] for w in words])  # fmt: skip


@pytest.mark.parametrize(
    ("words", "probabilities", "said"),
    [
        (
            [" a", " b", " Mary", " Mary"],
            [0.2, 0.1, 0.3, 0.9],
            "At the answer's place the stream reads as “Mary” from block 2 on, with more than one half from block 3; "
            "one block earlier it reads as “b”.",
        ),
        (
            [" a", " Mary", " b", " Mary"],
            [0.2, 0.9, 0.1, 0.6],
            "At the answer's place the stream reads as “Mary” from block 3 on; one block earlier it reads as “b”.",
        ),
        (
            [" a", " Mary"],
            [0.2, 0.3],
            "At the answer's place the stream reads as “Mary” from block 1 on; one block earlier it reads as “a”.",
        ),
        (
            [" Mary", " Mary"],
            [0.2, 0.3],
            "Read out after any block, the stream at the answer's place already says “Mary”.",
        ),
    ],
)
def test_a_lens(words, probabilities, said):
    assert readings.lens(lens(words, probabilities), 0) == said


def test_parts_add_up():
    whole = grid([1.5, -0.25, 3.0, 0.5], ("component",), {"component": ["embedding", "0 attn", "1 mlp", "unembedding bias"]},
                 baseline={"metric": 4.75})  # fmt: skip
    assert readings.parts(whole, "The logit of “Mary”") == (
        "The logit of “Mary” is 4.750; block 1's feed-forward layer +3.00, the embedding +1.50, the unembedding bias +0.50 "
        "write the most of it. All parts add up to it within rounding (0)."
    )
    assert "within 1e-03." in readings.parts(
        grid(whole.values.tolist(), ("component",), whole.labels, baseline={"metric": 4.751}), "It"
    )


def test_heads_are_named_by_layer_and_number_whatever_their_sign():
    said = readings.heads(grid([[0.1, -2.0], [1.0, 0.0]], ("layer", "head")), "write")
    assert said == "The heads that write most are head 0.1 (−2.00), head 1.0 (+1.00), head 0.0 (+0.10)."


def test_sources_are_summed_over_layers():
    words = {"key": ["0 <s>", "1 Mary", "2 and"]}
    said = readings.sources(grid([[0.0, 1.0, 0.5], [0.25, 1.0, -1.0]], ("layer", "key"), words))
    assert (
        said
        == "What attention brings to the answer's place comes mostly from “Mary” (token 1) (+2.00) and “and” (token 2) (−0.50)."
    )


def test_attention_says_which_token_of_several_alike():
    said = readings.attention([("2.5", "10 John", 0.974), ("0.1", "3", 0.5)])
    assert (
        said
        == "At the answer's place head 2.5 looks at “John” (token 10), weight 0.97; head 0.1 looks at token 3, weight 0.50."
    )


POS = {"pos": ["0 <s>", "1 Mary", "2 to"]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            [[0.0, 0.9, 0.1], [0.0, 0.7, 0.2], [0.0, 0.1, 1.0]],
            "What makes the difference moves as the blocks go by: in blocks 0 to 1 it sits at “Mary” (token 1) (up to 90% restored), "
            "then in block 2 it sits at “to” (token 2) (up to 100% restored).",
        ),
        (
            [[0.0, 0.1, 0.1], [0.0, 0.1, 0.2], [0.0, 0.1, 1.0]],
            "What makes the difference stays in one place: in block 2 it sits at “to” (token 2) (up to 100% restored).",
        ),
        (
            [[0.0, 0.2, NAN], [0.0, 0.2, 0.2]],
            "No single place restores 30% of the answer: what differs is spread over several.",
        ),
    ],
)
def test_a_story(values, said):
    assert readings.story(grid(values, ("layer", "pos"), POS)) == said


@pytest.mark.parametrize(
    ("values", "axes", "labels", "said"),
    [
        (
            [[0.5, -0.25], [0.01, 0.0]],
            ("layer", "head"),
            {},
            "Putting in a head's output one by one restores most at block 0 head 0 (+50%), block 0 head 1 (−25%).",
        ),
        (
            [[0.1, 0.75, 0.0]],
            ("layer", "pos"),
            POS,
            "Putting in a head's output one by one restores most at block 0 at “Mary” (token 1) (+75%), "
            "block 0 at “<s>” (token 0) (+10%).",
        ),
        (
            [[0.06]],
            ("layer", "kv_head"),
            {},
            "Putting in a head's output one by one restores most at block 0 key-value head 0 (+6%).",
        ),
        ([[0.01, NAN]], ("layer", "head"), {}, "Putting in a head's output one by one restores less than 5 % anywhere."),
    ],
)
def test_the_strongest_cells_of_a_map(values, axes, labels, said):
    assert readings.strongest(grid(values, axes, labels), "a head's output") == said


def test_each_reading_is_plain_prose():
    said = [
        readings.prediction(grid([0.1, 0.7, 0.2], ("vocab",))),
        readings.lens(lens([" a", " b"], [0.1, 0.2]), 0),
        readings.heads(grid([[0.1, -2.0]], ("layer", "head")), "write"),
        readings.strongest(grid([[0.1, -2.0]], ("layer", "head")), "a head's output"),
    ]
    for text in said:
        assert text[0].isupper() and text.endswith(".") and "\n" not in text
        assert not re.search(r"\b(nan|inf|tensor|None)\b|-\d", text), text
