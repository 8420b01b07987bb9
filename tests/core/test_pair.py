"""Pair: roles are stretches of the prompt, their tokens are those of a run, and what a tokenizer cuts otherwise is named."""

import warnings

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

import words
from patchclamp.core.errors import Unserved, WrongPrompt, WrongToken
from patchclamp.core.pair import Pair, UnknownRole, aligned, answer_token, fitting, misfit, role_tokens
from patchclamp.specimens.town.tokenizer import tokenizer

TOWN = tokenizer(128)


def pair(clean, corrupt=None, answers=(" doctor",), wrongs=(), roles=(), corrupt_roles=(), kind=""):
    """A pair whose roles are given by the words that play them."""

    def stretches(text, names):
        return {name: (text.index(word), text.index(word) + len(word)) for name, word in dict(names).items()}

    return Pair(
        clean, corrupt, answers, wrongs, stretches(clean, roles), stretches(corrupt, corrupt_roles) if corrupt else {}, kind
    )


HOLT = pair(
    "Mary Holt works as a",
    "John Nash works as a",
    wrongs=(" baker",),
    roles={"first": "Mary", "subject": "Mary Holt"},
    corrupt_roles={"first": "John", "subject": "John Nash"},
)


def byte_level(merges=()):
    """A tokenizer of bytes that knows a few merges, as GPT-2's does many."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = [a + b for a, b in merges]
    tok = Tokenizer(BPE(vocab={piece: i for i, piece in enumerate([*alphabet, *made])}, merges=list(merges)))
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tok, clean_up_tokenization_spaces=False)


# The noun.


def test_a_role_stands_in_both_prompts_at_the_same_place_unless_told_otherwise():
    one = Pair("ab cd", "ab ce", (" x",), roles={"second": (3, 5)})
    assert one.corrupt_roles == {"second": (3, 5)}
    assert Pair("ab cd", None, (" x",), roles={"second": (3, 5)}).corrupt_roles == {}


def test_the_first_answer_and_the_first_wrong_are_meant_where_one_is_wanted():
    one = Pair("a", "b", (" x", " y"), (" z", " w"))
    assert (one.answer, one.wrong) == (" x", " z")
    with pytest.raises(WrongPrompt, match='"a" has no wrong continuation; give one'):
        Pair("a", "b", (" x",)).wrong  # noqa: B018


def test_a_pair_is_a_value():
    assert HOLT in {HOLT} and hash(HOLT) == hash(pair("Mary Holt works as a", "John Nash works as a", wrongs=(" baker",)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", "b", (" x",)), "is empty"),
        (("a", "", (" x",)), "without a corrupt prompt has None"),
        (("a", "b", ()), '"a" has no answer'),
        (("a", "a", (" x",)), 'are both "a"; change something'),
        (("a", "b", (" x",), (" y", " x")), '" x" is among the answers and among the wrongs of "a"'),
        (("abc", "abd", (" x",), (), {"r": (1, 4)}), 'the role "r" is 1 to 4, but "abc" has 3 characters'),
        (("abc", "ab", (" x",), (), {"r": (1, 3)}), '"ab" has 2 characters'),
        (((1, 2), (1, 3), (4,), (), {"r": (2, 3)}), '"1 2" has 2 tokens'),
        (("abc", "abd", (" x",), (), {"r": (1, 1)}), 'the role "r" is 1 to 1'),
        (("abc", "abd", (" x",), (), {"end": (2, 3)}), '"end" is the last token of every prompt'),
        (("abc", "abd", (" x",), (), {"r": (0, 1)}, {"s": (0, 1)}), "different names"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(WrongPrompt, match=says):
        Pair(*arguments)


# Where a role is.


@pytest.mark.parametrize("bos", [None, True, False])
def test_a_role_is_the_token_that_a_run_has_there(town, bos):
    told = town.run(HOLT.clean, logits=False, keep="embed.out", bos=bos).words[0]
    found = role_tokens(HOLT, town.tokenizer, bos=bos)
    assert {role: told[i] for role, i in found.items()} == {"first": " Mary", "subject": " Holt", "end": " a"}
    assert found["end"] == len(told) - 1


def test_a_role_of_many_pieces_is_the_last_of_them(stories):
    text = "Once upon a time, Benjamin saw a hippopotamus. Then Benjamin"
    names = {"first": (18, 26), "animal": (33, 45), "again": (52, 60)}
    told = stories.run(text, logits=False, keep="embed.out").words[0]
    for role, i in role_tokens(Pair(text, None, ("x",), roles=names), stories.tokenizer).items():
        read = "".join(told[: i + 1])
        assert read.endswith(text[: names.get(role, (0, len(text)))[1]])


def test_bos_counts_where_the_tokenizer_or_the_run_puts_one():
    assert role_tokens(HOLT, TOWN) == role_tokens(HOLT, TOWN, bos=True) == {"first": 1, "subject": 2, "end": 5}
    assert role_tokens(HOLT, TOWN, bos=False) == {"first": 0, "subject": 1, "end": 4}
    bytes_only = byte_level()
    ab = Pair("ab", "ac", ("d",), roles={"b": (1, 2)})
    assert role_tokens(ab, bytes_only, bos=True) == {"b": 1, "end": 1}, "it has no such token to put there"


def test_the_corrupt_side_has_its_own_tokens():
    moved = pair("in Mill Street", "in the Mill Street", roles={"name": "Mill"}, corrupt_roles={"name": "Mill"})
    assert role_tokens(moved, TOWN)["name"] == 2
    assert role_tokens(moved, TOWN, "corrupt")["name"] == 3
    with pytest.raises(WrongPrompt, match="has no corrupt prompt to compare with"):
        role_tokens(Pair("Mary", None, (" Holt",)), TOWN, "corrupt")


def test_ids_need_no_tokenizer():
    ids = Pair((0, 7, 8, 7), (0, 7, 9, 7), (8,), (9,), {"earlier": (1, 2), "both": (1, 3)})
    assert role_tokens(ids, None) == role_tokens(ids, TOWN) == {"earlier": 1, "both": 2, "end": 3}
    assert aligned([ids], None) == {"earlier": [1], "both": [2], "end": [3]}
    assert fitting([ids], None) == [ids]


def test_a_letter_of_several_tokens_is_its_last_one():
    tok = byte_level()
    assert role_tokens(Pair("a é b", None, ("c",), roles={"accent": (2, 3)}), tok)["accent"] == 3


def test_a_token_may_bring_the_space_before_a_role_and_nothing_else():
    tok = byte_level([("Ġ", "1"), ("Ġ1", "7"), ("Ġ17", "3")])  # " 1732" is cut " 173", "2"
    assert role_tokens(Pair("in 1732", None, ("c",), roles={"year": (3, 7)}), tok)["year"] == 3
    assert role_tokens(Pair("in 173", None, ("c",), roles={"year": (3, 6)}), tok)["year"] == 2
    with pytest.raises(
        WrongToken, match='the role "start" stands for "32" in "in 1732", but .* cuts that place as " 173", "2"'
    ):
        role_tokens(Pair("in 1732", None, ("c",), roles={"start": (5, 7)}), tok)
    with pytest.raises(WrongToken, match='stands for "17" .* " 173". Choose another word'):
        role_tokens(Pair("in 1732", None, ("c",), roles={"century": (3, 5)}), tok)


def test_a_role_that_no_token_holds_is_named():
    tok = words.tokenizer()
    with pytest.raises(WrongToken, match='the role "gap" stands for " " in "the cat", which no token holds'):
        role_tokens(Pair("the cat", None, (" ran",), roles={"gap": (3, 4)}), tok)


def test_a_masked_prompt_is_answered_at_its_mask():
    tok = words.tokenizer()
    masked = Pair("the [MASK] ran home", "a [MASK] ran home", ("cat",), ("dog",))
    assert role_tokens(masked, tok) == {"end": 1}
    assert fitting([masked], tok) == [masked]
    assert answer_token(masked.clean, "cat", tok) == tok.get_vocab()["cat"]


# What an answer is.


@pytest.mark.parametrize("word", [" doctor", " baker", ".", " Mary"])
def test_an_answer_is_the_token_it_is_in_its_place(town, word):
    prompt = "Mary Holt works as a"
    whole = town.tokenizer(prompt + word)["input_ids"]
    assert answer_token(prompt, word, town.tokenizer) == whole[-1] == town.token(word)


def test_an_id_is_its_own_answer():
    assert answer_token("Mary", 5, TOWN) == answer_token((1, 2), 5, None) == 5


@pytest.mark.parametrize(
    ("prompt", "answer", "says"),
    [
        ("ab", "cd", r'the continuation "cd" after "ab" is 2 tokens \("c", "d"\); choose one that is a single token'),
        ("x1", "7", 'the continuation "7" after "x1" is no token of its own: .* read together as "17"'),
        ("x1", "75", '"75" after "x1" is no token of its own: .* "17", "5"'),
        ((1, 2), "cd", 'the continuation "cd" is 2 tokens'),
    ],
)
def test_an_answer_that_is_not_one_token_shows_its_pieces(prompt, answer, says):
    with pytest.raises(WrongToken, match=says):
        answer_token(prompt, answer, byte_level([("1", "7")]))


def test_an_answer_that_nobody_knows_is_named():
    with pytest.raises(WrongToken, match='the continuation " zzz" after "Mary works as a" is not in the vocabulary'):
        answer_token("Mary works as a", " zzz", TOWN)
    with pytest.raises(WrongToken, match='" Mary" is a word, but there is no tokenizer'):
        answer_token((1, 2), " Mary", None)


# Side by side.


def test_aligned_pairs_have_every_role_at_one_token_each():
    longer = pair(
        "In the morning Mary Holt",
        "In the morning John Nash",
        roles={"subject": "Mary Holt"},
        corrupt_roles={"subject": "John Nash"},
    )
    assert aligned([HOLT, longer], TOWN) == {"subject": [2, 5], "end": [5, 5]}
    assert aligned([HOLT, longer], TOWN, bos=False) == {"subject": [1, 4], "end": [4, 4]}
    assert aligned([HOLT], TOWN, roles=("end", "first")) == {"end": [5], "first": [1]}


def test_an_unknown_role_is_met_with_the_nearest():
    with pytest.raises(
        UnknownRole,
        match='no role "subjekt" in "Mary Holt works as a"; its roles are first, subject, end. Did you mean "subject"',
    ):
        aligned([HOLT], TOWN, roles=("subjekt",))


BAD = {
    "a word is not in the vocabulary": (
        pair("Mary Zzz works as a", "John Zzz works as a"),
        '" ?Zzz" in "Mary Zzz works as a" is not in the vocabulary',
    ),
    "clean and corrupt differ in length": (
        pair("Mary works as a", "John Nash works as a"),
        'the clean prompt "Mary works as a" has 5 tokens, the corrupt one "John Nash works as a" has 6. Reword one',
    ),
    "a role stands at different tokens": (
        pair("Mary and Anna Holt sat", "Mary Nash and Anna sat", roles={"second": "Anna"}, corrupt_roles={"second": "Anna"}),
        'the role "second" is token 3 of "Mary and Anna Holt sat", and 4 of its corrupt form',
    ),
    "an answer is not one token": (pair("Mary works", "John works", (" as a",)), 'the continuation " as a" after "Mary works" is 2 tokens'),
    "the wrong is not one token": (pair("Mary works", "John works", (" as",), (" in the",)), 'the continuation " in the" after "Mary works" is 2'),
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_what_cannot_be_laid_side_by_side_says_why(reason):
    bad, says = BAD[reason]
    assert misfit(bad, TOWN) == reason
    with pytest.raises((WrongPrompt, WrongToken), match=says):
        aligned([HOLT, bad], TOWN)


def test_a_part_of_a_token_is_no_role_of_a_pair():
    bad = Pair("in 1732", "in 1733", ("c",), roles={"start": (5, 7)})
    assert misfit(bad, byte_level([("7", "3")])) == "a role is not a token of its own"


def test_nothing_to_compare_with():
    with pytest.raises(WrongPrompt, match='"Mary works as a" has no corrupt prompt'):
        aligned([pair("Mary works as a")], TOWN)
    with pytest.raises(WrongPrompt, match="there are no pairs"):
        aligned([], TOWN)


# What is kept.


def test_fitting_keeps_what_fits_in_order_and_tells_what_it_leaves_out():
    mixed = [HOLT, *(bad for bad, _ in BAD.values()), BAD["the wrong is not one token"][0], pair("Mary works as a")]
    says = r"left out: 6 of 8 pairs do not fit this tokenizer \(2 x the wrong is not one token, 1 x a word"
    with pytest.warns(UserWarning, match=says) as told:
        assert fitting(mixed, TOWN) == [HOLT, mixed[-1]]
    assert told[0].filename == __file__


def test_fitting_is_quiet_where_all_fit_and_an_error_where_none_does():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fitting([HOLT], TOWN) == [HOLT] and fitting([], TOWN) == []
    with pytest.raises(WrongPrompt, match="1 of 1 pairs do not fit this tokenizer .1 x clean and corrupt differ in length."):
        fitting([BAD["clean and corrupt differ in length"][0]], TOWN)


def test_only_the_first_wrong_has_to_be_one_token():
    assert misfit(pair("Mary works", "John works", (" as",), (" in", " in the")), TOWN) == ""


def test_a_wrong_may_melt_into_the_prompt_since_nobody_writes_it_there():
    tok = byte_level([("1", "7")])
    assert misfit(Pair("x1", "y1", ("5",), ("7",)), tok) == ""
    assert misfit(Pair("x1", "y1", ("7",), ("5",)), tok) == "an answer is not one token"


# What is read.


def test_text_needs_a_tokenizer_that_says_what_its_tokens_are_made_of():
    with pytest.raises(WrongPrompt, match='"Mary Holt works as a" is text, and there is no tokenizer'):
        role_tokens(HOLT, None)

    class Slow:
        is_fast = False

        def __call__(self, text, **options): ...
        def decode(self, token_ids, **options): ...

    with pytest.raises(Unserved, match="Slow does not say which characters .* load the fast tokenizer"):
        role_tokens(HOLT, Slow())


def test_only_the_end_of_a_long_prompt_is_shown():
    with pytest.raises(WrongPrompt, match='"…[^"]{72}" has no answer'):
        Pair("word " * 40, None, ())
    with pytest.raises(WrongPrompt, match=r'"a\\nb" has no answer'):
        Pair("a\nb", None, ())


def test_a_tokenizer_without_an_unknown_word_is_as_good():
    tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    tok._tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert tok.unk_token_id is None
    assert role_tokens(Pair("a a a", None, (" a",), roles={"second": (2, 3)}), tok) == {"second": 1, "end": 2}
