"""The command line: `patchclamp examine`, `effects`, ... A user's mistake prints its message, never a stack trace."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown",
                  context_settings={"help_option_names": ["-h", "--help"]})  # fmt: skip

Where = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A hub name, a local folder, or a bundled specimen such as `specimen:town`."),
]
RemoteCode = Annotated[bool, typer.Option("--remote-code", help="Let the model's repository run Python code of its own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Out = Annotated[Path, typer.Option(help="Where the HTML report goes.")]
Clean = Annotated[str | None, typer.Option(help="A prompt that the model answers; token ids for a model without a tokenizer.")]
Corrupt = Annotated[str | None, typer.Option(help="The same prompt with one thing changed, of as many tokens.")]
Answer = Annotated[str | None, typer.Option(help="The right answer, or its token id; what the model says, unless given.")]
Wrong = Annotated[str | None, typer.Option(help="The wrong answer, or its id; what the corrupt prompt gets, unless given.")]
Task = Annotated[str | None, typer.Option(help="In place of two prompts: pairs of a task, such as `ioi` or `town/ioi`.")]
Pairs = Annotated[Path | None, typer.Option(help="In place of two prompts: a JSON file of prompt pairs, or of a relation.")]
Count = Annotated[int | None, typer.Option(help="How many pairs: 20 of a task, unless given, and all of a file.")]
Seed = Annotated[int, typer.Option(help="Which pairs are drawn, and every other choice by lot.")]
MetricName = Annotated[
    str | None, typer.Option("--metric", help="What is measured of the answer: logit_diff, prob, nll, kl, logit or rank.")
]
Resume = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where finished answers are kept; the same command goes on from there.")
]


def main() -> None:
    """What the `patchclamp` command runs."""
    from patchclamp.core.errors import PatchclampError

    try:
        app()
    except PatchclampError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


@app.callback()
def _patchclamp() -> None:
    """Read any place in a transformer's forward pass, change it, and ask how much it mattered."""


@app.command()
def examine(
    model: Where,
    prompt: Annotated[
        str,
        typer.Argument(metavar="PROMPT", help="The text to open the model on; token ids for a model without a tokenizer."),
    ],
    against: Annotated[
        str | None, typer.Option(help="A second prompt of as many tokens: which places make the difference?")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="The token to explain, or its id; what the model says, unless given.")
    ] = None,
    wrong: Annotated[str | None, typer.Option(help="The token it is compared with, or its id.")] = None,
    parts: Annotated[str, typer.Option(help="Further patching maps of the heads: any of q,k,v,pattern.")] = "",
    out: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("report.html"),
    remote_code: RemoteCode = False,
    as_json: Json = False,
) -> None:
    """Open a model on a prompt and show what it does inside.

    Prints a summary and writes one self-contained HTML page: predictions, the logit lens, who writes the answer, what the
    heads look at and, with `--against`, which places carry the difference between the two prompts.

        patchclamp examine specimen:town "Mary and John went to the"

        patchclamp examine gpt2 "The Eiffel Tower is in" --out tower.html

        patchclamp examine specimen:town "When Mary and John went to the store, John gave a drink to" \\
            --against "When Mary and John went to the store, Mary gave a drink to" --answer " Mary" --wrong " John"

    With `--json` the numbers go to standard output: `model`, `facts`, `tokens`, `readings` and `left_out` (by section),
    `grids` (by name: axes, labels, unit, values), and `report`, where the page is.
    """
    from patchclamp.app.asked import prompt as read
    from patchclamp.app.asked import word
    from patchclamp.app.examine import examine as look

    asked, out = _parts(parts), _writable(out)  # before anything that takes long
    opened = _opened(model, remote_code)
    prompts = read(opened, prompt), read(opened, against)
    found = look(opened, *prompts, word(opened, answer), word(opened, wrong), asked)
    _write(found.page().html(), out)
    if as_json:
        print(_json({**found.json(), "report": str(out)}))
        return
    found.summary().show()
    print(f"\nReport: {out}")


