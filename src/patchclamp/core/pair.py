"""Pair: a clean prompt and a corrupt one, what should follow, and which stretch of both plays which role.

Causal methods compare two runs that differ in one thing (Vig et al. 2020; Wang et al. 2022), and what they find is said of
roles, "the second mention of the giver", not of token 10. A role is therefore a stretch of the prompt itself, so one pair
serves every tokenizer; `role_tokens` finds its token, `aligned` and `fitting` say which pairs a tokenizer cuts alike.

Knows what is called as a tokenizer is called, and no model.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from patchclamp.core.errors import PatchclampError, Unserved, WrongPrompt, WrongToken, did_you_mean

Prompt = str | tuple[int, ...]
"""Text, or the token ids themselves for a model without a tokenizer."""
Word = str | int
"""What may follow: text as it stands in the sentence (`" Mary"` with its space), or a token id."""
Stretch = tuple[int, int]
"""Where it starts and where it stops, in characters of a text, in tokens of ids: `prompt[slice(*stretch)]` stands there."""
END = "end"
"""The role that every prompt has: the token after which it is answered."""


class UnknownRole(PatchclampError):
    """A role that a pair does not have."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer: to be called, and to decode, as a fast Hugging Face one."""

    def __call__(self, text: Any, **options: Any) -> Any:
        """Ids, and the characters that each was made of."""
        ...

    def decode(self, token_ids: Any, **options: Any) -> Any:
        """Ids as text."""
        ...


@dataclass(frozen=True)
class Pair:
    """One question to a model in two forms: which word comes next, and what if one thing had been different?

    >>> pair = Pair("Ann saw Bob, and Bob waved to", "Ann saw Bob, and Ann waved to", (" Ann",), (" Bob",), {"S2": (17, 20)})
    >>> pair.clean[slice(*pair.roles["S2"])], pair.corrupt[slice(*pair.corrupt_roles["S2"])]
    ('Bob', 'Ann')
    """

    clean: Prompt
    corrupt: Prompt | None
    """The same prompt with one thing changed, or None where no such prompt exists."""
    answers: tuple[Word, ...]
    """All continuations of `clean` that are right; the first one is *the* answer where one is wanted."""
    wrongs: tuple[Word, ...] = ()
    """Continuations that are wrong, the tempting one first: where `corrupt` has an answer of its own, it is this one."""
    roles: Mapping[str, Stretch] = field(default_factory=dict, hash=False)
    """Role -> its stretch of `clean`. The role `end`, the last token, needs no stretch and is always there."""
    corrupt_roles: Mapping[str, Stretch] = field(default_factory=dict, hash=False)
    """The same for `corrupt`; as in `clean` where nothing is given."""
    kind: str = ""
    """The template, relation or whatever else one may want to group by."""

    def __post_init__(self) -> None:
        if not self.clean or self.corrupt in ("", ()):
            raise WrongPrompt("a prompt of this pair is empty; a pair without a corrupt prompt has None there.")
        if not self.answers:
            raise WrongPrompt(f'"{_short(self.clean)}" has no answer; a pair needs one or more.')
        if self.clean == self.corrupt:
            raise WrongPrompt(f'the clean and the corrupt prompt are both "{_short(self.clean)}"; change something in one.')
        if both := [w for w in self.answers if w in self.wrongs]:
            raise WrongPrompt(f'"{both[0]}" is among the answers and among the wrongs of "{_short(self.clean)}".')
        if self.corrupt is not None and not self.corrupt_roles:
            object.__setattr__(self, "corrupt_roles", self.roles)
        _check_roles(self.clean, self.roles)
        if self.corrupt is not None:
            _check_roles(self.corrupt, self.corrupt_roles)
            if set(self.roles) != set(self.corrupt_roles):
                raise WrongPrompt(f'the roles of "{_short(self.clean)}" and of its corrupt form have different names.')

    @property
    def answer(self) -> Word:
        """The first answer."""
        return self.answers[0]

    @property
    def wrong(self) -> Word:
        """The most tempting wrong continuation."""
        if not self.wrongs:
            raise WrongPrompt(
                f'"{_short(self.clean)}" has no wrong continuation; give one, or take a metric of the answer alone.'
            )
        return self.wrongs[0]


