"""What steering, function vectors and ablated directions do in the bundled town, with their controls.

    python -m patchclamp.probe.measure_steering sentiment [--seeds 5]     dose and response, on held-out reviews, both ways
    python -m patchclamp.probe.measure_steering topics                    the same, towards each of ten topics
    python -m patchclamp.probe.measure_steering methods                   every way of steering at one strength, and its cost
    python -m patchclamp.probe.measure_steering functions [--seeds 5]     function vectors against in-context accuracy
    python -m patchclamp.probe.measure_steering ablation                  a direction taken out of runs, and out of weights

Directions are made from reviews whose combinations of words were in training, and tried on combinations that were not. The
cost is measured on documents of all other families, which nobody has read before. The exit status is 1 where a mark is missed.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from patchclamp.core.edit import Edit, patch, steer
from patchclamp.core.grid import Grid
from patchclamp.core.progress import progress
from patchclamp.model.gather import gather
from patchclamp.model.load import load
from patchclamp.model.model import Model
from patchclamp.probe.ablation import without
from patchclamp.probe.conditional import conditional
from patchclamp.probe.contrast import contrast
from patchclamp.probe.direction import Direction, random_like
from patchclamp.probe.dose import Response, dose, nats, says, writes
from patchclamp.probe.function_vector import carriers, function_vector, head_means, indirect_effects, task_vector
from patchclamp.probe.iti import knowing_heads
from patchclamp.probe.lesson import Function, Lesson, bare, right, shown
from patchclamp.probe.steering import act_add, capped, onward, renormed, turned
from patchclamp.specimens.town import corpus, pairs, tasks
from patchclamp.specimens.town.lexicon import NEGATIVE, POSITIVE, SHOWS, TOPICS, Mood
from patchclamp.specimens.town.world import town

SITE, DOSE = "blocks.2.out", 0.85
TOPIC_SITE, EARLIER, TOPIC_DOSES = "blocks.3.out", "blocks.2.out", (0.0, 0.5, 1.0, 1.5, 2.0)
FUNCTIONS = "blocks.1.out[pos=-1]"
DOSES = (0.0, 0.25, 0.5, 0.625, 0.75, 0.85)
MOODS = {"positive": POSITIVE, "negative": NEGATIVE}
WORLD = town(0)


@dataclass(frozen=True)
class Reviews:
    """Beginnings of reviews that differ in one adjective: to make a direction from, and, of other words, to try it on."""

    made: dict[str, list[str]]
    tried: dict[str, list[str]]

    @classmethod
    def drawn(cls, seed: int, count: int = 120, held_out: int = 100) -> Reviews:
        """As many of each mood. What is held out is the combination of what is reviewed and its adjective."""
        return cls(_of_each_mood(seed, count, False), _of_each_mood(seed, held_out, True))


def _of_each_mood(seed: int, count: int, held_out: bool) -> dict[str, list[str]]:
    items = tasks.draw("sentiment", WORLD, 4 * count, seed, held_out=held_out)
    return {mood: [item.clean for item in items if item.kind == mood][:count] for mood in MOODS}


def words(mood: Mood, whole: bool = False) -> list[str]:
    """The words that end a review in a mood; as a `whole`, all words of the mood."""
    return [f" {word}" for word in (*mood.feeling, *mood.adverb, *((*mood.adjective, *mood.verb) if whole else ()))]


def other_text(count: int, seed: str = "fresh") -> list[str]:
    """Documents of the town that are no reviews."""
    shares = {family: share for family, share in corpus.SHARES.items() if family != "reviews"}
    return list(islice(corpus.documents(WORLD, seed, shares), count))


def joy_of(model: Model, reviews: Reviews, site: str = SITE) -> Direction:
    """The direction from bad reviews to good ones, where the last word is about to be said."""
    return contrast(model, site, reviews.made["positive"], reviews.made["negative"])


# ---- dose and response -------------------------------------------------------------------------------------------------


def curve(model: Model, seed: int, wanted: str = "positive", doses: Sequence[float] = DOSES, count: int = 100, texts: int = 50,
          randoms: int = 5) -> Response:  # fmt: skip
    """Held-out reviews that begin in the other mood, steered towards the wanted one."""
    reviews, (other,) = Reviews.drawn(seed, held_out=count), [mood for mood in MOODS if mood != wanted]
    sign = 1 if wanted == "positive" else -1
    measure = says(words(MOODS[wanted]), f"ends {wanted}")
    return dose(model, SITE, sign * joy_of(model, reviews), doses, reviews.tried[other], measure=measure,
                text=other_text(texts), randoms=randoms, seed=seed)  # fmt: skip


def place_vector(model: Model, reviews: Reviews) -> torch.Tensor:
    """A real direction that is not about mood: from shows to meals, inside each mood, so that no mood is mixed in by chance."""
    meals = {f" {word}" for word in SHOWS["restaurant"]}
    total = torch.zeros(model.width)
    for prompts in reviews.made.values():
        kinds = {wanted: [p for p in prompts if any(meal in p for meal in meals) == wanted] for wanted in (True, False)}
        total = total + 1 * contrast(model, SITE, kinds[True], kinds[False])
    return total


def sentiment(model: Model, seeds: int) -> bool:
    """Both ways, seed by seed; whether every mark is met."""
    table = Table("seed", "wanted", *(f"dose {size:g}" for size in DOSES), "random, worst", "other direction",
                  "cost (nats)", "perplexity ×", "random's cost",
                  title=f"{SITE}: held-out reviews that end in the wanted mood")  # fmt: skip
    good = True
    for seed, wanted in progress([(seed, wanted) for seed in range(seeds) for wanted in MOODS], label="sentiment"):
        response = curve(model, seed, wanted)
        values, paid = response.effect.values, response.cost.values
        reviews = Reviews.drawn(seed)
        (start,) = [mood for mood in MOODS if mood != wanted]
        elsewhere = place_vector(model, reviews)
        elsewhere = elsewhere * (DOSE * joy_of(model, reviews)).norm() / elsewhere.norm()
        apart = float(says(words(MOODS[wanted]))(model.edit(steer(SITE, elsewhere)), reviews.tried[start]).mean())
        worst = float((response.behaviour.values[1:] - values[0]).abs().max())
        good &= bool((values.diff() >= 0).all()) and float(values[-1]) >= 0.8 and worst <= 0.05
        table.add_row(str(seed), wanted, *(f"{100 * v:.0f}%" for v in values.tolist()), f"{100 * worst:.1f} points",
                      f"{100 * apart:.0f}%", f"{float(paid[0, -1]):.2f}", f"{math.exp(float(paid[0, -1])):.2f}",
                      f"{float(paid[1:, -1].mean()):.2f}")  # fmt: skip
    console().print(table)
    reviews = Reviews.drawn(0, held_out=50)
    steered, other = model.edit(steer(SITE, DOSE * joy_of(model, reviews))), random_like(DOSE * joy_of(model, reviews))
    written = writes(words(POSITIVE, True), words(NEGATIVE, True), 16)
    shares = [float(written(m, reviews.tried["negative"]).mean()) for m in (model, steered, model.edit(steer(SITE, other)))]
    before, with_joy, by_lot = (f"{100 * share:.0f}%" for share in shares)
    console().print(
        f"good words among words of mood in 16 generated tokens: {before} before, {with_joy} steered, {by_lot} by lot"
    )
    print(steered.generate(reviews.tried["negative"][0], 16))
    return good and shares[1] >= 0.8


# ---- topics ------------------------------------------------------------------------------------------------------------


def topic_direction(model: Model, topic: str, site: str, seed: int = 0) -> Direction:
    """From texts on anything else to texts on one topic, where a thing is about to be named."""
    items = tasks.draw("topic", WORLD, 300, seed)
    mine, others = ([item.clean for item in items if (item.kind == topic) == wanted] for wanted in (True, False))
    return contrast(model, site, mine, others)


def topic_curve(model: Model, topic: str, site: str = TOPIC_SITE, seed: int = 0, count: int = 60, texts: int = 30,
                randoms: int = 3) -> Response:  # fmt: skip
    """Texts about anything else, steered towards one topic, whose things they should then ask for."""
    asked = [item.clean for item in tasks.draw("topic", WORLD, 2 * count, seed + 1000) if item.kind != topic][:count]
    shares = {family: share for family, share in corpus.SHARES.items() if family != "topics"}
    text = list(islice(corpus.documents(WORLD, "fresh", shares), texts))
    measure = says([f" {thing}" for thing in TOPICS[topic].things], f"asks for {topic}")
    return dose(model, site, topic_direction(model, topic, site, seed), TOPIC_DOSES, asked, measure=measure, text=text,
                randoms=randoms, seed=seed)  # fmt: skip


def topics(model: Model) -> bool:
    """Every topic, where the direction is used; and a layer earlier, where it can be read as well and is not."""
    table = Table("topic", "separation a layer before", "steered there", *(f"dose {size:g}" for size in TOPIC_DOSES),
                  "random, worst", "cost (nats)", title=f"{TOPIC_SITE}: texts that then ask for a thing of it")  # fmt: skip
    good = True
    for topic in progress(TOPICS, label="topics"):
        response, before = topic_curve(model, topic), topic_curve(model, topic, EARLIER, texts=1, randoms=0)
        values = response.effect.values
        worst = float((response.behaviour.values[1:] - values[0]).abs().max())
        good &= bool((values.diff() >= 0).all()) and float(values[-1]) >= 0.8 and worst <= 0.05
        table.add_row(topic, f"{float(topic_direction(model, topic, EARLIER).separation.values):.3f}",
                      f"{100 * float(before.effect.values.max()):.0f}%", *(f"{100 * v:.0f}%" for v in values.tolist()),
                      f"{100 * worst:.1f} points", f"{float(response.cost.values[0, -1]):.2f}")  # fmt: skip
    console().print(table)
    return good


# ---- ways of steering --------------------------------------------------------------------------------------------------


def ways(model: Model, reviews: Reviews) -> Iterator[tuple[str, tuple[Edit, ...], tuple[Edit, ...]]]:
    """Name, edits for the bad reviews, and edits as they meet ordinary text."""
    joy = joy_of(model, reviews)
    step = DOSE * joy
    yield "a vector at every token", (steer(SITE, step),), (steer(SITE, step),)
    yield "from the prompt's end on (CAA)", (onward(SITE, step),), (steer(SITE, step),)
    made = act_add(model, "blocks.0.out", "The film was lovely.", "The film was dull.", 2.0)
    yield "two prompts' difference (ActAdd)", (made,), (made,)
    yield "a vector, length kept", (renormed(SITE, step),), (renormed(SITE, step),)
    heads = knowing_heads(model, reviews.made["positive"], reviews.made["negative"])
    yield "one head (ITI)", heads.edits(1, 2.0), heads.edits(1, 2.0)
    yield "one head, random direction", heads.edits(1, 2.0, seed=1), heads.edits(1, 2.0, seed=1)
    spread = gather(model, SITE, [*reviews.made["positive"], *reviews.made["negative"]])
    axes = torch.linalg.svd(spread - spread.mean(0), full_matrices=False).Vh
    turn = turned(SITE, torch.stack([joy.vector, axes[1]]), 45)
    yield "turned in a plane", (turn,), (turn,)
    cap = capped(SITE, joy.vector, low=float(joy.middle + (DOSE - 0.5) * joy.scale))
    yield "capped from below", (cap,), (cap,)
    told = [*reviews.made["positive"][:60], *reviews.made["negative"][:60]]
    review = contrast(model, "blocks.0.out", told, other_text(120, "other"), pooled=True)
    gated = conditional("blocks.0.out", review, steer(SITE, step))
    yield "a vector, in reviews only (CAST)", gated, gated
    noise = steer(SITE, random_like(step, 7))
    yield "a random vector", (noise,), (noise,)


def methods(model: Model) -> bool:
    """Every way of steering on the same held-out reviews."""
    reviews, text = Reviews.drawn(0), other_text(100)
    plain, measure = nats(model, text), says(words(POSITIVE))
    table = Table("way", "ends positive", "cost (nats per token)", "perplexity ×", title="Bad reviews, held out, steered")
    found = {}
    for name, edits, there in progress(ways(model, reviews), 10, "ways"):
        share = float(measure(model.edit(*edits), reviews.tried["negative"]).mean())
        cost = float((nats(model.edit(*there), text) - plain).mean())
        found[name] = share
        table.add_row(name, f"{100 * share:.0f}%", f"{cost:.3f}", f"{math.exp(cost):.2f}")
    console().print(table)
    return all(share >= 0.8 or "random" in name or "ActAdd" in name for name, share in found.items())


# ---- function vectors --------------------------------------------------------------------------------------------------


def functions() -> dict[str, list[Function]]:
    """The town's relations by kind of cue: cues that all relations of the kind know."""
    kinds = {}
    for kind, tables in pairs.relations(WORLD).items():
        common = sorted(set.intersection(*(set(table) for table in tables.values())))[:40]
        kinds[kind] = [Function(name, tuple((cue, table[cue]) for cue in common)) for name, table in tables.items()]
    return kinds


