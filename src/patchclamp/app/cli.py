"""The command line: `patchclamp examine`, `patchclamp sites`. A user's mistake prints its message, never a stack trace."""

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
    from patchclamp.app.examine import examine as look

    asked, out = _parts(parts), _writable(out)  # before anything that takes long
    opened = _opened(model, remote_code)
    prompts = _read(opened, prompt), _read(opened, against)
    found = look(opened, *prompts, _word(opened, answer), _word(opened, wrong), asked)
    _write(found.page().html(), out)
    if as_json:
        print(_json({**found.json(), "report": str(out)}))
        return
    found.summary().show()
    print(f"\nReport: {out}")


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


def _opened(source: str, remote_code: bool):
    from patchclamp.model.load import load

    return load(source, remote_code=remote_code)


def _read(model, prompt: str | None):
    """Text, or token ids where the model has no tokenizer."""
    from patchclamp.core.errors import WrongPrompt

    if prompt is None or model.tokenizer is not None:
        return prompt
    try:
        return [int(w) for w in prompt.replace(",", " ").split()]
    except ValueError:
        raise WrongPrompt(
            f'{model.name} has no tokenizer, so its prompt is token ids such as "2 0 1"; got "{prompt}".'
        ) from None


def _word(model, word: str | None):
    """A token by its text; by its id where no token reads so, or the model has no tokenizer."""
    from patchclamp.core.errors import WrongToken

    if word is None or not word.strip().isdigit():
        return word
    try:
        return model.token(word)
    except WrongToken:
        return int(word)


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
