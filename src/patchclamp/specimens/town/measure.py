"""What the town's model can do, on items that training held out.

    python -m patchclamp.specimens.town.measure [FOLDER] [--items 600] [--write]

Plain transformers, no other part of Patchclamp: these are the figures that the rest may be checked against. The weights
are measured as they open (stored as bf16, computed in float32), once more computed in bf16, and at the earlier checkpoints.
`--write` stores the figures in the card; the exit status is 1 where a mark is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from patchclamp.specimens.town import gifts, tasks, years
from patchclamp.specimens.town.corpus import documents
from patchclamp.specimens.town.world import town

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from patchclamp.specimens.town.item import Item
    from patchclamp.specimens.town.world import World

SHIPPED = Path(__file__).parent
SEED = 2024
"""Of the test items; training seeds are small."""


@dataclass(frozen=True)
class Scores:
    """Shares of items, between 0 and 1."""

    items: int
    top: float
    """The most likely of all tokens is a right answer."""
    prefers: float
    """The best right answer is likelier than the best wrong one."""
    share: float
    """Probability of the right answers, of what right and wrong ones have together."""
    mass: float
    """Probability of the right answers."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a task, and which of its scores has to reach which mark."""

    name: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)
    kind: str | None = None
    """Only items of this kind."""
    figure: str = "top"
    mark: float | None = None

    def items(self, world: World, count: int) -> list[Item]:
        drawn = tasks.draw(self.task, world, count if self.kind is None else 2 * count + 100, SEED, **self.options)
        return [item for item in drawn if self.kind in (None, item.kind)][:count]


ROWS = (
    Row("IOI, names that never met", "ioi", mark=0.995),
    Row("IOI, held-out template 1", "ioi", {"templates": gifts.HELD_OUT[:1]}, mark=0.95),
    Row("IOI, held-out template 2", "ioi", {"templates": gifts.HELD_OUT[1:]}, mark=0.95),
    Row("newcomer's surname", "repeated_name", mark=0.99),
    Row("parrot: random words again", "parrot"),
    Row("facts, templates of training", "facts", {"held_out": False}, mark=0.995),
    Row("facts, held-out templates", "facts", mark=0.98),
    Row("agreement, no attractor", "agreement", {"attractors": 0}, figure="prefers"),
    Row("agreement, 1 attractor", "agreement", {"attractors": 1}, figure="prefers"),
    Row("agreement, 2 attractors", "agreement", {"attractors": 2}, figure="prefers", mark=0.99),
    Row("agreement, 3 attractors", "agreement", {"attractors": 3}, figure="prefers"),
    Row("greater than", "greater_than", figure="share", mark=0.95),
    Row("greater than, held-out template", "greater_than", {"templates": years.HELD_OUT}, figure="share"),
    Row("sentiment", "sentiment", figure="prefers"),
    Row("topic", "topic", figure="share"),
    Row("pronouns", "pronouns"),
    Row("honest speakers", "claims", kind="honest"),
    Row("lying speakers", "claims", kind="lying"),
    Row("verdict on a claim", "verdicts"),
    Row("word pairs, 4 shown", "word_pairs"),
    Row("word pairs, 1 shown", "word_pairs", {"shots": 1}),
)


