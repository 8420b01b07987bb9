"""A tokenizer of whole words for the small random models, so that text can be given to them."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "[MASK]", "<unk>"]
WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "boy",
    "girl",
    "saw",
    "liked",
    "and",
    "then",
    "ran",
    "home",
    "to",
    "with",
    "big",
    "red",
    "ball",
    ".",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """One word, one token; 99 tokens in all, as many as the small models have."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = [*SPECIAL, *WORDS, *(f"w{i}" for i in range(99 - len(SPECIAL) - len(WORDS)))]
    made = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", mask_token="[MASK]", unk_token="<unk>"
    )
