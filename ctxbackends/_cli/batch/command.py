"""The command batch: its options, and the checks before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._cli import exit_on_interrupt, raise_on_interrupt
from ctxbackends._cli.batch.backends import backends_options, choose_backends
from ctxbackends._cli.completers import complete_files
from ctxbackends._cli.engine_options import engine_options
from ctxbackends._cli.numbers import Integer
from ctxbackends._cli.options import model_option
from ctxbackends._cli.signals import exit_on_terminate, on_terminate
from ctxbackends._cli.terminal import utf8

if TYPE_CHECKING:
    from ctxbackends._cli.batch.arguments import BatchArguments

FORMATS = ("openai", "simple", "parquet")

_path = click.Path(path_type=Path)


def _run_with_arguments(command: Callable[[BatchArguments], Any]) -> Callable[..., None]:
    """Check the arguments and read standard input before the event loop starts, as other commands do."""

    @wraps(command)
    def run(
        *,
        backends: tuple[str, ...],
        endpoints: tuple[str, ...],
        api_key_env: str | None,
        model_path: str | None,
        no_wait: bool,
        **values: Any,
    ) -> None:
        from ctxbackends._cli.batch.arguments import open_arguments  # help needs none of it
        from ctxbackends._cli.batch.display import error_events

        exit_on_interrupt()
        choices = choose_backends(
            backends=backends,
            endpoints=endpoints,
            api_key_env=api_key_env,
            model_path=model_path,
            no_wait=no_wait,
        )
        raise_on_interrupt()  # from here on there are files to delete
        events = error_events() if values["as_json"] else nullcontext()
        with on_terminate(exit_on_terminate), events, open_arguments(choices, **values) as arguments:
            import asyncio  # not loaded before the first line on the terminal

            asyncio.run(command(arguments))

    return run


class _Batch(click.Command):
    """Tells how to set an option of the model, which other commands have as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, [*args])
        except click.NoSuchOption as error:
            from ctxbackends._cli.chat.model_options import PARSERS  # needed only after a mistake

            name = error.option_name.lstrip("-").replace("-", "_")
            if name not in PARSERS:
                raise
            raise click.UsageError(
                f"No such option {error.option_name!r}; use --option {name}={_find_value(args, error.option_name)}", ctx
            ) from None


def _find_value(args: list[str], option: str) -> str:
    """Return the value after an option, or a name for it."""
    at = next((at for at, argument in enumerate(args) if argument.partition("=")[0] == option), len(args))
    _, has_value, value = "".join(args[at : at + 1]).partition("=")
    following = "".join(args[at + 1 : at + 2])
    return value if has_value else following if following and not following.startswith("-") else "VALUE"


@click.command(cls=_Batch)
@click.argument("source", metavar="INPUT", type=_path, shell_complete=complete_files)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=_path,
    shell_complete=complete_files,
    help="File for the answers, - for standard output. Required.",
)
@click.option(
    "--errors",
    metavar="FILE",
    type=_path,
    shell_complete=complete_files,
    help="File for the rows that failed; without it they are in the output, with their errors.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="openai",
    show_default=True,
    help="openai writes lines as OpenAI's batches do, simple an ID and a text; parquet requires pyarrow.",
)
@click.option("--force", is_flag=True, help="Replace an output that is not from this batch.")
@model_option
@click.option("--system", metavar="TEXT", callback=utf8, help="System message for the rows that have none.")
@click.option(
    "--option", "pairs", metavar="KEY=VALUE", multiple=True, help="Option for the rows that do not have it: top_p=0.9."
)
@click.option(
    "--schema",
    metavar="FILE|FIELDS",
    shell_complete=complete_files,
    help="Answer with JSON: a JSON Schema, or fields such as 'name, age int'. Each answer is checked.",
)
@click.option(
    "--prompt", metavar="TEMPLATE", callback=utf8, help="Prompt for each row of a CSV file: 'Sum up: {text}'."
)
@click.option("--id-column", metavar="NAME", callback=utf8, help="Column of a CSV file with the ID of a row.")
@click.option("--embed", is_flag=True, help="Embed the prompts instead of asking for answers.")
@click.option("--journal", metavar="DIR", type=_path, help="Directory of the journal; OUTPUT.journal by default.")
@click.option("--keep", is_flag=True, help="Keep the journal when all rows are answered.")
@click.option(
    "--resume/--fresh", "resume", default=True, help="Use the answers of the journal (default), or ask all rows again."
)
@click.option("--no-validate", is_flag=True, help="Send the first rows before the others are checked.")
@click.option(
    "--max-concurrency",
    type=Integer(min=1),
    help="Maximum number of concurrent requests to each server; its slots by default, or 32.",
)
@click.option("--rpm", type=Integer(min=1), help="Maximum number of requests in a minute, to all servers together.")
@click.option("--tpm", type=Integer(min=1), help="Maximum number of tokens in a minute, of prompts and answers.")
@click.option(
    "--max-retries",
    type=Integer(min=0),
    default=3,
    show_default=True,
    help="How often a row is sent again after an error.",
)
@engine_options
@click.option("--dry-run", is_flag=True, help="Check the input and count its rows; send and write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one per line.")
@backends_options
@_run_with_arguments
async def batch(arguments: BatchArguments) -> None:
    """Send every row of INPUT to a model, and write the answers to a file in the same order.

    INPUT is a JSON Lines file in OpenAI's or Anthropic's form for batches or with an ID and a prompt on each line, a
    CSV file, or - for standard input. A batch that was stopped continues when the same command is run again: rows that
    have an answer are not sent again.
    """
    from ctxbackends._cli.batch.run import run  # not loaded before the first line on the terminal

    await run(arguments)
