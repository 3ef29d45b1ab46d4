"""The command count: the number of tokens in a prompt, as the server counts them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ctxbackends._cli.backends import Choice, backend_options, open_choice
from ctxbackends._cli.options import json_option, model_option
from ctxbackends._cli.readiness import ready
from ctxbackends._cli.terminal import print_json, utf8
from ctxbackends._cli.text_inputs import read_prompt, read_text


def _reads_prompt(command: Callable[..., Any]) -> Callable[..., Any]:
    # Before the event loop starts: asyncio.run delays a Ctrl-C until the loop runs again.
    @wraps(command)
    def run(*, prompt: str | None, file: Path | None, **options: Any) -> Any:
        if prompt is not None and file is not None:
            raise click.UsageError("PROMPT and --file are mutually exclusive")
        return command(prompt=read_prompt(prompt) if file is None else read_text(file), **options)

    return run


@click.command()
@click.argument("prompt", required=False)
@click.option("--file", "-f", type=click.Path(path_type=Path), metavar="FILE", help="Count the text of a file.")
@click.option("--system", "-s", metavar="TEXT", callback=utf8, help="The system message.")
@model_option
@json_option
@_reads_prompt
@backend_options
async def count(choice: Choice, prompt: str, system: str | None, model: str | None, as_json: bool) -> None:
    """Print the number of tokens in a prompt, with the chat template.

    PROMPT is read from standard input when it is omitted or "-". The server counts; the number is never estimated.
    """
    from ctxbackends._chat.messages import Message  # help needs none of it

    messages = [] if system is None else [Message.system(system)]
    async with open_choice(choice) as backend, ready(backend, "count_tokens"):
        tokens = await backend.count_tokens([*messages, Message.user(prompt)], model=model)
    if as_json:
        print_json({"tokens": tokens, "backend": backend.name, "model": model or backend.default_model})
    else:
        click.echo(tokens)