@app.command()
def effects(
    model: Where,
    clean: Clean = None,
    corrupt: Corrupt = None,
    answer: Answer = None,
    wrong: Wrong = None,
    task: Task = None,
    pairs: Pairs = None,
    count: Count = None,
    seed: Seed = 0,
    sites: Annotated[
        list[str] | None, typer.Option(help="A pattern of places; may be given several times. Every star is an axis.")
    ] = None,
    metric: MetricName = None,
    estimate: Annotated[str, typer.Option(help="exact: place by place; gradient: all at once, to first order.")] = "exact",
    by: Annotated[
        str, typer.Option(help="What a place is given: patch (the other prompt's value), zero, mean, resample or noise.")
    ] = "patch",
    window: Annotated[int, typer.Option(help="How many neighbouring layers are changed at once.")] = 1,
    sever: Annotated[
        list[str] | None, typer.Option(help="Let nothing pass through these layers: attn, mlp. May be given twice.")
    ] = None,
    noising: Annotated[bool, typer.Option("--noising", help="Patch the corrupt run into the clean one instead.")] = False,
    out: Out = Path("effects.html"),
    resume: Resume = None,
    remote_code: RemoteCode = False,
    as_json: Json = False,
) -> None:
    """Which places carry an answer, and how sure is that?

    Puts what a place holds in the clean run into the corrupt run, place by place, and says what share of the answer comes
    back. One pair is mapped over the stream, layer by token; many pairs over the heads, with intervals from five pairs on.

        patchclamp effects specimen:town --clean "When Mary and John went to the store, John gave a drink to" \\
            --corrupt "When Mary and John went to the store, Mary gave a drink to"

        patchclamp effects specimen:town --task town/ioi --count 30 --sites "blocks.*.attn.q[head=*]"

        patchclamp effects gpt2 --pairs pairs.json --by mean --metric prob --out heads.html

    Stopped by Ctrl-C, it says where the finished cells are; the same command with `--resume FOLDER` goes on from there and
    comes to the same numbers. With `--json` the numbers go to standard output: `model`, `facts`, `readings` and `grids` (by
    pattern: axes, labels, unit, values, baseline, and in `details` the ends of the intervals and the p-values), and `report`.
    """
    from patchclamp.app.asked import Source, read
    from patchclamp.app.effect_report import How, effect_report, planned
    from patchclamp.app.work import resumable, say

    source = Source(clean, corrupt, answer, wrong, task, pairs, count, seed).checked(corrupt=by == "patch")
    how, out = How(tuple(sites or ()), metric, estimate, by, window, tuple(sever or ()), noising).checked(), _writable(out)
    asked = read(_opened(model, remote_code), source)
    say(*planned(asked, how))
    with resumable(resume, out, asked.card("effects", **vars(how))):
        _deliver(effect_report(asked, how), out, as_json)


