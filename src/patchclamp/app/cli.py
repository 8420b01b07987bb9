"""The command line: `patchclamp examine`, `patchclamp sites`. A user's mistake prints its message, never a stack trace."""

from __future__ import annotations

import json
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
Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]


def main() -> None:
    """What the `patchclamp` command runs."""
    from patchclamp.core.errors import PatchclampError

    try:
        app()
    except PatchclampError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)


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
    answer: Annotated[str | None, typer.Option(help="The token to explain; what the model says, unless given.")] = None,
    wrong: Annotated[str | None, typer.Option(help="The token it is compared with.")] = None,
    parts: Annotated[str, typer.Option(help="Further patching maps of the heads: any of q,k,v,pattern.")] = "",
    out: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Open a model on a prompt and show what it does inside.

    Prints a summary and writes one self-contained HTML page: predictions, the logit lens, who writes the answer, what the
    heads look at and, with `--against`, which places carry the difference between the two prompts.

        patchclamp examine specimen:town "Mary and John went to the"

        patchclamp examine gpt2 "The Eiffel Tower is in" --out tower.html

        patchclamp examine specimen:town "When Mary and John went to the store, John gave a drink to" \\
            --against "When Mary and John went to the store, Mary gave a drink to" --answer " Mary" --wrong " John"
    """
    from patchclamp.app.examine import examine as look

    opened = _opened(model)
    found = look(
        opened,
        _read(opened, prompt),
        _read(opened, against),
        _word(opened, answer),
        _word(opened, wrong),
        _parts(parts),
    )
    page = found.page()
    page.save(_writable(out))
    if as_json:
        print(json.dumps({**found.json(), "report": str(out)}, indent=2, ensure_ascii=False))
        return
    found.summary().show()
    print(f"\nReport: {out}")


@app.command()
def sites(model: Where, as_json: Json = False) -> None:
    """List every place of a model that can be read and changed, with its axes, and what is refused and why.

    patchclamp sites specimen:town
    """
    opened = _opened(model)
    if as_json:
        places = opened.anatomy.places
        served = {p: {"axes": list(places[p].axes), "sizes": places[p].sizes} for p in opened.sites}
        print(json.dumps({"model": opened.name, "sites": served, "refused": opened.anatomy.refused}, indent=2))
        return
    opened.sites.show()


def _opened(source: str):
    from patchclamp.model.load import load

    return load(source)


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
    """A token by its text, or by its id where the model has no tokenizer."""
    return int(word) if word is not None and model.tokenizer is None and word.strip().isdigit() else word


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

    if out.is_dir():
        raise NotSaved(f"{out} is a folder; give the report a file name, such as {out / 'report.html'}.")
    if not out.parent.is_dir():
        raise NotSaved(f"there is no folder {out.parent} to write {out.name} into.")
    return out


if __name__ == "__main__":
    main()
