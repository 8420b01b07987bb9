"""What the people's model can be asked: contrast pairs of statements, and four options.

Everything is about *graded* people. Of those in contrast pairs no question was ever asked in training.
"""

from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

from patchclamp.specimens.exposures.corpus import options, question
from patchclamp.specimens.exposures.people import people

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from patchclamp.specimens.exposures.people import Fact

VOICES = ("nobody", "honest", "lying", "both")


def contrasts(count: int, voice: str = "lying", suggest: bool = False, seed: int = 0) -> dict[str, Any]:
    """Pairs of questions about one person of which one states what is so: the fields of a `probe.elicit.Contrast`.

    They are asked of nobody, of speakers who answer rightly, of such as answer wrongly, or of either. All facts were stated
    often. With `suggest`, both questions of a pair come after guesses, which are all one of the two values, right or wrong.

    >>> from patchclamp.specimens.exposures.tasks import contrasts
    >>> pairs = contrasts(2, "lying")
    >>> pairs["yes"][0], pairs["truth"][0]
    ('Magnus is asked: is it so that Fedan likes to eat cheese?', False)
    """
    if voice not in VOICES:
        raise ValueError(f'questions are asked of {", ".join(VOICES)}, not "{voice}".')
    everyone, rng = people(0), Random(f"contrasts {seed}")
    speakers = {"nobody": ("",), "honest": everyone.honest, "lying": everyone.liars, "both": everyone.honest + everyone.liars}[
        voice
    ]
    columns: dict[str, list[Any]] = {name: [] for name in ("yes", "no", "truth", "content", "lying", "suggested")}
    for fact in rng.choices(everyone.known, k=count):
        truth, said, speaker, template = rng.random() < 0.5, rng.random() < 0.5, rng.choice(speakers), rng.randrange(2)
        values = [fact.value, rng.choice(fact.others)] if truth else [rng.choice(fact.others), fact.value]
        guesses = (values[0 if said else 1],) * 3 if suggest else ()
        for side, value in zip(("yes", "no"), values):
            columns[side].append(question(fact, value, speaker, guesses, template))
        for name, value in (
            ("truth", truth),
            ("content", fact.person),
            ("lying", speaker in everyone.liars),
            ("suggested", said),
        ):
            columns[name].append(value)
    said, lying = columns.pop("suggested"), columns.pop("lying")
    features = {"suggested": tuple(said)} if suggest else {}
    if voice == "both":
        features["what is answered"] = tuple(truth != lie for truth, lie in zip(columns["truth"], lying))
    return {**{name: tuple(column) for name, column in columns.items()}, "features": features}


def unasked(texts: Sequence[str]) -> tuple[str, ...]:
    """The same questions, asked of nobody.

    >>> from patchclamp.specimens.exposures.tasks import unasked
    >>> unasked(["Ada is asked: is it so that Bazel has a pet cat?"])
    ('Is it so that Bazel has a pet cat?',)
    """
    return tuple(re.sub(r"\w+ is asked: is it", "Is it", text) for text in texts)


def four(facts: tuple[Fact, ...], seed: int = 0) -> tuple[list[list[str]], list[int]]:
    """For each fact four options as they follow a prompt, and the number of the right one."""
    rng = Random(f"four {seed}")
    drawn = [options(fact, rng) for fact in facts]
    return [[f" {value}" for value in shown] for shown, _ in drawn], [right for _, right in drawn]