@app.command()
def circuit(
    model: Where,
    clean: Clean = None,
    corrupt: Corrupt = None,
    answer: Answer = None,
    wrong: Wrong = None,
    task: Task = None,
    pairs: Pairs = None,
    count: Count = None,
    seed: Seed = 0,
    method: Annotated[str, typer.Option(help="How edges are weighed: eap, eap-ig, exact, acdc or mask (learned).")] = "eap-ig",
    threshold: Annotated[
        float | None,
        typer.Option(help="Keep edges of at least this weight; with acdc, how far cutting one may move the metric."),
    ] = None,
    edges: Annotated[int | None, typer.Option(help="Keep this many of the strongest edges.")] = None,
    share: Annotated[float | None, typer.Option(help="Keep this share of all edges, the strongest.")] = None,
    faithful: Annotated[
        float | None, typer.Option(help="Keep as few edges as hold this share of the answer: 0.9, unless told otherwise.")
    ] = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="Rank by weight, what supports the answer first, not by size.")
    ] = False,
    metric: MetricName = None,
    random: Annotated[int, typer.Option(help="How many random circuits of the same size to compare with.")] = 20,
    out: Out = Path("circuit.html"),
    mib: Annotated[Path | None, typer.Option(help="Write the circuit in the MIB benchmark's JSON, too.")] = None,
    save: Annotated[Path | None, typer.Option(help="Save the circuit to a folder, for Graph.load.")] = None,
    resume: Resume = None,
    remote_code: RemoteCode = False,
    as_json: Json = False,
) -> None:
    """Which subgraph does the work? Finds it, runs it by itself, and compares it with random ones.

    Edges join the embedding, heads, feed-forward layers and logits. One that is cut carries what it carries in the corrupt
    run; the circuit is what is left whole. A task's circuit is also run on pairs that were not used to find it.

        patchclamp circuit specimen:town --task town/ioi

        patchclamp circuit specimen:town --method acdc --threshold 0.2 \\
            --clean "When Mary and John went to the store, John gave a drink to" \\
            --corrupt "When Mary and John went to the store, Mary gave a drink to"

        patchclamp circuit gpt2 --task ioi --count 50 --share 0.02 --mib ioi.json --save ioi-circuit

    Stopped by Ctrl-C, it says where the finished work is; the same command with `--resume FOLDER` goes on from there and comes
    to the same circuit. With `--json`: `model`, `facts`, `readings`, `verdict` (edges, share, faithfulness, complement, random,
    p_value), `circuit` (nodes and edges), `beyond` (the verdict on other pairs), `curve` (with CPR and CMD), and `report`.
    """
    from patchclamp.app.asked import Source, others, read
    from patchclamp.app.circuit_report import How, circuit_report, planned
    from patchclamp.app.work import resumable, say

    source = Source(clean, corrupt, answer, wrong, task, pairs, count, seed).checked()
    how = How(method, threshold, edges, share, faithful, metric, random, signed, seed).checked()
    out, mib, save = _writable(out), mib and _writable(mib), _folder(save)
    opened = _opened(model, remote_code)
    asked, fresh = read(opened, source), others(opened, source)
    say(planned(asked, how))
    with resumable(resume, out, asked.card("circuit", **vars(how))):
        _deliver(circuit_report(asked, how, fresh, mib, save), out, as_json)


@app.command()
def debug(
    model: Where,
    wrong: Annotated[Path, typer.Option(metavar="FILE", help="Examples that are answered wrong, one JSON object a line.")],
    right: Annotated[Path | None, typer.Option(metavar="FILE", help="Controls that are answered right, likewise.")] = None,
    by: Annotated[
        str, typer.Option(help="How a part is taken away: mean (its average over the controls) or resample.")
    ] = "mean",
    random: Annotated[int, typer.Option(help="How many other parts the same edit is tried on, drawn by lot.")] = 5,
    seed: Seed = 0,
    out: Out = Path("debug.html"),
    save: Annotated[Path | None, typer.Option(help="Save the edit to a folder, for Edit.load.")] = None,
    resume: Resume = None,
    remote_code: RemoteCode = False,
    as_json: Json = False,
) -> None:
    """Which part makes a model wrong, what mends it, and at what cost?

    Every head and layer is given, by itself, what it holds on the controls. The part that helps most is edited in three ways;
    half of the examples and controls, not used to find it, say how many are mended and what is lost.

        patchclamp debug specimen:town --wrong wrong.jsonl --right right.jsonl

        patchclamp debug gpt2 --wrong wrong.jsonl --right right.jsonl --save cure --json

    A line of a file is `{"prompt": "The Eiffel Tower is in", "answer": " Paris"}`. With `--json`: `model`, `facts`, `readings`,
    `parts` (what the right answer gains without each), `cures` (site, kind, fixed, cost; the best first), `others`, `report`.
    """
    from patchclamp.app.asked import one_of
    from patchclamp.app.debug_report import debug_report, examples, planned
    from patchclamp.app.work import resumable, say
    from patchclamp.core.journal import digest
    from patchclamp.model.measure import fingerprint
    from patchclamp.task.load import load_examples

    out, save = _writable(out), _folder(save)
    one_of("--by", by, ("mean", "resample"))
    files = {path: load_examples(path) for path in (wrong, right) if path is not None}
    opened = _opened(model, remote_code)
    known = {path: examples(opened, pairs, path) for path, pairs in files.items()}
    mine, controls = known[wrong], known[right] if right is not None else []
    say(planned(opened, mine, controls))
    card = {"command": "debug", "model": opened.name, "weights": fingerprint(opened), "examples": digest(mine, controls),
            "by": by, "random": random, "seed": seed}  # fmt: skip
    with resumable(resume, out, card):
        _deliver(debug_report(opened, mine, controls, by, random, seed, save), out, as_json)


