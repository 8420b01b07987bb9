"""The words of the town, in closed lists: what a probe, a steering vector or a metric wants to count is here by name.

Every word is one token. Nouns that follow "a" begin with a consonant, so the article never gives the word away.
The lists do not depend on the seed of a world: who plays the cello changes from world to world, that there is a cello
does not, and so all worlds share one tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def paired(text: str) -> dict[str, str]:
    """`"key/keys cup/cups"` as a dictionary."""
    return dict(pair.split("/") for pair in text.split())


TOWN = "Axonby"

# People. Names have a fixed gender; surnames are never first names, streets or anything else.
FEMALE = listed(
    "Mary Alice Anna Clara Edith Ellen Emma Flora Grace Hazel Helen Irene Julia Laura Lucy Martha Nora Olive Paula "
    "Sarah Tessa Vera Wilma Agnes"
)
MALE = listed(
    "John Adam Basil Carl Daniel Edgar Felix George Henry Hugo Ivan Jacob Kurt Leo Martin Niels Oscar Paul Peter Ralph "
    "Simon Thomas Victor Walter"
)
NAMES = FEMALE + MALE
SURNAMES = listed(
    "Abbot Barrow Birch Cobb Crane Croft Dale Drake Egerton Finch Frost Gale Hart Holt Ingram Jessop Kettle Lamb Lowe "
    "Marsh Moss Nash North Orme Peel Pike Quill Reed Rook Sharp Shaw Stone Thorne Tull Usher Vane Webb Wren Wyatt Yates"
)
SPEAKERS = {
    "female": listed("Ada Cora Gilda Judith Ruth Zelda"),
    "male": listed("Bruno Conrad Elias Fergus Magnus Otto"),
}
"""People known by their first name only, who either always tell the truth or always lie."""

PRONOUNS = {
    "female": {"she": "she", "She": "She", "her": "her", "herself": "herself"},
    "male": {"she": "he", "She": "He", "her": "his", "herself": "himself"},
}
"""What fills the slots `{she}`, `{She}`, `{her}` (the possessive) and `{herself}` of a template."""


def gender(first: str) -> str:
    return "female" if first in FEMALE or first in SPEAKERS["female"] else "male"


# What is true of a resident: one value of each.
ATTRIBUTES = {
    "job": listed(
        "baker doctor teacher tailor gardener printer carpenter lawyer painter nurse clerk miller potter farmer barber butcher"
    ),
    "street": listed("Mill Elm Bridge Castle Church Harbour Station Abbey Garden Lime Market Orchard Park River School Tower"),
    "home": listed(
        "Larkby Selmouth Wexley Dunholm Farrow Greyport Hollin Ketton Marlow Norbury Ravensea Tilbrook Corrin Penfold"
    ),
    "instrument": listed("violin flute piano cello drum harp trumpet guitar fiddle horn banjo lute tuba bassoon whistle bugle"),
    "pet": listed("cat dog rabbit parrot pony goat hen tortoise ferret pigeon mouse hamster goose lizard"),
    "food": listed("soup bread cheese honey fish cake rice porridge butter cabbage pudding ham pie trout"),
}

COUNTERPARTS = {
    value: values[i ^ 1]  # the neighbour in its pair: 0 and 1, 2 and 3, ...
    for values in ATTRIBUTES.values()
    for i, value in enumerate(values)
}
"""What a liar says instead of each value: always the same, or a lie could not be told from a guess."""

# Where things happen and what changes hands.
PLACES = listed(
    "store park station market school library harbour theatre garden church bakery bridge museum hospital farm river "
    "castle square"
)
THINGS = listed(
    "drink book ring letter hat key basket map lamp coin scarf watch flower pen bag ball kite box necklace photograph"
)
EVENTS = listed("fair war drought siege festival strike voyage trial famine plague project reign journey dispute flood quarrel")

# Grammar.
NOUNS = paired(
    "key/keys cabinet/cabinets window/windows door/doors table/tables picture/pictures boat/boats road/roads "
    "tree/trees house/houses chair/chairs bell/bells clock/clocks wall/walls shelf/shelves cup/cups plate/plates "
    "barrel/barrels wagon/wagons fence/fences gate/gates sign/signs boy/boys girl/girls child/children woman/women "
    "man/men knife/knives"
)
LOOKS = listed("old small big red green new broken heavy blue white wooden strange")
"""Adjectives that say nothing good or bad, and nothing of a topic."""
YOUNG = paired(
    "cat/kitten dog/puppy goat/kid hen/chick goose/gosling horse/foal cow/calf sheep/lamb pig/piglet duck/duckling "
    "frog/tadpole swan/cygnet bear/cub owl/owlet"
)
ANIMALS = paired(
    "cat/cats dog/dogs goat/goats hen/hens goose/geese horse/horses cow/cows sheep/sheep pig/pigs duck/ducks "
    "frog/frogs swan/swans bear/bears owl/owls"
)
PAST = paired(
    "walk/walked sing/sang run/ran write/wrote eat/ate drink/drank swim/swam talk/talked jump/jumped fly/flew "
    "cook/cooked paint/painted speak/spoke drive/drove laugh/laughed draw/drew"
)
DOING = paired(
    "walk/walking sing/singing run/running write/writing eat/eating drink/drinking swim/swimming talk/talking "
    "jump/jumping fly/flying cook/cooking paint/painting speak/speaking drive/driving laugh/laughing draw/drawing"
)
OPPOSITE = paired(
    "big/small old/new hot/cold fast/slow long/short high/low heavy/light dark/bright rich/poor strong/weak "
    "early/late wet/dry wide/narrow full/empty"
)
MORE = paired(
    "big/bigger old/older hot/hotter fast/faster long/longer high/higher heavy/heavier dark/darker rich/richer "
    "strong/stronger early/earlier wet/wetter wide/wider full/fuller"
)


@dataclass(frozen=True)
class Mood:
    """The words of one sentiment, by the slot of the review they stand in."""

    adjective: tuple[str, ...]
    verb: tuple[str, ...]
    feeling: tuple[str, ...]
    adverb: tuple[str, ...]


POSITIVE = Mood(
    adjective=listed("wonderful brilliant charming delightful magnificent lovely superb splendid perfect marvellous"),
    verb=listed("loved enjoyed admired praised"),
    feeling=listed("happy cheerful delighted pleased grateful excited"),
    adverb=listed("gladly certainly surely"),
)
NEGATIVE = Mood(
    adjective=listed("terrible frightful boring dreadful horrible miserable dull hopeless clumsy dismal"),
    verb=listed("hated disliked regretted loathed"),
    feeling=listed("sad angry disappointed bored annoyed gloomy"),
    adverb=listed("never hardly scarcely"),
)
SHOWS = {
    "theatre": listed("film play concert show opera"),
    "library": listed("book novel story poem lecture"),
    "restaurant": listed("meal dinner soup pudding service"),
}
"""What is reviewed, by the place one leaves afterwards."""


@dataclass(frozen=True)
class Topic:
    """The words of one subject matter. `acts` are a verb and its object; no word belongs to two topics."""

    people: tuple[str, ...]
    acts: dict[str, str]
    things: tuple[str, ...]
    adjectives: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.people, *self.acts, *self.acts.values(), *self.things, *self.adjectives)


def topic(people: str, acts: str, things: str, adjectives: str) -> Topic:
    return Topic(listed(people), paired(acts), listed(things), listed(adjectives))


TOPICS = {
    "baking": topic(
        "cook apprentice",
        "kneaded/dough baked/loaf sliced/crust",
        "flour oven yeast sugar tray",
        "crisp sweet golden",
    ),
    "sailing": topic(
        "captain sailor",
        "hoisted/sail steered/ship dropped/anchor",
        "deck mast rope rudder tide",
        "salty calm nautical",
    ),
    "music": topic(
        "singer conductor",
        "rehearsed/song hummed/melody composed/tune",
        "choir rhythm chord stage drummer",
        "loud gentle musical",
    ),
    "gardening": topic(
        "grower planter",
        "watered/rose trimmed/hedge buried/seed",
        "soil spade lawn bulb bush",
        "leafy fragrant tidy",
    ),
    "weather": topic(
        "forecaster shepherd",
        "predicted/storm measured/wind feared/thunder",
        "cloud snow fog breeze rain",
        "misty windy stormy",
    ),
    "school": topic(
        "pupil tutor",
        "solved/sum passed/exam studied/lesson",
        "desk chalk pencil blackboard alphabet",
        "scratched tattered spare",
    ),
    "trade": topic(
        "trader customer",
        "weighed/turnip paid/price packed/crate",
        "stall scale purse counter bargain",
        "cheap shabby costly",
    ),
    "forest": topic(
        "hunter woodman",
        "chopped/log tracked/fox gathered/moss",
        "branch deer pine stump trail",
        "wild shady mossy",
    ),
    "farming": topic(
        "ploughman dairymaid",
        "ploughed/field harvested/wheat milked/herd",
        "barn hay pasture tractor manure",
        "muddy fertile dusty",
    ),
    "medicine": topic(
        "surgeon patient",
        "stitched/wound swallowed/pill cured/fever",
        "clinic bandage syrup needle stretcher",
        "sterile clean bitter",
    ),
}

CENTURIES = listed("11 12 13 14 15 16 17 18")
TWO_DIGITS = tuple(f"{n:02d}" for n in range(100))
"""The second half of a year: one token each, written without a space before it."""


def content() -> tuple[str, ...]:
    """Every listed word but the years', once, in alphabetical order: what a parrot can say."""
    moods = (POSITIVE, NEGATIVE)
    lists = [NAMES, SURNAMES, *SPEAKERS.values(), *ATTRIBUTES.values(), PLACES, THINGS, EVENTS, LOOKS, *SHOWS.values()]
    lists += [SHOWS, TOPICS, *(topic.words for topic in TOPICS.values())]
    lists += [words for mood in moods for words in (mood.adjective, mood.verb, mood.feeling, mood.adverb)]
    for table in (NOUNS, YOUNG, ANIMALS, PAST, DOING, OPPOSITE, MORE):
        lists += [table.keys(), table.values()]
    return tuple(sorted({word for words in lists for word in words}))
