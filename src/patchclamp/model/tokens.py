"""Tokens: from words to ids and back, one token at a time, as a person would read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from patchclamp.core.errors import WrongToken

Tokenizer = Any
"""Anything with the interface of a Hugging Face tokenizer, or None for a model that is given ids."""


def word(tokenizer: Tokenizer, token: int) -> str:
    """One token as text, its leading space included; the id itself where there is no tokenizer."""
    if tokenizer is None:
        return str(token)
    piece = tokenizer.convert_ids_to_tokens(token)
    if piece is None:
        return f"<{token}>"
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if piece.startswith("▁") and not text.startswith(" "):
        return " " + text  # SentencePiece drops the space of the first token it decodes
    return text if text.strip("�") or not piece else piece


def words(tokenizer: Tokenizer, tokens: Sequence[int]) -> tuple[str, ...]:
    """The tokens of a prompt as text, one by one."""
    return tuple(word(tokenizer, int(t)) for t in tokens)


def token(tokenizer: Tokenizer, text: str | int) -> int:
    """The id of a text that is one token; a `WrongToken` says what it is made of otherwise."""
    if isinstance(text, int):
        return text
    if tokenizer is None:
        raise WrongToken(f'"{text}" is a word, but this model has no tokenizer; give the token id.')
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
        return int(ids[0])
    vocabulary = tokenizer.get_vocab()
    for piece in (text, text.replace(" ", "▁"), text.replace(" ", "Ġ")):
        if piece in vocabulary:
            return int(vocabulary[piece])
    if ids == [tokenizer.unk_token_id]:
        raise WrongToken(f'"{text}" is not in the vocabulary.')
    # SentencePiece puts a space before every text, so one that brings its own has two; the plainer reading is shown.
    ids = min(ids, list(tokenizer(text.strip(), add_special_tokens=False)["input_ids"]), key=len)
    parts = ", ".join(f'"{w}"' for w in words(tokenizer, ids))
    raise WrongToken(f'"{text}" is {len(ids)} tokens ({parts}); give one of them, or an id.')


class Vocabulary(Sequence[str]):
    """The words of all tokens, decoded as they are looked at."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self.tokenizer, self.size = tokenizer, size

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        return word(self.tokenizer, index % self.size)

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The id of a word."""
        return token(self.tokenizer, value)

    def __contains__(self, value: object) -> bool:
        try:
            token(self.tokenizer, value)  # type: ignore[arg-type]
        except WrongToken:
            return False
        return True


class Reader:
    """A tokenizer as runs need it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def words(self, ids: Sequence[int]) -> tuple[str, ...]:
        return words(self.tokenizer, ids)

    def text(self, ids: Sequence[int]) -> str:
        if self.tokenizer is None:
            return " ".join(str(int(i)) for i in ids)
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def vocabulary(self, size: int) -> Sequence[str]:
        return Vocabulary(self.tokenizer, size)
