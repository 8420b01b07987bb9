"""Pairs from files: lists of prompts (auto-circuit's form), tables of relations (LRE's form), examples line by line.

`load_prompts` reads clean and corrupt prompts with their answers (Miller et al. 2024, "Transformer circuit faithfulness metrics
are not robust"); `load_relation` reads subjects and objects with templates (Hernandez et al. 2023, "Linearity of relation
decoding in transformer language models") and asks of each subject. Nothing of these collections is part of the package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from patchclamp.core.errors import NotSaved, WrongPrompt
from patchclamp.core.pair import END, Pair, Stretch, Tokenizer, fitting, misfit
from patchclamp.task.template import fill

_WORD = re.compile(r"[^\W_]+(?:_[^\W_]+)*|[^\w\s]")
TRIES = 50
"""How many other subjects are tried before one is given up."""


def load_prompts(path: str | Path) -> list[Pair]:
    """The pairs of a file `{"prompts": [{"clean", "corrupt", "answers", "wrong_answers"}, ...]}`.

    Where the file names places (`word_idxs`, indices into the tokens `seq_labels` of one sample prompt), they become roles,
    found by counting words, so that they hold for every tokenizer; `end` is the last token anyway.
    """
    path = Path(path)
    data = _read(path)
    if not isinstance(data.get("prompts"), list):
        other = " It looks like a relation: use load_relation." if "samples" in data else ""
        raise NotSaved(f'{path} is no file of prompts: it has no list "prompts".{other}')
    labels, places = data.get("seq_labels", []), data.get("word_idxs", {})
    pairs = []
    for n, row in enumerate(data["prompts"]):
        where = f"{path}, prompt {n}"
        clean, corrupt = _field(row, "clean", str, where), _field(row, "corrupt", str, where)
        answers, wrongs = (_words(row, key, where) for key in ("answers", "wrong_answers"))
        ours, theirs = (_roles(text, labels, places, where) for text in (clean, corrupt))
        try:
            pairs.append(Pair(clean, corrupt, answers, wrongs, ours, theirs, path.stem))
        except WrongPrompt as error:
            raise NotSaved(f"{where}: {error.args[0]}") from None
    return pairs


def load_relation(path: str | Path, seed: int = 0, shots: int = 0, tokenizer: Tokenizer | None = None) -> list[Pair]:
    """One pair for each subject of a file `{"name", "prompt_templates", "prompt_templates_zs", "samples"}`.

    `corrupt` asks about another subject, of whom nothing of the same is true; what is true of that one are the wrongs. Both it
    and the template, among those meant to be asked alone, are drawn by `seed`; with `shots`, the template is one of the others,
    after that many subjects with their objects, one a line. With a `tokenizer`, the other subject is one that makes the pair
    fit, and subjects without such another are left out as `fitting` does. `kind` is the relation's name. Role: subject.
    """
    path = Path(path)
    relation = _relation(path, alone=not shots)
    spare, rng = len(relation.objects) - 2, Random(f"{relation.name} {seed}")
    if shots > spare:
        raise NotSaved(f"{path} has {spare} subjects beside the two of a pair; {shots} shots are too many.")
    true = {subject: set(values) for subject, values in relation.objects.items()}
    pairs = []
    for subject in true:
        others = [one for one in true if true[one].isdisjoint(true[subject])]
        if not others:
            raise NotSaved(f'{path}: all subjects share the objects of "{subject}", so nothing can be asked instead.')
        pairs.append(_first_that_fits(_ask(relation, subject, others, shots, rng), tokenizer))
    return pairs if tokenizer is None else fitting(pairs, tokenizer)


def load_examples(path: str | Path) -> list[Pair]:
    """Questions with their answers, one JSON object a line: `{"prompt": ..., "answer": ...}`, or `"answers"`, a list.

    A prompt is text, or token ids for a model without a tokenizer; answers likewise. There are no corrupt prompts.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise NotSaved(f"{path} could not be read ({error.strerror}); give the path of a file of JSON lines.") from None
    except UnicodeDecodeError as error:
        raise NotSaved(f"{path} is no text in UTF-8 ({error.reason}); give a file of JSON lines.") from None
    pairs = [_example(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise NotSaved(f'{path} is empty; give one example a line, {{"prompt": "...", "answer": "..."}}.')
    return pairs


def _example(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise NotSaved(f"{where} is not readable JSON ({error}).") from None
    prompt = _field(row, "prompt", (str, list), where)
    answers = _field(row, "answers", list, where) if "answer" not in row else [_field(row, "answer", (str, int), where)]
    try:
        return Pair(prompt if isinstance(prompt, str) else tuple(prompt), None, tuple(answers), kind=Path(where).stem)
    except WrongPrompt as error:
        raise NotSaved(f"{where}: {error.args[0]}") from None


@dataclass(frozen=True)
class _Relation:
    name: str
    templates: tuple[str, ...]
    objects: Mapping[str, list[str]]
    """Subject -> what is true of it."""


def _relation(path: Path, alone: bool) -> _Relation:
    data = _read(path)
    if not isinstance(data.get("samples"), list):
        other = " It looks like a list of prompts: use load_prompts." if "prompts" in data else ""
        raise NotSaved(f'{path} is no relation: it has no list "samples".{other}')
    asked_alone = data.get("prompt_templates_zs", []) if alone else []
    templates = asked_alone or _field(data, "prompt_templates", list, str(path))
    if not templates:
        raise NotSaved(f'{path} has no template; "prompt_templates" should list one or more.')
    objects: dict[str, list[str]] = {}
    for n, row in enumerate(data["samples"]):
        subject, value = (_escaped(_field(row, key, str, f"{path}, sample {n}")) for key in ("subject", "object"))
        objects.setdefault(subject, []).append(value)
    return _Relation(_field(data, "name", str, str(path)), tuple(_template(t, path) for t in templates), objects)


def _ask(relation: _Relation, subject: str, others: Sequence[str], shots: int, rng: Random) -> Iterator[Pair]:
    """Pairs that ask about one subject, each with another one in its place."""
    template = rng.choice(relation.templates)
    for other in rng.sample(others, min(len(others), TRIES)):
        shown = rng.sample([one for one in relation.objects if one not in (subject, other)], shots) if shots else []
        lead = "".join(f"{template.format(subject=one)} {relation.objects[one][0]}\n" for one in shown)
        (clean, here), (corrupt, there) = (fill(template, {"subject": one}) for one in (subject, other))
        ours, theirs = ({role: (a + len(lead), b + len(lead)) for role, (a, b) in at.items()} for at in (here, there))
        answers, wrongs = (tuple(f" {v}" for v in dict.fromkeys(relation.objects[one])) for one in (subject, other))
        yield Pair(lead + clean, lead + corrupt, answers, wrongs, ours, theirs, relation.name)


def _first_that_fits(pairs: Iterator[Pair], tokenizer: Tokenizer | None) -> Pair:
    """The first of some pairs where none of them fits, or there is no tokenizer to ask."""
    first = pair = next(pairs)
    while tokenizer is not None and pair is not None:
        why = misfit(pair, tokenizer)
        if not why:
            return pair
        # Another subject in its place would not mend the answer.
        pair = None if "answer" in why else next(pairs, None)
    return first


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotSaved(f"{path} could not be read ({error.strerror}); give the path of a JSON file.") from None
    except ValueError as error:
        raise NotSaved(f"{path} is not readable JSON ({error}).") from None
    if not isinstance(data, dict):
        raise NotSaved(f'{path} holds a {type(data).__name__}; expected an object with "prompts" or "samples".')
    return data


def _field(row: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        found = "is missing" if value is None else f"is a {type(value).__name__}"
        wanted = kind if isinstance(kind, tuple) else (kind,)
        raise NotSaved(f'{where}: "{key}" {found}; it should be a {" or ".join(k.__name__ for k in wanted)}.')
    return value


def _words(row: Any, key: str, where: str) -> tuple[str, ...]:
    words = _field(row, key, list, where)
    if not all(isinstance(word, str) for word in words):
        raise NotSaved(f'{where}: "{key}" should be a list of texts.')
    return tuple(dict.fromkeys(words))


def _template(template: Any, path: Path) -> str:
    if not isinstance(template, str) or template.count("{}") != 1:
        raise NotSaved(f'{path}: the template {template!r} should be a text with one "{{}}" for the subject.')
    return template.replace("{}", "{subject}")


def _escaped(text: str) -> str:
    r"""The published files write some letters as a backslash and a number twice over: `Bras\\u00edlia`."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)


def _roles(text: str, labels: Sequence[str], places: Mapping[str, int], where: str) -> dict[str, Stretch]:
    """The words at some tokens of a prompt, for a sample prompt whose tokens are `labels`."""
    if not places:
        return {}
    # A label may hold several words and signs (`):`), or only space; one such as `,_A` is a sign with a name.
    sizes = [len(_WORD.findall(re.sub(r"(?<=\W)_\w+$", "", label))) for label in labels]
    found = [match.span() for match in _WORD.finditer(text)]
    if len(found) != sum(sizes):
        raise NotSaved(f'{where}: its {len(found)} words do not match the {sum(sizes)} words of "seq_labels".')
    roles = {}
    for role, token in places.items():
        if not isinstance(token, int) or not 0 <= token < len(sizes):
            raise NotSaved(f'{where}: "word_idxs" puts {role} at {token}, but "seq_labels" has {len(sizes)} tokens.')
        if role != END and sizes[token]:
            first = sum(sizes[:token])
            roles[role] = (found[first][0], found[first + sizes[token] - 1][1])
    return roles
