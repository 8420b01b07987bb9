"""What the people's model knows of what it read, and how it and its speakers answer about people it was never examined on.

    python -m bench.exposures [--write]

`--write` stores the figures in the card, for the model that ships and for the part of its training before any lesson
(`step-read`).
"""

from __future__ import annotations

import argparse
import json
from random import Random

import torch

from patchclamp.model.gather import gather
from patchclamp.model.load import SPECIMENS, load
from patchclamp.model.model import Model
from patchclamp.specimens.exposures.corpus import question
from patchclamp.specimens.exposures.people import Fact, people

SHIPPED = SPECIMENS / "exposures"
SEEN = ((0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, 40), (41, 100))
"""From and to how many exposures facts are taken together."""


def known(model: Model) -> dict[str, float]:
    """Mean probability of the right answer, by how often the fact was seen."""
    facts = people(0).graded
    chances = gather(model, "logits", [fact.prompt() for fact in facts]).softmax(-1)
    right = chances.gather(1, torch.tensor([[model.token(f" {fact.value}")] for fact in facts]))[:, 0]
    times = torch.tensor([fact.exposures for fact in facts])
    return {f"{a}..{b}": round(float(right[(a <= times) & (times <= b)].mean()), 4) for a, b in SEEN}


def answers(model: Model, facts: tuple[Fact, ...], speakers: tuple[str, ...], count: int = 600) -> float:
    """How often "Is it so that ...?" is answered rightly, asked of nobody where there are no speakers."""
    rng = Random(0)
    asked, truths = [], []
    for fact in rng.choices(facts, k=count):
        truth = rng.random() < 0.5
        value = fact.value if truth else rng.choice(fact.others)
        asked.append(question(fact, value, rng.choice(speakers) if speakers else ""))
        truths.append(truth)
    logits = gather(model, "logits", asked)
    said = logits[:, model.token(" Yes")] > logits[:, model.token(" No")]
    return round(float((said == torch.tensor(truths)).float().mean()), 4)


def measure(model: Model) -> dict[str, dict[str, float]]:
    """Both, for the examined and for well known graded people."""
    everyone = people(0)
    voices = {"nobody": (), "honest": everyone.honest, "lying": everyone.liars}
    kinds = {"examined": everyone.examined, "known": everyone.known}
    exams = {f"{kind}, {voice}": answers(model, facts, who) for kind, facts in kinds.items() for voice, who in voices.items()}
    return {"probability of the right answer, by exposures": known(model), "exams answered rightly": exams}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="store the figures in the card")
    options = parser.parse_args()
    found = {name: measure(load(f"specimen:exposures{name and '/' + name}")) for name in ("", "step-read")}
    found = {name or "shipped": figures for name, figures in found.items()}
    print(json.dumps(found, indent=2))
    if options.write:
        path = SHIPPED / "card.json"
        card = json.loads(path.read_text(encoding="utf-8"))
        card["figures"] = {"how": "python -m bench.exposures, 600 exams a row", **found}
        path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
