"""A tokenizer for which one word is one token, its leading space included.

`tokenizer(" Mary")` and `tokenizer("Mary")` are the same single token; punctuation and `'s` are tokens of their own; a
year is two, the century with its space and two digits without: ` 17` `32`. `<bos>` comes first unless told otherwise.
Ids are in reading order: special tokens, the hundred endings of a year in a row, centuries, punctuation, words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from patchclamp.specimens.town.corpus import vocabulary
from patchclamp.specimens.town.lexicon import CENTURIES, TWO_DIGITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
SPACE = "▁"  # SentencePiece's mark for a space


def tokenizer(longest: int) -> PreTrainedTokenizerFast:
    """The tokenizer of every town; `longest` is the model's context."""
    return of_tokens(_tokens(), longest)


def of_tokens(tokens: Iterable[str], longest: int) -> PreTrainedTokenizerFast:
    """The same cut of a text with other tokens; the special ones come first, and words begin with `SPACE`."""
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    # A text that begins with a letter gets the space that the same word has inside a text. Digits and punctuation do
    # not, so that "32" alone is the end of a year and " 17" its beginning.
    words.normalizer = normalizers.Sequence([normalizers.Prepend(" "), normalizers.Replace(Regex(r"\A (?=[^A-Za-z])"), "")])
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never"),
            pre_tokenizers.Split(Regex(r"(?<=\d\d)\d\d|'s|[^\w\s▁]"), "isolated"),
        ]
    )
    words.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", SPECIAL.index("<bos>"))]
    )
    names = {f"{token.strip('<>')}_token": token for token in SPECIAL}
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=longest,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    )


def _tokens() -> Iterator[str]:
    yield from SPECIAL
    yield from TWO_DIGITS
    yield from (SPACE + century for century in CENTURIES)
    for word in vocabulary():
        yield SPACE + word if word.isalpha() else word
