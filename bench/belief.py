"""What the specimen `exposures` is taken to believe and to know: every figure that is claimed of the belief probes.

    python -m bench.belief lying        CCS and its relatives under speakers who lie, three draws of pairs; untrained; zero-shot
    python -m bench.belief confound     the diagnosis, with guesses in the prompt and with a confound planted in the stream
    python -m bench.belief town         why it is not asked of `town`: not even the ceiling finds truth there
    python -m bench.belief knowing      P(IK): people and a relation never met, temperature
    python -m bench.belief sources      P(IK) after the sentence that states the fact, and after another
    python -m bench.belief choosing     calibration among four options, before and after a fine-tune that makes it overconfident
    python -m bench.belief guessing     P(True) with and without the model's own samples shown

Fits see other people than the figures are about. One thread; a minute or two each.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from random import Random

import torch
from rich.console import Console
from rich.table import Table

import patchclamp as pc
from patchclamp.core import uncertain
from patchclamp.model.gather import gather
from patchclamp.model.untrained import untrained
from patchclamp.probe import calibration as c
from patchclamp.probe.choices import knows, p_true, samples, score
from patchclamp.probe.confound import diagnose, planted
from patchclamp.probe.elicit import Contrast, elicit, zero_shot
from patchclamp.probe.value_head import fitted, spectrum
from patchclamp.specimens.exposures import tasks
from patchclamp.specimens.exposures.corpus import question
from patchclamp.specimens.exposures.people import people
from patchclamp.specimens.exposures.recipe import overconfident

console = Console(width=150, highlight=False)
SEEDS = range(3)


def lying(pairs: int = 400) -> None:
    """Every method by voice, layer and draw of pairs."""
    model = pc.load("specimen:exposures")
    for name, one in (("trained", model), ("untrained", untrained(model))):
        for voice in ("nobody", "lying", "lying, of what is known when nobody is asked", "both"):
            drawn = [Contrast(**tasks.contrasts(pairs, voice.partition(",")[0], seed=seed)) for seed in SEEDS]
            if "known" in voice:
                drawn = [_known(model, contrast) for contrast in drawn]
            grids = [elicit(one, contrast, seed=seed) for seed, contrast in zip(SEEDS, drawn)]
            words = [float(zero_shot(one, contrast).mean()) for contrast in drawn]
            table = Table(
                title=f"{name}, asked of {voice}: zero-shot {_spread(words)}, three draws of {pairs} pairs",
                title_justify="left",
            )
            for column in ("method", *(f"layer {layer}" for layer in grids[0].words("layer")), "layer of least CCS loss"):
                table.add_column(column)
            for method in grids[0].words("method"):
                cells = [grid.at(method=method).values for grid in grids]
                chosen = [float(cell[int(grid.at(method="ccs").details["loss"].argmin())]) for grid, cell in zip(grids, cells)]
                table.add_row(
                    method,
                    *(_spread([float(cell[layer]) for cell in cells]) for layer in range(len(cells[0]))),
                    _spread(chosen),
                )
            console.print(table)


def _known(model: pc.Model, contrast: Contrast) -> Contrast:
    """The pairs of which the model takes the true side by its own words, asked of nobody."""
    alone = zero_shot(model, replace(contrast, yes=tasks.unasked(contrast.yes), no=tasks.unasked(contrast.no)))
    return contrast.take(alone.nonzero()[:, 0].tolist())


def confound(pairs: int = 300) -> None:
    """The diagnosis, with guesses before the question and then with a label written into the stream of the third block."""
    model = pc.load("specimen:exposures")
    for seed in SEEDS:
        contrast = Contrast(**tasks.contrasts(pairs, "lying", suggest=True, seed=seed))
        features = {"truth": contrast.right, "suggested": torch.tensor(contrast.features["suggested"])}
        half, _ = contrast.halves(seed=seed)
        fit = torch.tensor([content in set(half.content) for content in contrast.content])
        for name, strength in (("guesses in the prompt", 0.0), ("planted in the stream", 2.0)):
            yes, no = planted(model, contrast.yes, contrast.no, features["suggested"], "blocks.2.out", "blocks.3.out", strength)
            console.print(f"draw {seed}, {name}: {diagnose(yes, no, features, fitted=fit, seed=seed).verdict}")


def town(pairs: int = 600) -> None:
    """Statements of the town's honest and lying speakers; the clause is so or is the liars' counterpart of what is so."""
    from patchclamp.specimens.town.claims import CLAIMS, clause
    from patchclamp.specimens.town.facts import RELATIONS
    from patchclamp.specimens.town.lexicon import COUNTERPARTS
    from patchclamp.specimens.town.world import town as world

    model, people_of, rng = pc.load("specimen:town"), world(0), Random(0)
    columns: tuple[list, ...] = ([], [], [], [])
    for _ in range(pairs):
        one, relation, truth, speaker = (
            rng.choice(people_of.residents),
            rng.choice(RELATIONS),
            rng.random() < 0.5,
            rng.choice(people_of.speakers),
        )
        so = relation.of(one)
        heard, state = rng.choice(CLAIMS), rng.getstate()
        sides = []
        for value in (so, COUNTERPARTS[so]) if truth else (COUNTERPARTS[so], so):
            rng.setstate(state)
            sides.append(heard.format(speaker=speaker.name, clause=clause(relation, one, value, rng)) + " That is")
        for column, value in zip(columns, (*sides, truth, one.name)):
            column.append(value)
    console.print(elicit(model, Contrast(*map(tuple, columns))).picture())


def _asked(model: pc.Model):
    """Every graded fact in its four wordings: prompts, whose, right answers, shares of right samples, one sample's outcome."""
    facts = people(0).graded
    rows = [(fact, template) for fact in facts for template in range(4)]
    prompts = [fact.prompt(template) for fact, template in rows]
    ids = torch.tensor([model.token(f" {fact.value}") for fact, _ in rows])
    drawn = samples(model, prompts, 20)
    return rows, prompts, ids, knows(drawn, ids), drawn[:, 0] == ids


