"""GPT-2's own tokenizer, put together from the ranks that lie with the shared data."""

import base64

import pytest


@pytest.fixture(scope="session")
def bpe(shared):
    """The tokenizer of GPT-2. It puts nothing before a text."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    lines = (shared / "data" / "tokenizers" / "gpt2.tiktoken").read_text().splitlines()
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in map(str.split, filter(None, lines))}
    letters = _letters()
    vocabulary = {"".join(letters[byte] for byte in piece): rank for piece, rank in ranks.items()}
    # Two neighbours merge where together they are a piece, pieces of lower rank first.
    splits = ((piece[:i], piece[i:]) for piece in vocabulary for i in range(1, len(piece)))
    merges = [(a, b) for a, b in splits if a in vocabulary and b in vocabulary]
    vocabulary["<|endoftext|>"] = len(vocabulary)
    made = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False, **names)


def _letters() -> dict[int, str]:
    """The letter that stands for each byte: itself where it can be printed, one beyond Latin-1 where it cannot."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