def role_tokens(pair: Pair, tokenizer: Tokenizer | None, side: Literal["clean", "corrupt"] = "clean",
                bos: bool | None = None) -> dict[str, int]:  # fmt: skip
    """Role -> the last token of its stretch, counted as a run counts tokens, the beginning-of-sequence token included.

    `bos` is what the run is given. A role that is only a part of a token has no token of its own, and that is an error.

    >>> pair = Pair("Mary Holt works as a", "John Nash works as a", (" doctor",), roles={"subject": (0, 9)})
    >>> role_tokens(pair, model.tokenizer)
    {'subject': 2, 'end': 5}
    """
    prompt, roles = (pair.clean, pair.roles) if side == "clean" else (pair.corrupt, pair.corrupt_roles)
    if prompt is None:
        raise _no_corrupt(pair)
    return _tokens(prompt, roles, _read(prompt, tokenizer, bos))


def answer_token(prompt: Prompt, answer: Word, tokenizer: Tokenizer | None) -> int:
    """The id of an answer as it stands after its prompt; a `WrongToken` where it is several tokens there.

    The same word may be another token at the beginning of a text, or melt into the prompt's last token.

    >>> answer_token("The fair lasted from the year 1732 to the year 17", "45", model.tokenizer) == model.token("45")
    True
    """
    return _answer_tokens(prompt, (answer,), tokenizer)[0]


def aligned(pairs: Sequence[Pair], tokenizer: Tokenizer | None, roles: Iterable[str] = (),
            bos: bool | None = None) -> dict[str, list[int]]:  # fmt: skip
    """Role -> its token in each pair, after making sure that clean and corrupt can be laid side by side, token by token.

    Raises what is wrong with the first pair that does not fit (`fitting` leaves such pairs out). Without `roles`, those that
    all pairs have.

    >>> pair = Pair("Mary Holt works as a", "John Nash works as a", (" doctor",), roles={"subject": (0, 9)})
    >>> aligned([pair, pair], model.tokenizer)
    {'subject': [2, 2], 'end': [5, 5]}
    """
    if not pairs:
        raise WrongPrompt("there are no pairs to align.")
    found = []
    for pair in pairs:
        if pair.corrupt is None:
            raise _no_corrupt(pair)
        for _, error in _faults(pair, tokenizer, bos):
            raise error
        found.append(role_tokens(pair, tokenizer, bos=bos))
    wanted = tuple(roles) or tuple(role for role in found[0] if all(role in tokens for tokens in found))
    for role in wanted:
        for pair, tokens in zip(pairs, found):
            if role not in tokens:
                has = f"its roles are {', '.join(tokens)}.{did_you_mean(role, tokens)}"
                raise UnknownRole(f'no role "{role}" in "{_short(pair.clean)}"; {has}')
    return {role: [tokens[role] for tokens in found] for role in wanted}


def fitting(pairs: Iterable[Pair], tokenizer: Tokenizer | None, bos: bool | None = None) -> list[Pair]:
    """The pairs that a tokenizer cuts as they need to be cut; a warning counts those left out, and says why.

    A pair fits where clean and corrupt have the same number of tokens and every role at the same one, all words are known,
    each answer is one token after the prompt, and the first wrong is one token. A pair without a corrupt prompt may fit.
    """
    kept: list[Pair] = []
    left_out: Counter[str] = Counter()
    for pair in pairs:
        why = misfit(pair, tokenizer, bos)
        if why:
            left_out[why] += 1
        else:
            kept.append(pair)
    if left_out:
        told = f"{left_out.total()} of {len(kept) + left_out.total()} pairs do not fit this tokenizer ({counted(left_out)})"
        if not kept:
            raise WrongPrompt(f"{told}; take a task whose words it knows, or look at one pair with aligned([pair], tokenizer).")
        warnings.warn(f"left out: {told}.", stacklevel=2)
    return kept


def misfit(pair: Pair, tokenizer: Tokenizer | None, bos: bool | None = None) -> str:
    """Why a tokenizer does not cut a pair as it needs to be cut, in a few words; nothing where it does.

    >>> misfit(Pair("Mary works as a", "Mary Holt works as a", (" doctor",)), model.tokenizer)
    'clean and corrupt differ in length'
    """
    return next((reason for reason, _ in _faults(pair, tokenizer, bos)), "")


def counted(reasons: Counter[str]) -> str:
    """`12 x an answer is several tokens, 3 x ...`"""
    return ", ".join(f"{n} x {reason}" for reason, n in reasons.most_common())


_CURE = "or keep the pairs that fit with fitting(pairs, tokenizer)."