def load(folder: str | Path = SHIPPED, dtype: torch.dtype | str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model of the town and its tokenizer; a checkpoint borrows the tokenizer of the folder above."""
    folder = Path(folder)
    home = folder if (folder / "tokenizer.json").exists() else folder.parent
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval(), AutoTokenizer.from_pretrained(home)


@torch.no_grad()
def next_word(model: PreTrainedModel, words: PreTrainedTokenizerBase, prompts: list[str]) -> Tensor:
    """(prompt, vocab) probabilities after each prompt. Prompts of equal length share a batch: nothing is padded."""
    lengths = defaultdict(list)
    for i, ids in enumerate(words(prompts)["input_ids"]):
        lengths[len(ids)].append((i, ids))
    found = torch.empty(len(prompts), model.config.vocab_size)
    for group in lengths.values():
        places, rows = zip(*group)
        logits = model(input_ids=torch.tensor(rows), logits_to_keep=1).logits[:, -1]
        found[list(places)] = logits.float().softmax(-1)
    return found


def score(model: PreTrainedModel, words: PreTrainedTokenizerBase, items: list[Item]) -> Scores:
    """How often, and how surely, the model gives right answers."""
    chances = next_word(model, words, [item.clean for item in items])
    found = []
    for item, chance in zip(items, chances):
        right, wrong = (chance[tokens(words, side)] for side in (item.answers, item.wrongs))
        found.append(
            (
                float(right.max() == chance.max()),
                float(right.max() > wrong.max()),
                float(right.sum() / (right.sum() + wrong.sum())),
                float(right.sum()),
            )
        )
    top, prefers, share, mass = (sum(column) / len(items) for column in zip(*found))
    return Scores(len(items), top, prefers, share, mass)


def tokens(words: PreTrainedTokenizerBase, answers: tuple[str, ...]) -> Tensor:
    """The token of each answer."""
    return torch.tensor(words(list(answers), add_special_tokens=False)["input_ids"])[:, 0]


@torch.no_grad()
def loss(model: PreTrainedModel, words: PreTrainedTokenizerBase, world: World, count: int = 500) -> float:
    """Nats per token of documents that no training run has seen, each read alone."""
    nats, length = 0.0, 0
    for text in islice(documents(world, "fresh"), count):
        ids = torch.tensor(words([text + "<eos>"])["input_ids"])
        logits = model(input_ids=ids).logits.float()
        nats += float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))
        length += ids.shape[1] - 1
    return nats / length


def measure(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """Model (bf16, float32, each checkpoint) -> row -> scores; the loss is a row of its own."""
    world = town(json.loads((folder / "card.json").read_text(encoding="utf-8"))["recipe"]["seed"])
    items = {row.name: row.items(world, count) for row in ROWS}
    models = {"shipped": load(folder), "bf16": load(folder, torch.bfloat16)}
    models |= {step.name: load(step) for step in sorted(folder.glob("step-*"))}
    found: dict[str, dict[str, Any]] = {}
    for name, (model, words) in models.items():
        found[name] = {row: asdict(score(model, words, asked)) for row, asked in items.items()}
        found[name]["loss"] = loss(model, words, world)
    return found


def table(found: dict[str, dict[str, Any]]) -> Table:
    """The shipped weights in full, of every other model the figure that counts."""
    shipped, *others = found
    drawn = Table("", "items", "mark", "top", "prefers", "share", "mass", *others, title=f"town as {shipped}, in percent")
    for row in ROWS:
        scores = found[shipped][row.name]
        mark = "" if row.mark is None else f"{row.figure} {100 * row.mark:.1f}"
        figures = [f"{100 * scores[figure]:.1f}" for figure in ("top", "prefers", "share", "mass")]
        compared = [f"{100 * found[other][row.name][row.figure]:.1f}" for other in others]
        style = "red" if row.name in missed(found) else ""
        drawn.add_row(row.name, str(scores["items"]), mark, *figures, *compared, style=style)
    losses = [f"{found[name]['loss']:.3f}" for name in found]
    drawn.add_row("loss, nats per token", "500", "", losses[0], "", "", "", *losses[1:])
    return drawn


def missed(found: dict[str, dict[str, Any]]) -> list[str]:
    """Rows whose mark the shipped weights do not reach."""
    return [row.name for row in ROWS if row.mark is not None and found["shipped"][row.name][row.figure] < row.mark]


def write(folder: Path, found: dict[str, dict[str, Any]]) -> None:
    """Store the figures in the card."""
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["figures"] = {
        "how": f"python -m patchclamp.specimens.town.measure, seed {SEED}, held-out items where the name says so",
        "marks": {row.name: {row.figure: row.mark} for row in ROWS if row.mark is not None},
        **{name: {row: _rounded(scores) for row, scores in rows.items()} for name, rows in found.items()},
    }
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _rounded(scores: Any) -> Any:
    return {key: round(value, 4) for key, value in scores.items()} if isinstance(scores, dict) else round(scores, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--write", action="store_true", help="store the figures in the card")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 190)
    found = measure(options.folder, options.items)
    console.print(table(found))
    if options.write:
        write(options.folder, found)
    if missed(found):
        console.print("missed:", ", ".join(missed(found)))
        sys.exit(1)


if __name__ == "__main__":
    main()