@dataclass(frozen=True)
class Found:
    """What was found on one half of the cues, to be tried on the other."""

    means: dict[str, torch.Tensor]
    effects: dict[str, Grid]
    lessons: dict[str, Lesson]
    tried: dict[str, Function]
    context: dict[str, float]
    """Accuracy in context, on the other half."""


def found(model: Model, seed: int, shots: int = 4, count: int = 40) -> Found:
    """Average outputs and indirect effects of every head, for every relation."""
    made = Found({}, {}, {}, {}, {})
    for known in functions().values():
        halves = [function.split(0.5, seed) for function in known]
        for one, other in halves:
            lesson = shown(one, shots, count, seed=seed)
            mixed = shown(one, shots, count, mixed=[half for half, _ in halves], seed=seed + 1)
            made.lessons[one.name], made.tried[one.name] = lesson, other
            made.means[one.name] = head_means(model, lesson.prompts)
            made.effects[one.name] = indirect_effects(model, made.means[one.name], mixed)
            asked = shown(one, shots, count, asked=other, seed=seed + 2)
            made.context[one.name] = float(right(model, asked).mean())
    return made


def bare_accuracy(model: Model, made: Found, edits: Mapping[str, Edit] | None = None) -> float:
    """Accuracy on bare cues, averaged over relations, each with its own edit."""
    shares = []
    for name, function in made.tried.items():
        asked = model if edits is None else model.edit(edits[name])
        shares.append(float(right(asked, bare(function)).mean()))
    return sum(shares) / len(shares)