def _faults(pair: Pair, tokenizer: Tokenizer | None, bos: bool | None) -> Iterator[tuple[str, PatchclampError]]:
    """What keeps a pair from being used with a tokenizer: a reason to count, and the error that explains it."""
    sides = [(pair.clean, pair.roles)] + ([] if pair.corrupt is None else [(pair.corrupt, pair.corrupt_roles)])
    readings = [_read(prompt, tokenizer, bos) for prompt, _ in sides]
    for (prompt, _), reading in zip(sides, readings):
        if reading.unknown is not None:
            what = f'"{prompt[slice(*reading.unknown)]}" in "{_short(prompt)}" is not in the vocabulary; use another word.'
            yield "a word is not in the vocabulary", WrongToken(what)
    a, b = len(readings[0].ids), len(readings[-1].ids)
    if a != b:
        told = f'the clean prompt "{_short(pair.clean)}" has {a} tokens, the corrupt one "{_short(pair.corrupt)}" has {b}.'
        yield "clean and corrupt differ in length", WrongPrompt(f"{told} Reword one so that they match, {_CURE}")
    try:
        ours, *theirs = (_tokens(prompt, roles, reading) for (prompt, roles), reading in zip(sides, readings))
    except PatchclampError as error:
        yield "a role is not a token of its own", error
        return
    for role in (role for other in theirs for role in ours if ours[role] != other[role]):
        told = f'the role "{role}" is token {ours[role]} of "{_short(pair.clean)}", and {theirs[0][role]} of its corrupt form.'
        yield "a role stands at different tokens", WrongPrompt(f"{told} Choose words of as many tokens, {_CURE}")
    try:
        _answer_tokens(pair.clean, pair.answers, tokenizer)
    except WrongToken as error:
        yield "an answer is not one token", error
    try:
        _wrong_token(pair, tokenizer)
    except WrongToken as error:
        yield "the wrong is not one token", error


@dataclass(frozen=True)
class _Reading:
    """A prompt as a tokenizer cuts it."""

    ids: list[int]
    stretches: list[Stretch]
    """The characters of each token; empty for one that stands for none of them."""
    end: int
    unknown: Stretch | None = None
    """The first stretch that the vocabulary has no word for."""


def _read(prompt: Prompt, tokenizer: Tokenizer | None, bos: bool | None) -> _Reading:
    if not isinstance(prompt, str):
        return _Reading(list(prompt), [(i, i + 1) for i in range(len(prompt))], len(prompt) - 1)
    if tokenizer is None:
        raise WrongPrompt(
            f'"{_short(prompt)}" is text, and there is no tokenizer to read it; give one, or a pair of token ids.'
        )
    if not getattr(tokenizer, "is_fast", True):
        raise Unserved(
            f"{type(tokenizer).__name__} does not say which characters a token is made of, so no role can be found; "
            "load the fast tokenizer of this model (AutoTokenizer.from_pretrained)."
        )
    made = tokenizer(prompt, return_offsets_mapping=True)
    ids, stretches = list(made["input_ids"]), [(int(a), int(b)) for a, b in made["offset_mapping"]]
    lead = getattr(tokenizer, "bos_token_id", None)
    if bos is not None and lead is not None and bos != (ids[:1] == [lead]):
        ids, stretches = ([lead, *ids], [(0, 0), *stretches]) if bos else (ids[1:], stretches[1:])
    mask, unknown = (getattr(tokenizer, f"{name}_token_id", None) for name in ("mask", "unk"))
    end = ids.index(mask) if mask is not None and mask in ids else len(ids) - 1
    unread = (s for i, s in zip(ids, stretches) if i == unknown and s[0] < s[1])
    return _Reading(ids, stretches, end, next(unread, None))


def _tokens(prompt: Prompt, roles: Mapping[str, Stretch], reading: _Reading) -> dict[str, int]:
    return {role: _token(role, prompt, reading, stretch) for role, stretch in roles.items()} | {END: reading.end}


def _token(role: str, prompt: Prompt, reading: _Reading, stretch: Stretch) -> int:
    """The last token that a stretch touches, provided that no token reaches beyond it by more than a space."""
    start, stop = stretch
    told = f'the role "{role}" stands for "{prompt[start:stop]}" in "{_short(prompt)}"'
    touched = [i for i, (a, b) in enumerate(reading.stretches) if a < b and a < stop and b > start]
    if not touched:
        raise WrongToken(f"{told}, which no token holds; choose words that the tokenizer keeps, {_CURE}")
    first, last = reading.stretches[touched[0]][0], reading.stretches[touched[-1]][1]
    if isinstance(prompt, str) and (prompt[first:start].strip() or prompt[stop:last].strip()):
        pieces = ", ".join(f'"{prompt[slice(*reading.stretches[i])]}"' for i in touched)
        raise WrongToken(f"{told}, but the tokenizer cuts that place as {pieces}. Choose another word, {_CURE}")
    return touched[-1]


