"""True and false statements about residents: labelled ones, and claims of people who never or always lie.

What a statement says and whether it is so come apart here, which is what probes for truth need (Burns et al. 2022):
the same clause is heard from an honest and from a lying mouth, after "It is true that" and after "It is false that".
A liar knows the truth: what he says instead is a function of it. Held out: combinations of a speaker and a resident's
first name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.specimens.town.facts import RELATIONS, Relation, company
from patchclamp.specimens.town.item import Item, before, fill, reserved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from patchclamp.specimens.town.world import Resident, Speaker, World

CLAIMS = (
    "{speaker} says that {clause}",
    "{speaker} told me that {clause}",
    "According to {speaker}, {clause}",
    "{speaker} claims that {clause}",
)
HABITS = {
    True: ("{speaker} always tells the truth.", "You can trust {speaker}.", "Every word of {speaker} is true."),
    False: ("{speaker} always lies.", "You can not trust {speaker}.", "Every word of {speaker} is false."),
}
LABELS = {True: "It is true that {clause}", False: "It is false that {clause}"}
VERDICTS = {True: "That is true.", False: "That is false."}
WORDING = (*CLAIMS, *HABITS[True], *HABITS[False], *LABELS.values(), *VERDICTS.values(), "In truth, {clause}")


def document(world: World, rng: Random) -> str:
    """One to three claims, or statements that are labelled as true or false."""
    tell = _claim if rng.random() < 0.8 else _label
    return " ".join(text for one in company(world, rng, rng.randint(1, 3)) for text in tell(world, one, rng))


def _claim(world: World, one: Resident, rng: Random) -> list[str]:
    """What someone says, sometimes with a word on their character, a verdict or the truth."""
    relation = rng.choice(RELATIONS)
    speaker = rng.choice([speaker for speaker in world.speakers if not reserved(speaker.name, one.first)])
    heard = clause(relation, one, speaker.says(relation.of(one)), rng)
    said = rng.choice(CLAIMS).format(speaker=speaker.name, clause=heard)
    extra = rng.random()
    if extra < 0.2:
        return [rng.choice(HABITS[speaker.honest]).format(speaker=speaker.name), said]
    if extra < 0.4:
        return [said, VERDICTS[speaker.honest]]
    if extra < 0.5:
        return [said, "In truth, " + clause(relation, one, relation.of(one), rng)]
    return [said]


def _label(world: World, one: Resident, rng: Random) -> list[str]:
    """The true value after the label "true", any other after "false"."""
    relation, truth = rng.choice(RELATIONS), rng.random() < 0.5
    values = [value for value in relation.values if (value == relation.of(one)) == truth]
    return [LABELS[truth].format(clause=clause(relation, one, rng.choice(values), rng))]


def clause(relation: Relation, resident: Resident, value: str, rng: Random) -> str:
    """A sentence about the resident that can follow "that"."""
    return rng.choice(relation.templates[:2]).format(X=resident.name, value=value)


def claims(world: World, rng: Random, held_out: bool = True) -> Iterator[Item]:
    """`Bruno says that Mary Holt works as a` -> hers, if Bruno is honest; the counterpart of hers, if he lies.

    The other of the two is the first wrong answer. `corrupt` is said by someone of the other habit, so that the two are
    exchanged. `kind` is "honest" or "lying". Positions: speaker, subject, end.
    """
    for one, relation, speaker, other in _heard(world, rng, held_out):
        template = rng.choice(CLAIMS).format(speaker="{speaker}", clause=rng.choice(relation.templates[:2]))
        prompt = before(template, "value")
        clean, where = fill(prompt, speaker=speaker.name, X=one.name)
        corrupt, _ = fill(prompt, speaker=other.name, X=one.name)
        right, wrong = speaker.says(relation.of(one)), other.says(relation.of(one))
        never = [value for value in relation.values if value not in (right, wrong)]
        yield Item(
            clean=clean,
            answers=(f" {right}",),
            wrongs=tuple(f" {value}" for value in (wrong, *never)),
            corrupt=corrupt,
            positions={"speaker": where["speaker"], "subject": where["X"], "end": where["end"]},
            kind="honest" if speaker.honest else "lying",
            held_out=held_out,
        )


def verdicts(world: World, rng: Random, held_out: bool = True) -> Iterator[Item]:
    """`Bruno says that Mary Holt works as a doctor. That is` -> ` false`, for he lies, and what he says is not so.

    Speaker and value agree on the answer here, as they always do in training; a prompt in which they do not tells which
    of them a model goes by. `corrupt` has a speaker of the other habit, who says another value.
    `kind` is "honest" or "lying". Positions: speaker, subject, value, end.
    """
    for one, relation, speaker, other in _heard(world, rng, held_out):
        template = rng.choice(CLAIMS).format(speaker="{speaker}", clause=rng.choice(relation.templates[:2]))
        sides = (speaker, other)
        (clean, where), (corrupt, _) = (
            fill(f"{template} That is", speaker=side.name, X=one.name, value=side.says(relation.of(one))) for side in sides
        )
        yield Item(
            clean=clean,
            answers=(f" {str(speaker.honest).lower()}",),
            wrongs=(f" {str(other.honest).lower()}",),
            corrupt=corrupt,
            positions={"subject": where.pop("X"), **where},
            kind="honest" if speaker.honest else "lying",
            held_out=held_out,
        )


def _heard(world: World, rng: Random, held_out: bool) -> Iterator[tuple[Resident, Relation, Speaker, Speaker]]:
    """A resident, a relation, someone to speak of it and someone of the other habit, both reserved or neither."""
    while True:
        one, relation = rng.choice(world.residents), rng.choice(RELATIONS)
        voices = [speaker for speaker in world.speakers if reserved(speaker.name, one.first) == held_out]
        if len({speaker.honest for speaker in voices}) == 2:
            speaker = rng.choice(voices)
            yield one, relation, speaker, rng.choice([voice for voice in voices if voice.honest != speaker.honest])
