"""The command embed: texts in, vectors out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec

from ctxbackends._cli.backends import Choice, backend_options, open_choice
from ctxbackends._cli.numbers import Integer
from ctxbackends._cli.options import json_option, model_option
from ctxbackends._cli.readiness import ready
from ctxbackends._cli.terminal import print_json, printable, utf8
from ctxbackends._cli.text_inputs import STDIN, read_lines
from ctxbackends._util.text import pluralize


def _check_texts(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        utf8(context, parameter, text)
        if not text.strip():
            raise click.UsageError("a TEXT is empty, and an empty text has no vector")
    return texts


def _reads_texts(command: Callable[..., Any]) -> Callable[..., Any]:
    # Before the event loop starts: asyncio.run delays a Ctrl-C until the loop runs again.
    @wraps(command)
    def run(*, texts: tuple[str, ...], lines: Path | None, **options: Any) -> Any:
        if texts and lines is not None:
            raise click.UsageError("TEXT and --lines are mutually exclusive")
        return command(texts=list(texts) or read_lines(lines or STDIN), **options)

    return run


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...", callback=_check_texts)
@click.option("--lines", type=click.Path(path_type=Path), metavar="FILE", help="Embed each line of a file.")
@model_option
@click.option("--dimensions", type=Integer(min=1), help="Length of the vectors, if the model can shorten them.")
@json_option
@_reads_texts
@backend_options
async def embed(choice: Choice, texts: list[str], model: str | None, dimensions: int | None, as_json: bool) -> None:
    """Print the vector of each TEXT, one JSON array per line.

    Without TEXT, each line of standard input is one. --json prints one object with all vectors.
    """
    async with open_choice(choice) as backend, ready(backend, "embed"):
        result = await backend.embed(texts, model=model, dimensions=dimensions)
    if as_json:
        print_json(
            {
                "vectors": result.vectors,
                "requested_model": result.requested_model,
                "served_model": result.served_model,
                "usage": msgspec.to_builtins(result.usage),
            }
        )
    else:
        for vector in result.vectors:
            click.echo(json.dumps(vector))
    name = printable(result.served_model or result.requested_model, err=True)
    sizes = f"{pluralize(len(result.vectors), 'vector')} of {pluralize(len(result.vectors[0]), 'dimension')}"
    click.echo(f"{sizes} from {name}", err=True)
