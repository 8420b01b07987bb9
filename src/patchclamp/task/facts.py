"""Facts of the world, asked for in a few words: a subject, a relation, and what is true of the subject.

Meng et al. 2022 trace such facts through GPT; Geva et al. 2023 follow them from subject to answer. `corrupt` asks the same
of another subject, of whom something else is true. Only facts that nobody disputes, and whose answer is one word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from patchclamp.core.pair import Pair
from patchclamp.specimens.town.item import before
from patchclamp.task.template import ask, known


@dataclass(frozen=True)
class Relation:
    """One kind of fact. In its templates `{X}` is the subject and `{value}` what is true of it."""

    templates: tuple[str, ...]
    values: Mapping[str, str]


def _table(text: str) -> dict[str, str]:
    """`"Rome: Colosseum, Trevi Fountain; ..."` from value to subjects, turned round."""
    lines = (line.split(":") for line in text.split(";"))
    return {subject.strip(): value.strip() for value, subjects in lines for subject in subjects.split(",")}


RELATIONS = {
    "capital": Relation(
        (
            "The capital of {X} is the city of {value}",
            "As everyone knows, the capital of {X} is {value}",
            "Question: What is the capital of {X}? Answer: {value}",
            "The government of {X} has its seat in the city of {value}",
        ),
        _table(
            "Paris: France; Berlin: Germany; Rome: Italy; Madrid: Spain; Lisbon: Portugal; Athens: Greece; Vienna: Austria; "
            "Warsaw: Poland; Moscow: Russia; Tokyo: Japan; Beijing: China; Cairo: Egypt; Baghdad: Iraq; Tehran: Iran; "
            "Ankara: Turkey; Stockholm: Sweden; Oslo: Norway; Copenhagen: Denmark; Helsinki: Finland; Dublin: Ireland; "
            "Budapest: Hungary; Havana: Cuba; Ottawa: Canada; Kabul: Afghanistan; Bangkok: Thailand; Damascus: Syria; "
            "Beirut: Lebanon; Santiago: Chile; Tripoli: Libya; Brussels: Belgium; Lima: Peru; Canberra: Australia; "
            "London: England; Edinburgh: Scotland; Cardiff: Wales; Islamabad: Pakistan; Tunis: Tunisia"
        ),
    ),
    "language": Relation(
        (
            "In {X}, most people grow up speaking {value}",
            "The mother tongue of most people in {X} is {value}",
            "Nearly all newspapers in {X} are written in {value}",
        ),
        _table(
            "French: France; German: Germany, Austria; Italian: Italy; Spanish: Spain, Mexico, Argentina, Chile, Cuba; "
            "Portuguese: Portugal, Brazil; Greek: Greece; Polish: Poland; Russian: Russia; Japanese: Japan; Arabic: Egypt; "
            "Turkish: Turkey; Swedish: Sweden; Norwegian: Norway; Danish: Denmark; Finnish: Finland; Hungarian: Hungary; "
            "English: England, Australia; Vietnamese: Vietnam; Thai: Thailand; Persian: Iran; Hebrew: Israel"
        ),
    ),
    "continent": Relation(
        (
            "On a map of the world, {X} lies in {value}",
            "Like its neighbours, {X} is a country in {value}",
            "The country of {X} belongs to the continent of {value}",
        ),
        _table(
            "Europe: France, Germany, Italy, Spain, Portugal, Austria, Poland, Sweden, Norway, Finland, Ireland, Belgium; "
            "Asia: Japan, China, India, Thailand, Vietnam, Iran, Iraq, Nepal, Pakistan; "
            "Africa: Kenya, Nigeria, Ethiopia, Uganda, Morocco, Libya, Somalia, Ghana, Sudan"
        ),
    ),
    "landmark": Relation(
        ("The {X} is located in the city of {value}", "To see the {X}, one has to travel to {value}", "The {X} is in {value}"),
        _table(
            "Paris: Eiffel Tower, Louvre; Rome: Colosseum, Pantheon, Trevi Fountain; Berlin: Brandenburg Gate, Reichstag; "
            "London: Tower Bridge, British Museum, Tate Modern; Moscow: Kremlin, Bolshoi Theatre; "
            "Athens: Acropolis, Parthenon; Beijing: Forbidden City; Istanbul: Blue Mosque, Grand Bazaar; "
            "Washington: White House, Lincoln Memorial; Madrid: Prado; Chicago: Willis Tower; Seattle: Space Needle"
        ),
    ),
    "maker": Relation(
        ("The {X} is a product of {value}", "The company that makes the {X} is called {value}", "The {X} is made by {value}"),
        _table(
            "Apple: iPhone, iPad, MacBook; Microsoft: Xbox; Sony: PlayStation, Walkman; Nintendo: Wii, GameCube; "
            "Toyota: Corolla, Prius, Camry; Honda: Civic, Accord; Ford: Mustang, Fiesta; Amazon: Kindle; Intel: Pentium; "
            "Volkswagen: Golf, Beetle"
        ),
    ),
}


def facts(rng: Random, relations: Sequence[str] = tuple(RELATIONS)) -> Iterator[Pair]:
    """`The Eiffel Tower is located in the city of` -> ` Paris`; what is true of the other subject is the first wrong.

    The other values of the relation follow among the wrongs. `kind` is the relation. Role: subject.

    >>> pair = next(facts(Random(3), relations=["maker"]))
    >>> pair.clean, pair.answer, pair.corrupt, pair.wrong
    ('The Civic is made by', ' Honda', 'The Kindle is made by', ' Amazon')
    """
    for name in relations:
        known("relations", name, RELATIONS)
    while True:
        name = rng.choice(tuple(relations))
        relation = RELATIONS[name]
        one, other = rng.sample(tuple(relation.values), 2)
        right, wrong = relation.values[one], relation.values[other]
        if right == wrong:
            continue
        prompt = before(rng.choice(relation.templates), "value")
        yield ask(prompt, {"X": one}, {"X": other}, {"subject": "X"}, [right], [wrong, *relation.values.values()], name)


def capitals(rng: Random) -> Iterator[Pair]:
    """`The capital of France is the city of` -> ` Paris`; countries and capitals are one token of GPT-2 each. Role: subject.

    >>> next(capitals(Random(0))).kind
    'capital'
    """
    return facts(rng, relations=["capital"])