def _answer_tokens(prompt: Prompt, answers: Sequence[Word], tokenizer: Tokenizer | None) -> list[int]:
    """The ids of answers as they stand after the prompt, or alone where they fill a masked token."""
    words = [w for w in answers if isinstance(w, str)]
    if not words:
        return [w for w in answers if isinstance(w, int)]
    if tokenizer is None:
        raise WrongToken(f'"{words[0]}" is a word, but there is no tokenizer; give the token id.')
    mask = getattr(tokenizer, "mask_token", None)
    masked = isinstance(prompt, str) and mask is not None and mask in prompt
    before = prompt if isinstance(prompt, str) and not masked else ""
    cut = _ids([before, *(before + word for word in words)], tokenizer)
    base = cut[0]
    found = {word: _one_more(base, ids, word, before, tokenizer) for word, ids in zip(words, cut[1:])}
    return [found[w] if isinstance(w, str) else w for w in answers]


def _one_more(base: list[int], ids: list[int], word: str, before: str, tokenizer: Tokenizer) -> int:
    """The one token that `ids` has after `base`; an error shows what there is instead."""
    if len(ids) == len(base) + 1 and ids[:-1] == base and ids[-1] != getattr(tokenizer, "unk_token_id", None):
        return int(ids[-1])
    place = f' after "{_short(before)}"' if before else ""
    if ids[-1:] == [getattr(tokenizer, "unk_token_id", None)]:
        raise WrongToken(f'the continuation "{word}"{place} is not in the vocabulary; choose another.')
    same = next((i for i, (x, y) in enumerate(zip(base, ids)) if x != y), min(len(base), len(ids)))
    pieces = ", ".join(f'"{tokenizer.decode([i])}"' for i in ids[same:])
    if same < len(base):
        raise WrongToken(
            f'the continuation "{word}"{place} is no token of its own: what the prompt ends with and it are read together as '
            f"{pieces}. End the prompt where a token ends, such as before a space, or choose another."
        )
    raise WrongToken(
        f'the continuation "{word}"{place} is {len(ids) - same} tokens ({pieces}); choose one that is a single token (mind its '
        f"leading space), {_CURE}"
    )


def _wrong_token(pair: Pair, tokenizer: Tokenizer | None) -> None:
    """The first wrong is one token, alone or after the prompt. Nobody writes it there, so it may melt into the prompt's end."""
    word = next(iter(pair.wrongs), 0)
    if isinstance(word, str) and tokenizer is not None:
        alone = _ids([word], tokenizer)[0]
        if len(alone) == 1 and alone[0] != getattr(tokenizer, "unk_token_id", None):
            return
    _answer_tokens(pair.clean, [word], tokenizer)


def _ids(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    options = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    return [list(ids) for ids in tokenizer(texts, **options)["input_ids"]]


def _check_roles(prompt: Prompt, roles: Mapping[str, Stretch]) -> None:
    for role, (start, stop) in roles.items():
        if role == END:
            raise WrongPrompt(f'"{END}" is the last token of every prompt; leave it out of the roles.')
        if not 0 <= start < stop <= len(prompt):
            what = "characters" if isinstance(prompt, str) else "tokens"
            raise WrongPrompt(f'the role "{role}" is {start} to {stop}, but "{_short(prompt)}" has {len(prompt)} {what}.')


def _no_corrupt(pair: Pair) -> WrongPrompt:
    return WrongPrompt(f'"{_short(pair.clean)}" has no corrupt prompt to compare with; use a task that makes one.')


def _short(prompt: Prompt | None, longest: int = 72) -> str:
    """A prompt for a message: its end, where the answer would stand."""
    text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt or ()))
    text = text.replace("\n", "\\n")
    return text if len(text) <= longest else "…" + text[-longest:]


def alike(pairs: Iterable[Pair], tokenizer: Tokenizer | None, bos: bool | None = None) -> list[list[Pair]]:
    """Pairs in groups that can be run as one batch: as many tokens, and every role at the same one. The largest group first.

    >>> one = Pair("Mary Holt works as a", "John Nash works as a", (" doctor",), roles={"subject": (0, 9)})
    >>> two = Pair("Ann went to", "Bob went to", (" bed",), roles={"subject": (0, 3)})
    >>> [len(group) for group in alike([two, one, one], model.tokenizer)]
    [2, 1]
    """
    groups: dict[tuple, list[Pair]] = {}
    for pair in pairs:
        tokens = role_tokens(pair, tokenizer, bos=bos)
        groups.setdefault(tuple(sorted(tokens.items())), []).append(pair)
    return sorted(groups.values(), key=len, reverse=True)