@app.command()
def heads(
    model: Where,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts that repeat words, one a line; random tokens unless given.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="In place of a file: the prompts of a task, such as `town/parrot`.")] = None,
    movers: Annotated[str | None, typer.Option(help="Look for name movers, too, on a task such as `town/ioi`.")] = None,
    count: Annotated[int, typer.Option(help="How many prompts.")] = 16,
    checkpoints: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A folder of step-... folders: when did the model learn that?")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained/--no-untrained", help="Whether an untrained copy is measured beside it.")
    ] = True,
    seed: Seed = 0,
    out: Out = Path("heads.html"),
    resume: Resume = None,
    remote_code: RemoteCode = False,
    as_json: Json = False,
) -> None:
    """Which heads does a model have? Induction, previous token, copying, sinks ..., each with its evidence and its control.

    Heads are named by what they look at and what they bring from there, on random tokens that are repeated or on prompts of
    your own, and what the model loses without each is measured exactly.

        patchclamp heads gpt2

        patchclamp heads specimen:town --task town/parrot --movers town/ioi

        patchclamp heads my-model --checkpoints my-model --json

    With `--json`: `model`, `facts`, `readings`, `heads` (each with its name, score, control, and effect in nats), `grids`
    (`heads` with every score and control in its details, `spread`, and `checkpoints`), and `report`.
    """
    from patchclamp.app.heads_report import How, heads_report
    from patchclamp.app.work import resumable
    from patchclamp.model.measure import fingerprint

    how, out = How(prompts, task, movers, count, checkpoints, untrained, seed).checked(), _writable(out)
    opened = _opened(model, remote_code)
    asked = {name: str(said) for name, said in vars(how).items()}
    card = {"command": "heads", "model": opened.name, "weights": fingerprint(opened), **asked}
    with resumable(resume, out, card):
        _deliver(heads_report(opened, how), out, as_json)


@app.command()
def blimp(
    model: Where,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of BLiMP's JSONL files, one a paradigm, or one such file.")
    ],
    limit: Annotated[int | None, typer.Option(help="Only the first so many pairs of each paradigm.")] = None,
    bos: Annotated[
        bool, typer.Option("--bos/--no-bos", help="Whether the beginning-of-sequence token goes before a sentence.")
    ] = True,
    out: Out = Path("blimp.html"),
    resume: Resume = None,
    remote_code: RemoteCode = False,
    as_json: Json = False,
) -> None:
    """Does a model know grammar? Which of two sentences, a good and a bad one, does it find more probable?

    A causal model is asked for the total log-probability of both sentences, a masked one for their pseudo-log-likelihood. Each
    paradigm is listed with the share of pairs it gets right, a 95 % interval, and chance (0.5) beside it.

        patchclamp blimp gpt2 blimp/data

        patchclamp blimp gpt2 blimp/data --limit 100 --json

        patchclamp blimp bert-base-cased blimp/data/anaphor_gender_agreement.jsonl --out anaphora.html

    A line of a file is `{"sentence_good": "...", "sentence_bad": "..."}`; further fields may be there. Stopped by Ctrl-C, it
    says where finished pairs are; the same command with `--resume FOLDER` goes on from there. With `--json`: `model`, `facts`,
    `readings`, `grids` (`paradigms`, with `low`, `high`, `pairs`, `ties` and `margin` in its details), and `report`.
    """
    from patchclamp.app.asked import WrongOption
    from patchclamp.app.blimp_report import blimp_report, planned
    from patchclamp.app.work import resumable, say
    from patchclamp.core.journal import digest
    from patchclamp.model.measure import fingerprint
    from patchclamp.task.blimp import load_blimp

    if limit is not None and limit < 1:
        raise WrongOption(f"--limit is how many pairs of a paradigm, one or more; got {limit}.")
    out, paradigms = _writable(out), load_blimp(folder, limit)
    opened = _opened(model, remote_code)
    say(planned(paradigms))
    card = {"command": "blimp", "model": opened.name, "weights": fingerprint(opened), "pairs": digest(paradigms), "bos": bos}
    with resumable(resume, out, card):
        _deliver(blimp_report(opened, paradigms, bos), out, as_json)


