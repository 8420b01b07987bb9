"""The town's mood can be steered: the marks of the measure, on fewer prompts."""

import re

import pytest

import patchclamp as pc
from patchclamp.probe.dose import nats, says, writes
from patchclamp.probe.measure_steering import (
    DOSE,
    EARLIER,
    MOODS,
    SITE,
    Reviews,
    ablation,
    curve,
    joy_of,
    other_text,
    topic_curve,
    topic_direction,
    ways,
    words,
)
from patchclamp.specimens.town.lexicon import NEGATIVE, POSITIVE, SHOWS, TOPICS


@pytest.mark.parametrize(("wanted", "seed"), [("positive", 0), ("negative", 1)])
def test_the_response_is_monotone_reaches_four_fifths_and_random_directions_do_nothing(town, wanted, seed):
    response = curve(town, seed, wanted, doses=(0, 0.5, 0.75, DOSE), count=30, texts=6, randoms=2)
    values = response.effect.values
    assert float(values[0]) <= 0.05 and bool((values.diff() >= 0).all()) and float(values[-1]) >= 0.8
    assert float((response.behaviour.values[1:] - values[0]).abs().max()) <= 0.05
    assert 0 < float(response.cost.values[0, -1]) < 1.0


def test_texts_on_other_topics_ask_for_a_thing_of_this_one(town):
    response = topic_curve(town, "music", count=20, texts=4, randoms=2)
    values = response.effect.values
    assert float(values[0]) <= 0.05 and bool((values.diff() >= 0).all()) and float(values[-1]) >= 0.8
    assert float((response.behaviour.values[1:] - values[0]).abs().max()) <= 0.05


def test_a_topic_can_be_read_where_it_is_not_used(town):
    """A layer earlier the direction separates as well, and steering along it does nothing."""
    line = topic_direction(town, "music", EARLIER)
    baking = ["The baker asked for the", "Without the bread the baker could do nothing. The baker asked for the"]
    assert float(line.separation.values) > 0.99
    measure = says([f" {thing}" for thing in TOPICS["music"].things])
    assert [float(measure(town.edit(pc.steer(EARLIER, dose * line)), baking).mean()) for dose in (0.5, 1, 2)] == [0, 0, 0]


def test_reviews_to_try_are_not_those_of_training():
    """No show has an adjective in one that it has in the other."""
    reviews = Reviews.drawn(0, 100, 60)

    def combinations(texts):
        mood = (*POSITIVE.adjective, *NEGATIVE.adjective)
        shows = [show for shows in SHOWS.values() for show in shows]
        return {
            (w, a)
            for text in texts
            for w in shows
            for a in mood
            if {w, a} <= set(re.findall(r"\w+", text.split(".")[0].split("!")[0]))
        }

    for mood in MOODS:
        assert len(reviews.made[mood]) == 100 and len(reviews.tried[mood]) == 60
        assert combinations(reviews.tried[mood]) and not combinations(reviews.made[mood]) & combinations(reviews.tried[mood])
    assert not any("boring" in text or "superb" in text for text in other_text(50))


def test_what_is_written_changes_its_mood(town):
    reviews = Reviews.drawn(0, 120, 12)
    steered = town.edit(pc.steer(SITE, DOSE * joy_of(town, reviews)))
    measure = writes(words(POSITIVE, True), words(NEGATIVE, True), 4)
    assert float(measure(town, reviews.tried["negative"]).mean()) <= 0.05
    assert float(measure(steered, reviews.tried["negative"]).mean()) >= 0.8


def test_ways_that_leave_most_activations_alone_cost_least(town):
    reviews, text = Reviews.drawn(0, 120, 24), other_text(20)
    measure, plain = says(words(POSITIVE)), nats(town, text)
    found = {name: (float(measure(town.edit(*edits), reviews.tried["negative"]).mean()), float((nats(town.edit(*there), text) - plain).mean()))
             for name, edits, there in ways(town, reviews)}  # fmt: skip
    for name in ("turned in a plane", "capped from below", "a vector, in reviews only (CAST)"):
        assert found[name][0] >= 0.8 and found[name][1] < 0.2 * found["a vector at every token"][1], name
    assert found["a random vector"][0] <= 0.05 and found["one head, random direction"][0] <= 0.05


def test_the_direction_of_mood_can_be_taken_out_for_good(town, capsys):
    assert ablation(town, 8)
    assert "largest difference of a logit" in capsys.readouterr().out