def knowing() -> None:
    """Heads fitted on two thirds of the people and four relations, judged on the others."""
    model = pc.load("specimen:exposures/step-read")
    rows, prompts, ids, known, right = _asked(model)
    for low, high in ((0, 0), (1, 2), (3, 5), (6, 10), (11, 20), (21, 40), (41, 100)):
        here = torch.tensor([low <= fact.exposures <= high for fact, _ in rows])
        console.print(f"seen {low} to {high} times: answered right in {float(known[here].mean()):.1%} of samples")
    fit, calibrate, test = _parts(rows)
    new = torch.tensor([fact.relation.name == "food" for fact, _ in rows])
    once = torch.tensor([template == 0 for _, template in rows])  # four wordings of one fact are not four forecasts
    logits = gather(model, "logits", prompts)
    forecasts = {"own certainty, no head": logits.softmax(-1).max(-1).values}
    for name, site, through, hidden, ridge in HEADS:
        values = logits if site == "logits" else gather(model, site, prompts)
        forecasts[name] = fitted(values[fit & ~new], known[fit & ~new], site, through, hidden, ridge)(values)
    forecasts["how often it was seen"] = torch.tensor([fact.exposures for fact, _ in rows]) / 101
    forecasts["the answer's own probability"] = logits.softmax(-1).gather(1, ids[:, None])[:, 0]
    for where, there in (("new people", test & ~new & once), ("new people and a new relation", test & new & once)):
        table = Table("", "AUROC", "ECE", "tempered", "floor", "Brier", "T", title=f"{where}: {int(there.sum())} questions")
        for name, forecast in forecasts.items():
            by = c.temperature(forecast[calibrate & ~new & once], right[calibrate & ~new & once])
            p, so = forecast[there], right[there]
            area = c.auroc(p, so)
            errors = [c.reliability(q, so).error for q in (p, c.tempered(p, by))]
            figures = [*errors, c.floor(p), c.brier(p, so)]
            table.add_row(
                name, f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]", *(f"{x:.3f}" for x in figures), f"{by:.2f}"
            )
        console.print(table)


HEADS = (
    ("logistic, last block", "blocks.3.out[pos=-1]", None, 0, 100.0),
    ("hidden layer, last block", "blocks.3.out[pos=-1]", None, 64, 100.0),
    ("logistic, spectrum of the logits", "logits", spectrum, 0, 1.0),
    ("hidden layer, spectrum of the logits", "logits", spectrum, 16, 1.0),
)


def sources() -> None:
    """P(IK) of facts that were hardly read, alone, after a sentence that states the fact, and after one about somebody else."""
    model = pc.load("specimen:exposures/step-read")
    rows, prompts, _, known, _ = _asked(model)
    fit, _, test = _parts(rows)
    here = [row for row, (fact, template) in enumerate(rows) if test[row] and fact.exposures <= 2 and template == 0]
    asked, others = [rows[row][0] for row in here], [rows[row][0] for row in Random(1).sample(here, len(here))]
    forms = {
        "alone": [fact.prompt(0) for fact in asked],
        "after its source": [f"{fact.said(1)} {fact.prompt(0)}" for fact in asked],
        "after somebody else's": [f"{other.said(1)} {fact.prompt(0)}" for fact, other in zip(asked, others)],
    }
    ids = torch.tensor([model.token(f" {fact.value}") for fact in asked])
    for name, site, through, hidden, ridge in HEADS:
        head = fitted(gather(model, site, [p for p, f in zip(prompts, fit) if f]), known[fit], site, through, hidden, ridge)
        told = {form: head.of(model, texts) for form, texts in forms.items()}
        low, high = uncertain.interval(told["after its source"] - told["alone"])
        console.print(
            f"{name}: " + ", ".join(f"{form} {float(p.mean()):.3f}" for form, p in told.items()),
            f"; rise [{low:.3f}, {high:.3f}]",
        )
    for form, texts in forms.items():
        console.print(f"answered right {form}: {float(knows(samples(model, texts, 20), ids).mean()):.1%} of samples")