def added(vectors: Mapping[str, torch.Tensor]) -> dict[str, Edit]:
    """Each relation's vector added at the last token."""
    return {name: steer(FUNCTIONS, vector) for name, vector in vectors.items()}


def compared(model: Model, made: Found, heads: list[tuple[int, int]], seed: int) -> dict[str, float]:
    """Accuracy on bare cues with function vectors, and with everything that they are to be told from."""

    def by(some: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        return {name: function_vector(model, means, some) for name, means in made.means.items()}

    vectors = by(heads)
    order = torch.randperm(model.layers * model.heads, generator=torch.Generator().manual_seed(seed)).tolist()
    lots = [head for head in (divmod(i, model.heads) for i in order) if head not in heads][: len(heads)]
    kinds = [[function.name for function in known] for known in functions().values()]
    others = {name: vectors[known[known.index(name) - 1]] for known in kinds for name in known}
    streams = {name: patch(FUNCTIONS, task_vector(model, one.prompts, FUNCTIONS)) for name, one in made.lessons.items()}
    noise = [{name: random_like(vector, 100 * seed + n) for name, vector in vectors.items()} for n in range(5)]
    drawn = [bare_accuracy(model, made, added(some)) for some in noise]
    share, context = bare_accuracy(model, made, added(vectors)), sum(made.context.values()) / len(made.context)
    return {
        "in context": context, "bare": bare_accuracy(model, made), "function vector": share, "of in context": share / context,
        "random": sum(drawn) / len(drawn), "worst random": max(drawn),
        "random heads": bare_accuracy(model, made, added(by(lots))), "another's": bare_accuracy(model, made, added(others)),
        "task vector": bare_accuracy(model, made, streams),
    }  # fmt: skip


def function_vectors(model: Model, seeds: int, heads: int = 2) -> bool:
    """Seed by seed; whether every mark is met."""
    rows, best = [], []
    for seed in progress(range(seeds), label="function vectors"):
        made = found(model, seed)
        best.append(carriers(list(made.effects.values()), heads))
        rows.append(compared(model, made, best[-1], seed))
    table = Table("seed", "heads", *rows[0], title=f"Bare cues that nothing was made from, vectors added at {FUNCTIONS}")
    for seed, (row, some) in enumerate(zip(rows, best)):
        table.add_row(
            str(seed), " ".join(f"{layer}.{head}" for layer, head in some), *(f"{100 * v:.1f}%" for v in row.values())
        )
    chance = len(functions()) / sum(map(len, functions().values()))  # one relation of each kind is right
    console().print(table, f"chance is {100 * chance:.1f}%: one of the relations that a cue has")
    return all(row["of in context"] >= 0.8 and row["worst random"] <= chance + 0.05 for row in rows)


# ---- ablation ----------------------------------------------------------------------------------------------------------


def ablation(model: Model, count: int = 100) -> bool:
    """How far the logits of the ablated and of the baked model lie apart, and what the ablation does."""
    reviews, text = Reviews.drawn(0, held_out=count), other_text(count)
    joy = joy_of(model, reviews, "blocks.1.out")
    numb = model.edit(*without(model, joy.vector))
    baked = numb.bake()
    with tempfile.TemporaryDirectory() as folder:
        hf: Any = baked.hf
        hf.save_pretrained(folder)
        baked.tokenizer.save_pretrained(folder)
        again = load(Path(folder))
        prompts = [*reviews.tried["positive"], *text]
        apart = [max(float((m.run(p).logits - numb.run(p).logits).abs().max()) for p in prompts) for m in (baked, again, model)]
    table = Table("", "right mood", "cost (nats per token)", title="Without the direction of mood, at every write")
    plain, noise = nats(model, text), model.edit(*without(model, random_like(joy.vector, 3)))
    for name, one in {"as it was": model, "without mood": numb, "without a random direction": noise}.items():
        shares = [float(says(words(mood))(one, reviews.tried[kind]).mean()) for kind, mood in MOODS.items()]
        table.add_row(name, f"{100 * sum(shares) / 2:.0f}%", f"{float((nats(one, text) - plain).mean()):.3f}")
    console().print(table, f"largest difference of a logit: baked {apart[0]:.1e}, saved and loaded {apart[1]:.1e}, "
                           f"not ablated {apart[2]:.2f}")  # fmt: skip
    return max(apart[:2]) < 1e-4


def console() -> Console:
    """Wide enough for the tables, where nobody watches."""
    return Console(width=None if sys.stdout.isatty() else 190, highlight=False)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("sentiment", "topics", "methods", "functions", "ablation"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load("specimen:town")
    work = {"sentiment": lambda: sentiment(model, options.seeds), "topics": lambda: topics(model),
            "methods": lambda: methods(model),
            "functions": lambda: function_vectors(model, options.seeds), "ablation": lambda: ablation(model)}  # fmt: skip
    met = work[options.what]()
    if not met:
        console().print("[red]a mark is missed")
        sys.exit(1)


if __name__ == "__main__":
    main()
