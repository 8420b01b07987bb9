"""The framework of transformer circuits, step by step: each identity of its derivation as a number, on models that are known.

Elhage et al. 2021 take models of attention layers alone apart: without layers the table of bigrams, with one layer
skip-trigrams and their bugs, with two layers heads that compose. Hofstaetter 2023 reads a model that names the largest number
of a list in that way, and Gross et al. 2024 bound such a model's accuracy from its weights. The models are of our own making:
drawn at random where an identity must hold of any, taught in seconds, or the bundled `maximum`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch

from patchclamp.core.agreement import rank_correlation
from patchclamp.matrix.circuit import direct
from patchclamp.matrix.frozen import Frozen
from patchclamp.matrix.maximum import Recipe, train
from patchclamp.matrix.paths import list_paths
from patchclamp.matrix.scores import composition, copying
from patchclamp.matrix.tables import Tables, accuracy, bound
from patchclamp.matrix.trigrams import Trigrams
from patchclamp.matrix.worlds import ENDINGS, RULES, bigrams, ending, network, skip_trigrams, table
from patchclamp.model.load import load
from patchclamp.model.model import Model
from patchclamp.papers.claims import Asked, Mark, Measured, Paper, claim

ELHAGE = "Elhage et al. 2021, A Mathematical Framework for Transformer Circuits"
HOFSTAETTER = "Hofstaetter 2023, Explaining the Transformer Circuits Framework by Example"
GROSS = "Gross et al. 2024, Compact Proofs of Model Performance via Mechanistic Interpretability"
UNTRAINED = "the same network before training"


def _drawn(seed: int, layers: int = 2) -> Model:
    """Attention layers alone, with weights drawn large enough that patterns are not flat."""
    module = network(seed, layers=layers, heads=4, d_model=32, positional="learned", length=12)
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return load(module)


def _seeds(asked: Asked) -> range:
    return range(1 if asked.quick else asked.seeds)


# ---- no layer, any number of layers ------------------------------------------------------------------------------------


@claim("A model without layers is the table of bigrams.", source=ELHAGE, mark=Mark(high=0.02), control=UNTRAINED)
def no_layer_is_a_table_of_bigrams(asked: Asked) -> Measured:
    """The worst divergence of W_E W_U from the successors that a model was taught, in nats a token."""

    def missed(model: Model, seed: int) -> float:
        said = direct(model).factored.full().log_softmax(-1)
        return float((table(seed) * (table(seed).log() - said)).sum(-1).mean())

    found = [missed(bigrams(seed), seed) for seed in _seeds(asked)]
    blank = [missed(load(network(seed, layers=0)), seed) for seed in _seeds(asked)]
    return Measured(max(found), min(blank))


@claim("With its patterns held, a model of attention layers is the sum of its paths.", source=ELHAGE, mark=Mark(high=1e-4),
       control="the same sum without paths through two heads or more")  # fmt: skip
def paths_add_up_to_the_logits(asked: Asked) -> Measured:
    """The largest error of any logit at any token, over models with random weights and two or three layers."""
    worst, short = 0.0, math.inf
    for seed in _seeds(asked):
        model = _drawn(seed, layers=2 + seed % 2)
        frozen = Frozen.of(model, torch.randint(16, (2, 10), generator=torch.Generator().manual_seed(seed)))
        made = [(name.count("→"), frozen.logits(stream)) for name, stream in list_paths(frozen)]
        worst = max(worst, float((sum(x for _, x in made) - frozen.run.logits).abs().max()))
        few = torch.stack([x for heads, x in made if heads < 2]).sum(0)
        short = min(short, float((few - frozen.run.logits).abs().max()))
    return Measured(worst, short)


# ---- one layer ---------------------------------------------------------------------------------------------------------


@claim("A head that knows two skip-trigrams of one word has their bugs: it says the ending of the one after the other.",
       source=ELHAGE, mark=Mark(low=2), control="the same endings without the early word")  # fmt: skip
def skip_trigrams_have_bugs(asked: Asked) -> Measured:
    """How many times likelier than the likeliest ending of no rule of the word a bug is, in the worst of four; no bug is ever
    seen in training."""
    worst, other, rows = math.inf, 0.0, []
    for seed in _seeds(asked):
        model = skip_trigrams(seed)
        wanted = [(word, query, out) for (word, query), out in RULES.items()]
        for bug in Trigrams.of(model, "blocks.0.attn.z[head=0]").bugs(wanted):
            word, query, out = int(bug.source), int(bug.query), int(bug.out)
            mine = {o for (w, _), o in RULES.items() if w == word}
            rest = [e for e in ENDINGS if e not in mine]
            said, bare = ending(model, word, query), ending(model, 0, query)
            times = float(said[out] / said[rest].max())
            worst, other = min(worst, times), max(other, float(bare[out] / bare[rest].max()))
            rows.append((seed, f"{word} ... {query} -> {out}", bug.strength, float(said[out]), times))
    return Measured(worst, other, columns=("seed", "bug", "strength", "probability", "times likelier"), rows=tuple(rows))


# ---- two layers --------------------------------------------------------------------------------------------------------


@claim("Where a head reads what another writes, the composition score says so.", source=ELHAGE, mark=Mark(low=5),
       control="heads whose weights are random")  # fmt: skip
def composition_is_seen_in_the_weights(asked: Asked) -> Measured:
    """The score of a planted pair (as query, key and value), in spreads above random pairs; the least. Of the others, the
    largest."""
    least, largest = math.inf, 0.0
    for seed in _seeds(asked):
        for letter in "qkv":
            model = _drawn(seed)
            one, two = (block.attn for block in model.hf.blocks)  # type: ignore[union-attr]
            lens = torch.linalg.qr(torch.randn(32, 8, generator=torch.Generator().manual_seed(seed)))[0]
            one.o.weight.data[:, 8:16], getattr(two, letter).weight.data[:8] = lens, lens.T
            above = composition(model, letter, draws=50).details["above"].clone()
            least = min(least, float(above[0, 1]))
            others = above[1:]  # the planted reader hears its writer so well that it hears the others less
            largest = max(largest, float(others.abs().max()))
    return Measured(least, largest)


# ---- a model read whole ------------------------------------------------------------------------------------------------


def _maximum(asked: Asked) -> list[tuple[Tables, Tables]]:
    """The tables of the shipped network and of others by its recipe, each beside its own before training."""
    return [_one(seed) for seed in _seeds(asked)]


@lru_cache
def _one(seed: int) -> tuple[Tables, Tables]:
    recipe = Recipe(seed=seed)
    made = load("specimen:maximum") if seed == 0 else train(recipe)
    return Tables.of(made), Tables.of(load(recipe.network().eval()))


@claim("In a model that names the largest number, OV copies: nearly every row is largest on the diagonal.", source=HOFSTAETTER,
       mark=Mark(low=60 / 64), control=UNTRAINED)  # fmt: skip
def values_copy(asked: Asked) -> Measured:
    """The share of tokens that raise their own logit most, in the worst of the networks."""

    def share(tables: Tables) -> float:
        return float((tables.values.argmax(1) == torch.arange(tables.vocab)).double().mean())

    pairs = _maximum(asked)
    return Measured(min(share(t) for t, _ in pairs), max(share(b) for _, b in pairs))


@claim("And it copies by positive eigenvalues.", source=ELHAGE, mark=Mark(low=0.9), control=UNTRAINED)
def eigenvalues_are_positive(asked: Asked) -> Measured:
    """The copying score of the shipped network's head."""
    score = float(copying(load("specimen:maximum")).values[0, 0])
    return Measured(score, float(copying(load(Recipe().network().eval())).values[0, 0]))


