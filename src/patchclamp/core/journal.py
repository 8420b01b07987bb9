"""Journal: a folder in which long work keeps its finished answers, so that stopping it loses nothing.

    with keeping("work", {"model": "gpt2"}):
        pc.effects(...)

Whatever takes long asks for a `leaf` and writes each answer on it as it is found; the same question asked again finds them
there and goes on. An answer is a row of numbers, kept bit for bit, so what comes out in the end is what would have come out
at once. Leaves are numbered in the order in which they are asked for: the same work has to be done in the same order.

Answers are safetensors, a file a leaf; what was asked is a readable card. Without a journal a leaf is scratch paper.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from patchclamp.core.errors import NotSaved, PatchclampError
from patchclamp.core.progress import progress

Item = TypeVar("Item")
CARD, VERSION = "card.json", 1
PATIENCE = 2.0
"""Seconds before anything is written, and between two writings; ten times what a writing costs, where that is more."""


class Leaf:
    """The answers of one piece of work, by number."""

    def __init__(self, known: dict[int, Tensor], about: str = "", journal: Journal | None = None, path: Path | None = None):
        self.known, self.about, self.journal, self.path, self.dirty = known, about, journal, path, False

    def write(self, number: int, answer: Tensor) -> None:
        """Keep one answer; all answers of a leaf have one shape."""
        self.known[number] = answer.detach().cpu().clone()
        self.dirty = True
        if self.journal is not None:
            self.journal.flush_in_time()

    def flush(self) -> None:
        """Write what is known to the leaf's file, in one stroke."""
        if self.path is None or not self.dirty:
            return
        numbers, rows = torch.tensor(list(self.known)), torch.stack(list(self.known.values()))
        part = self.path.with_suffix(".part")
        save_file({"numbers": numbers, "answers": rows}, part, {"about": self.about})
        os.replace(part, self.path)
        self.dirty = False