@app.command()
def sites(model: Where, remote_code: RemoteCode = False, as_json: Json = False) -> None:
    """List every place of a model that can be read and changed, with its axes.

    What a model has but cannot serve is listed with the reason.

        patchclamp sites specimen:town

        patchclamp sites gpt2 --json

    With `--json`: `model`, `sites` (each with its axes and their sizes) and `refused` (each with the reason).
    """
    opened = _opened(model, remote_code)
    if as_json:
        places = opened.anatomy.places
        served = {p: {"axes": list(places[p].axes), "sizes": places[p].sizes} for p in opened.sites}
        print(_json({"model": opened.name, "sites": served, "refused": opened.anatomy.refused}))
        return
    opened.sites.show()


def _deliver(report, out: Path, as_json: bool) -> None:
    """The page into its file, the numbers or the summary to the terminal."""
    _write(report.page.html(), out)
    if as_json:
        print(_json({**report.data, "report": str(out)}))
        return
    report.summary().show()
    print(f"\nReport: {out}")


def _opened(source: str, remote_code: bool):
    from patchclamp.model.load import load

    return load(source, remote_code=remote_code)


def _parts(said: str) -> tuple[str, ...]:
    from patchclamp.app.examine import PARTS
    from patchclamp.core.errors import UnknownSite, did_you_mean

    parts = tuple(p.strip() for p in said.split(",") if p.strip())
    for part in parts:
        if part not in PARTS:
            raise UnknownSite(f'--parts takes {", ".join(PARTS)}; not "{part}".{did_you_mean(part, PARTS)}')
    return parts


def _writable(out: Path) -> Path:
    from patchclamp.core.errors import NotSaved

    if os.path.isdir(out):  # unlike Path.is_dir, this never raises
        raise NotSaved(f"{out} is a folder; give the report a file name, such as {out / 'report.html'}.")
    if not os.path.isdir(out.parent):
        raise NotSaved(f"there is no folder {out.parent} to write {out.name} into; make it, or name another with --out.")
    return out


def _folder(save: Path | None) -> Path | None:
    """A folder to save something in, provided that it can be one."""
    from patchclamp.core.errors import NotSaved

    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotSaved(f"the folder {save} could not be made ({error.strerror}); name another with --save.") from None
    return save


def _write(page: str, out: Path) -> None:
    from patchclamp.core.errors import NotSaved

    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise NotSaved(f"{out} could not be written ({error.strerror}); name another file with --out.") from None


def _json(data: dict) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


@app.command()
def reproduce(
    paper: Annotated[str, typer.Argument(metavar="PAPER", help="Its name, as `--list` gives it.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer models and one seed: a look, within a minute.")] = False,
    seeds: Annotated[int, typer.Option(help="Seeds that every measure is taken with.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Where the HTML report goes; PAPER.html unless told.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what has been measured.")] = False,
    as_list: Annotated[
        bool, typer.Option("--list", help="List the papers, or the claims of one, and measure nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure what a paper claims, each claim beside its control, and say which hold.

    Every result is kept in a JSON file beside the report as soon as it is known: after Ctrl-C the same command goes on.

        patchclamp reproduce --list

        patchclamp reproduce circuits --quick

        patchclamp reproduce circuits --seeds 5 --out circuits.html

    With `--json` the results go to standard output: `paper`, `asked`, and `claims` by name, each with its statement, mark,
    control, verdict (`holds`, `fails`, `not run`) and result. The status is 0 whatever the verdicts, and 130 when interrupted.
    """
    from patchclamp.app import reproduce as body

    if as_list or not paper:
        table = body.listed(paper)
        print(_json({"columns": table.columns, "rows": table.rows})) if as_json else table.show()
        return
    asked, out = body.opened(paper, seeds), _writable(out or Path(f"{paper}.html"))
    report = body.reproduce(asked, out, quick, seeds, fresh)
    _write(report.html(), out)
    print(_json({**report.json(), "report": str(out)})) if as_json else report.show()
    if not as_json:
        print(f"\nReport: {out}, results: {body.kept(out)}")
    if report.interrupted:
        print(f"Interrupted: what is done is kept in {body.kept(out)}; the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(130)


if __name__ == "__main__":
    main()
