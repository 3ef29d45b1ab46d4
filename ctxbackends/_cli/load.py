"""The commands load and unload: models in the memory of a server."""

from __future__ import annotations

import math

import click

from ctxbackends._cli.backends import Choice, backend_options, open_choice
from ctxbackends._cli.completers import complete_models
from ctxbackends._cli.numbers import Integer
from ctxbackends._cli.terminal import say, utf8, waiting


def _parse_keep_alive(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a duration such as ``10m``; ``forever`` is infinite."""
    if value is None:
        return None
    if value == "forever":
        return math.inf
    from ctxbackends._config.duration import parse_duration  # help needs none of it

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


@click.command()
@click.argument("model", required=False, callback=utf8, shell_complete=complete_models)
@click.option("--context-length", type=Integer(min=1), help="Size of the context in tokens.")
@click.option(
    "--keep-alive",
    metavar="DURATION",
    callback=_parse_keep_alive,
    help='Time until the unused model is unloaded, such as 10m; "forever" for never.',
)
@backend_options
async def load(choice: Choice, model: str | None, context_length: int | None, keep_alive: float | None) -> None:
    """Load MODEL into the server's memory, by default the default_model."""
    async with open_choice(choice) as backend:
        with waiting() as line:
            await backend.load(model, context_length=context_length, keep_alive=keep_alive, on_progress=line)
    say(f"loaded {model or backend.default_model} on {backend.endpoint}")


@click.command()
@click.argument("model", required=False, callback=utf8, shell_complete=complete_models)
@backend_options
async def unload(choice: Choice, model: str | None) -> None:
    """Unload MODEL from the server's memory, by default the default_model."""
    from ctxbackends._config.request_options import RequestOptions  # help needs none of it

    async with open_choice(choice) as backend:
        with waiting() as line:
            line.show("waiting for the answer")
            # A server that is starting has nothing to unload yet.
            await backend.unload(model, request_options=RequestOptions(ready_timeout=0))
    say(f"unloaded {model or backend.default_model} from {backend.endpoint}")
