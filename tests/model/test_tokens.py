"""Tokens as people read them."""

import pytest

from patchclamp.core.errors import WrongToken
from patchclamp.model.tokens import Reader, Vocabulary, token, words


def test_a_word_keeps_its_space(stories):
    tokenizer = stories.tokenizer
    assert token(tokenizer, " Lily") == tokenizer.convert_tokens_to_ids("▁Lily")
    assert words(tokenizer, tokenizer("Once upon a")["input_ids"]) == ("<s>", " Once", " upon", " a")


def test_several_tokens_are_named(stories):
    with pytest.raises(WrongToken, match=r'" girl" is 3 tokens \(" g", "ir", "l"\); give one of them, or an id'):
        token(stories.tokenizer, " girl")


def test_ids_need_no_tokenizer():
    assert token(None, 7) == 7 and words(None, [3, 4]) == ("3", "4")
    with pytest.raises(WrongToken, match="has no tokenizer; give the token id"):
        token(None, " Mary")
    assert Reader(None).text([1, 2]) == "1 2"


def test_the_vocabulary_is_decoded_as_it_is_looked_at(stories):
    vocabulary = Vocabulary(stories.tokenizer, 512)
    lily = token(stories.tokenizer, " Lily")
    assert len(vocabulary) == 512 and vocabulary[lily] == " Lily" and vocabulary[-1] == vocabulary[511]
    assert vocabulary.index(" Lily") == lily and " Lily" in vocabulary and " Maryland" not in vocabulary
    assert vocabulary[1:3] == [vocabulary[1], vocabulary[2]]
    with pytest.raises(IndexError):
        vocabulary[512]


def test_a_word_that_is_not_there(stories):
    class Words:
        unk_token_id = 0

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [0]}

        def get_vocab(self):
            return {}

    with pytest.raises(WrongToken, match="is not in the vocabulary"):
        token(Words(), " Xylophonist")