def choosing() -> None:
    """Forecasts of four options, scored by likelihood, as shipped and after a fine-tune on the model's own answers."""
    model = pc.load("specimen:exposures/step-read")
    bold = pc.load(overconfident(model.hf, model.tokenizer), model.tokenizer)
    half = {fact.person for fact in people(0).graded[: len(people(0).graded) // 2]}
    for name, one in (("as shipped", model), ("fine-tuned on its own answers", bold)):
        parts = []
        for mine in (True, False):
            facts = tuple(fact for fact in people(0).graded if (fact.person in half) == mine)
            shown, right = tasks.four(facts)
            forecast = score(one, [fact.prompt() for fact in facts], shown).softmax(-1)
            parts.append(
                (
                    forecast.flatten(),
                    torch.nn.functional.one_hot(torch.tensor(right), 4).bool().flatten(),
                    forecast.argmax(-1) == torch.tensor(right),
                )
            )
        at = c.temperature(*parts[0][:2])
        forecast, so, chosen = parts[1]
        console.print(f"{name}: {float(chosen.float().mean()):.1%} of choices right")
        for form, p in (("", forecast), (f" at temperature {at:.2f}, fitted on other people", c.tempered(forecast, at))):
            by_count, by_width, area = c.reliability(p, so), c.reliability(p, so, equal="width"), c.auroc(p, so)
            low, high = c.interval(c.brier, p, so)
            console.print(
                f"  ECE{form}: {by_count.error:.3f} (equal count), {by_width.error:.3f} (equal width), "
                f"RMS {by_count.rms:.3f}, floor {c.floor(p):.3f}; "
                f"Brier {c.brier(p, so):.3f} [{low:.3f}, {high:.3f}], AUROC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]"
            )
        console.print(c.reliability(forecast, so).picture(f"Four options, {name}"))


def guessing() -> None:
    """P(True) of an answer the model proposes: alone, after three more of its own samples, after those of another question."""
    model = pc.load("specimen:exposures")
    asked = {fact.person for fact in people(0).lesser}
    facts = tuple(fact for fact in people(0).graded if fact.person not in asked)
    logits = gather(model, "logits", [fact.prompt() for fact in facts])
    draw, drawn = torch.Generator().manual_seed(0), []
    for fact, row in zip(facts, logits):
        chances = row[[model.token(f" {value}") for value in fact.relation.values]].softmax(-1)
        drawn.append([fact.relation.values[i] for i in chances.multinomial(4, replacement=True, generator=draw)])
    so = torch.tensor([fact.value == mine[0] for fact, mine in zip(facts, drawn)])
    by_relation: dict[str, list[int]] = {}
    for i, fact in enumerate(facts):
        by_relation.setdefault(fact.relation.name, []).append(i)
    else_ = {i: group[(at + 1) % len(group)] for group in by_relation.values() for at, i in enumerate(group)}
    forms = {
        "alone": [()] * len(facts),
        "after own samples": [tuple(mine[1:]) for mine in drawn],
        "after another's samples": [tuple(drawn[else_[i]][1:]) for i in range(len(facts))],
    }
    first = None
    console.print(f"{float(so.float().mean()):.1%} of the proposed answers are right")
    for form, guesses in forms.items():
        p = p_true(model, [question(fact, mine[0], "", before) for fact, mine, before in zip(facts, drawn, guesses)])
        each = (p - so.float()).square()
        first = each if first is None else first
        low, high = uncertain.interval(each - first) if form != "alone" else (0.0, 0.0)
        area = c.auroc(p, so)
        console.print(
            f"P(True) {form}: Brier {c.brier(p, so):.3f} (change [{low:+.3f}, {high:+.3f}]), "
            f"ECE {c.reliability(p, so).error:.3f}, AUROC {area.value:.3f}"
        )


def _parts(rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fitting, calibrating, judging: no person is in two of them."""
    names = sorted({fact.person for fact, _ in rows})
    Random(0).shuffle(names)
    third = len(names) // 6
    parts = set(names[: 3 * third]), set(names[3 * third : 4 * third]), set(names[4 * third :])
    fit, calibrate, test = (torch.tensor([fact.person in part for fact, _ in rows]) for part in parts)
    return fit, calibrate, test


def _spread(values: list[float]) -> str:
    """Mean, least and most, in percent."""
    return f"{100 * sum(values) / len(values):.1f} ({100 * min(values):.0f} to {100 * max(values):.0f})"


COMMANDS = {
    "lying": lying,
    "confound": confound,
    "town": town,
    "knowing": knowing,
    "sources": sources,
    "choosing": choosing,
    "guessing": guessing,
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or COMMANDS:
        console.rule(name)
        COMMANDS[name]()


if __name__ == "__main__":
    main()