@claim("QK looks at larger numbers, whoever asks.", source=HOFSTAETTER, mark=Mark(low=0.99), control=UNTRAINED)
def scores_are_in_order(asked: Asked) -> Measured:
    """The rank correlation of a query's scores with the numbers; the least over queries and networks."""

    def least(tables: Tables) -> float:
        return min(rank_correlation(row, torch.arange(tables.vocab)) for row in tables.scores)

    pairs = _maximum(asked)
    return Measured(min(least(t) for t, _ in pairs), max(least(b) for _, b in pairs))


@claim("Both circuits can be exchanged for the algorithm: one slope for scores, one number for values.", source=HOFSTAETTER,
       mark=Mark(low=0.99), control="the same with the slope turned round")  # fmt: skip
def the_ideal_does_as_well(asked: Asked) -> Measured:
    """The share of all pairs that are answered rightly, in the worst of the networks."""
    ideals = [tables.ideal() for tables, _ in _maximum(asked)]
    turned = [replace(ideal, scores=-ideal.scores) for ideal in ideals]
    return Measured(min(map(accuracy, ideals)), max(map(accuracy, turned)))


@claim(
    "Its accuracy is bounded from its weights, far more cheaply than by trying.",
    source=GROSS,
    mark=Mark(low=0.5),
    control=UNTRAINED,
)
def accuracy_is_bounded_from_the_weights(asked: Asked) -> Measured:
    """The share of all pairs known to be answered rightly, in the worst of the networks; the cases hold the truth beside it."""
    rows, least, blank = [], 1.0, 0.0
    for seed, (tables, untrained) in enumerate(_maximum(asked)):
        for length in (2, 3):
            known, true = bound(tables, length), accuracy(tables, length)
            rows.append((seed, length, known.share, true, known.brute / known.work))
            if known.share > true:
                return Measured(float("nan"), 0.0, "a bound above the truth")
        least, blank = min(least, bound(tables).share), max(blank, bound(untrained).share)
    columns = ("seed", "length", "known", "true", "times cheaper than trying")
    return Measured(least, blank, columns=columns, rows=tuple(rows))


PAPER = Paper(
    "framework", "A framework for transformer circuits, step by step", f"{ELHAGE}; {HOFSTAETTER}; {GROSS}",
    (no_layer_is_a_table_of_bigrams, paths_add_up_to_the_logits, skip_trigrams_have_bugs, composition_is_seen_in_the_weights,
     values_copy, eigenvalues_are_positive, scores_are_in_order, the_ideal_does_as_well, accuracy_is_bounded_from_the_weights),
)  # fmt: skip