class Journal:
    """A folder of leaves and the card that says what was asked."""

    def __init__(self, folder: str | Path, asked: Mapping[str, Any]) -> None:
        self.folder, self.asked, self.leaves = Path(folder), json.loads(json.dumps(dict(asked))), list[Leaf]()
        self.cost, self.due = 0.0, time.monotonic() + PATIENCE
        _check(self.folder, self.asked)

    @property
    def count(self) -> int:
        """How many answers are known."""
        return sum(len(leaf.known) for leaf in self.leaves)

    @property
    def begun(self) -> bool:
        """Whether the folder holds anything."""
        return (self.folder / CARD).is_file()

    def leaf(self, label: str, about: str) -> Leaf:
        """The next leaf, with what is known of it."""
        name = f"{len(self.leaves):04d}-{''.join(c if c.isalnum() else '-' for c in label)}.safetensors"
        path = self.folder / name
        self.leaves.append(Leaf(_read(path, about), about, self, path))
        return self.leaves[-1]

    def flush_in_time(self) -> None:
        """Write, if the last time is long enough ago."""
        if time.monotonic() > self.due:
            self.flush()

    def make(self) -> None:
        """Make the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotSaved(f"{self.folder} could not be made ({error.strerror}); name another folder.") from None

    def flush(self) -> None:
        """Write everything that is not written yet."""
        started = time.monotonic()
        try:
            self.make()
            card = {"noun": "Journal", "version": VERSION, "asked": self.asked}
            (self.folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            for leaf in self.leaves:
                leaf.flush()
        except OSError as error:
            raise NotSaved(
                f"{self.folder} could not be written ({error.strerror}); keep the answers in another folder."
            ) from None
        self.cost = time.monotonic() - started
        self.due = time.monotonic() + max(PATIENCE, 10 * self.cost)

    def clear(self) -> None:
        """Take away what was written, and the folder if nothing else is in it."""
        if self.begun:
            for path in (self.folder / CARD, *(leaf.path for leaf in self.leaves if leaf.path is not None)):
                path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


_OPEN: ContextVar[Journal | None] = ContextVar("journal", default=None)


@contextmanager
def keeping(folder: str | Path, asked: Mapping[str, Any] | None = None, lasting: bool = True) -> Iterator[Journal]:
    """Whatever takes long in this block keeps its finished answers in a folder, and goes on from those that are there.

    `asked` is written on the card; a folder with another card is refused. What is not `lasting` is taken away again once all
    went well, and is never written where that was quick.

    >>> import tempfile
    >>> metric = pc.logit_diff(" Mary", " John")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with keeping(folder) as journal:
    ...         once = pc.effects(model, clean, corrupt, "blocks.*.attn.out", metric)
    ...     with keeping(folder) as journal:
    ...         again = pc.effects(model, clean, corrupt, "blocks.*.attn.out", metric)
    >>> torch.equal(once.values, again.values)
    True
    """
    journal = Journal(folder, asked or {})
    if lasting:
        journal.make()  # what cannot be written is told before the work, not after it
    token = _OPEN.set(journal)
    try:
        yield journal
    except BaseException as error:
        if lasting or (journal.count and not isinstance(error, PatchclampError)):
            journal.flush()
        raise
    finally:
        _OPEN.reset(token)
    if lasting:
        journal.flush()
    else:
        journal.clear()


About = Callable[[], Iterable[object]]
"""What tells one piece of work from another; asked for only where a journal is open."""


def leaf(label: str, about: About = tuple) -> Leaf:
    """A leaf of the open journal, or scratch paper where none is open."""
    journal = _OPEN.get()
    return Leaf({}) if journal is None else journal.leaf(label, digest(label, *about()))


def remembered(items: Iterable[Item], work: Callable[[Item], float], label: str, about: About = tuple,
               total: int | None = None) -> list[float]:  # fmt: skip
    """One number for each item; those that are known are not worked out again.

    >>> remembered([1, 2, 3], lambda n: n / 2, "halving")
    [0.5, 1.0, 1.5]
    """
    page, found = leaf(label, about), []
    for n, item in enumerate(progress(items, total, label)):
        if n not in page.known:
            page.write(n, torch.tensor(work(item), dtype=torch.float64))
        found.append(float(page.known[n]))
    return found


def of_function(function: Any) -> str:
    """A short name for what a function does: its code, and whatever it was made with. The same in every process.

    Lists and other containers that it might change while it runs are left out; what it should be known by is a tuple.

    >>> from functools import partial
    >>> of_function(partial(round, ndigits=1)) == of_function(partial(round, ndigits=2))
    False
    """
    if isinstance(function, partial):
        return digest("partial", of_function(function.func), _value(function.args), _value(tuple(function.keywords.items())))
    own = getattr(function, "__self__", function)  # of a method, what it belongs to; of a value that can be called, the value
    state = _value(tuple(vars(own).items())) if hasattr(own, "__dict__") and not isinstance(own, ModuleType) else ()
    about = (getattr(function, "__module__", ""), getattr(function, "__qualname__", type(function).__qualname__), state)
    code = getattr(function, "__code__", None)
    if code is None:
        return digest(*about)
    return digest(*about, _code(code), _value(tuple(cell.cell_contents for cell in function.__closure__ or ())),
                  _value(function.__defaults__ or ()))  # fmt: skip


def _value(value: Any) -> object:
    """A value as `digest` can tell it from others: tensors by every bit, functions by what they do."""
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, tuple):
        return [_value(v) for v in value]
    if isinstance(value, frozenset):
        return sorted(map(str, value))
    if isinstance(value, (str, bytes, int, float, type(None))):
        return value
    return of_function(value) if callable(value) and not isinstance(value, type) else type(value).__qualname__


def _code(code: CodeType) -> list[object]:
    return [code.co_code, code.co_names, *(_code(c) if isinstance(c, CodeType) else _value(c) for c in code.co_consts)]


def digest(*about: object) -> str:
    """A short name for what something is about; tensors count with every bit."""
    made = blake2b(digest_size=16)
    for one in about:
        if isinstance(one, Tensor):
            bits = one.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
        else:
            bits = str(one).encode()
        made.update(len(bits).to_bytes(8, "little") + bits)
    return made.hexdigest()


def _check(folder: Path, asked: dict[str, Any]) -> None:
    """A folder that is not there yet, an empty one, or one with the same question on its card."""
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        card = {}
    if not isinstance(card, dict) or card.get("noun") != "Journal":
        raise NotSaved(f"{folder} holds something else than finished answers; name a folder that is new or empty.")
    if card.get("version", 0) > VERSION:
        raise NotSaved(f"{folder} was written by a newer Patchclamp (version {card['version']}); update it.")
    before = card.get("asked", {})
    for key in dict.fromkeys([*before, *asked]):
        if before.get(key) != asked.get(key):
            raise NotSaved(f"{folder} holds the answers to another question: its {key} was {_short(before.get(key))}, "
                           f"and is {_short(asked.get(key))} now. Ask the same, or name another folder.")  # fmt: skip


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _read(path: Path, about: str) -> dict[int, Tensor]:
    if not path.exists():
        return {}
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get("about")
            numbers, rows = file.get_tensor("numbers"), file.get_tensor("answers")
    except (OSError, SafetensorError) as error:
        raise NotSaved(f"{path} could not be read ({error}); delete it, and its answers are found again.") from None
    if told != about:
        raise NotSaved(
            f"{path} holds answers about something else: the model, the prompts or the places are not those that it was "
            "begun with. Name another folder."
        )
    return dict(zip(numbers.tolist(), rows))
