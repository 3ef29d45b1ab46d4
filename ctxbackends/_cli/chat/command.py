"""The command chat: its options, and one answer or a conversation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._cli.backends import Choice, backend_options
from ctxbackends._cli.chat.inputs import build_message, load_file, load_image, read_prompt
from ctxbackends._cli.chat.model_options import ModelOptions, check_options, parse_options
from ctxbackends._cli.completers import complete_files
from ctxbackends._cli.live_line import FIRST_TEXT, LINE, can_redraw
from ctxbackends._cli.numbers import Integer, Number
from ctxbackends._cli.options import json_option, model_option
from ctxbackends._cli.signals import exit_on_terminate, on_terminate
from ctxbackends._cli.terminal import utf8

if TYPE_CHECKING:
    from ctxbackends._chat.requests import Tool
    from ctxbackends._cli.chat.answer import ChatInputs
    from ctxbackends._cli.log_entries import LoggedConversation


def _read_inputs(run: Callable[..., Any]) -> Callable[..., Any]:
    """Read the inputs before the event loop starts: asyncio.run delays a Ctrl-C until the loop runs again."""

    @wraps(run)
    def read(
        *,
        prompt: str | None,
        model: str | None,
        system: str | None,
        pairs: tuple[str, ...],
        max_tokens: int | None,
        temperature: float | None,
        files: tuple[str, ...],
        images: tuple[str, ...],
        schema: str | None,
        tools: tuple[str, ...],
        yes: bool,
        is_continued: bool,
        conversation: int | None,
        no_stdin: bool,
        raw: bool,
        reasoning: bool,
        stats: bool,
        quiet: bool,
        as_json: bool,
        **choice: Any,
    ) -> Any:
        values = _merge_options(pairs, model=model, max_tokens=max_tokens, temperature=temperature)
        answer_schema = None if schema is None else _parse_schema(schema)
        loaded_tools = _load_tools(tools) if tools else ()
        check_options(values.options, loaded_tools)
        if tools and not yes:
            _check_terminal()
        parts = [load_file(name) for name in files], [load_image(name) for name in images]
        has_backend = any(choice[name] for name in ("backend", "endpoint", "model_path"))
        previous = None
        if is_continued or conversation is not None:
            previous = _find_conversation(choice, conversation, has_backend=has_backend)
        text = read_prompt(prompt, skip_stdin=no_stdin, is_quiet=quiet)
        is_one_answer = text is not None or files or images
        if not is_one_answer:
            _check_conversation(schema=schema, as_json=as_json)
        if not quiet and can_redraw(sys.stderr):
            LINE.show(FIRST_TEXT)  # not before a pipe has been read, whose writer may use the terminal
        from ctxbackends._cli.chat.answer import ChatInputs  # after the first line on the terminal
        from ctxbackends._cli.chat.display import create_display

        inputs = ChatInputs(
            message=build_message(text or "", *parts) if is_one_answer else None,
            model=values.options.pop("model", None),
            system=system,
            values=values,
            schema=answer_schema,
            tools=loaded_tools,
            asks=not yes,
            paths=[Path(name) for name in (*files, *images) if "://" not in name],
            previous=previous,
            has_backend=has_backend,
            create_display=partial(create_display, raw=raw, quiet=quiet, reasoning="full" if reasoning else "line"),
            shows_stats=stats,
            as_json=as_json,
        )
        # The terminal gets its cursor and its echo back.
        with on_terminate(exit_on_terminate):
            return run(inputs=inputs, **choice)

    return read


def _merge_options(pairs: Sequence[str], **others: Any) -> ModelOptions:
    values = parse_options(pairs)
    for name, value in others.items():
        if value is not None and name in values.options:
            raise click.UsageError(f"-o: {name} is given twice")
        if value is not None:
            values.options[name] = value
    return values


def _parse_schema(value: str) -> dict[str, Any]:
    from ctxbackends._cli.chat.schema_option import parse_schema  # needed only with the option

    return parse_schema(value)


def _load_tools(names: Sequence[str]) -> tuple[Tool, ...]:
    from ctxbackends._cli.chat.tool_option import load_tools  # needed only with the option

    LINE.erase()  # the modules of the tools may print
    return load_tools(names)


def _check_terminal() -> None:
    from ctxbackends._cli.chat.approval import can_ask  # needed only with tools

    if not can_ask():
        raise click.UsageError(
            "--tool without a terminal: nobody can be asked before a call; pass --yes to run all calls"
        )


def _check_conversation(*, schema: str | None, as_json: bool) -> None:
    """Raise UsageError if there can be no conversation: standard input or output is not a terminal, or an option."""
    needs_prompt = "--schema" if schema is not None else "--json" if as_json else None
    are_terminals = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    if needs_prompt is not None and are_terminals:
        raise click.UsageError(f"{needs_prompt} requires a prompt; pass it as an argument or on standard input")
    if not are_terminals:
        raise click.UsageError("no prompt; pass it as an argument or on standard input")
    if find_spec("prompt_toolkit") is None:
        raise click.ClickException("a conversation requires prompt_toolkit; run pip install 'ctxbackends[cli]'")


def _find_conversation(choice: dict[str, Any], number: int | None, *, has_backend: bool) -> LoggedConversation:
    """Return a conversation of the log, by default the last, and choose its backend unless the command line does."""
    from ctxbackends._cli.log_store import LogStore  # needed only with the option

    store = LogStore.open()
    conversation = store.last_conversation() if number is None else store.conversation(number)
    if not has_backend:
        if conversation.model_path is not None:
            choice["model_path"] = conversation.model_path
        else:
            choice |= {"backend": conversation.backend, "endpoint": conversation.endpoint}
            choice["api_key_env"] = choice["api_key_env"] or conversation.api_key_env
    return conversation


OTHER_OPTIONS = {
    "--at": "--image",
    "--attachment": "--image",
    "--cid": "--conversation",
    "--format": "--schema",
    "--fragment": "--file",
    "--key": "--api-key-env",
    "--no-stream": "--json",
    "--role": "--system",
    "--think": "--reasoning",
    "-u": "--stats",
    "--usage": "--stats",
    "--verbose": "--stats",
}
"""Options of other programs, with those that do the same here, or nearly."""


class _Chat(click.Command):
    """Adds advice to the errors that people make who know other programs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            meant = OTHER_OPTIONS.get(error.option_name)
            if meant is None:
                raise
            raise click.UsageError(f"No such option {error.option_name!r}. Did you mean {meant!r}?", ctx) from None
        if rest and not ctx.resilient_parsing:
            ctx.fail(
                f"more than one prompt: {ctx.params['prompt']!r} and {rest[0]!r}; put the prompt in quotes, "
                "and an option such as --file before each value"
            )
        return rest


@click.command(cls=_Chat, context_settings={"allow_extra_args": True})
@click.argument("prompt", required=False)
@model_option
@click.option("-s", "--system", metavar="TEXT", callback=utf8, help="The system message.")
@click.option(
    "-o", "--option", "pairs", metavar="KEY=VALUE", multiple=True, help="Option of the request, such as top_p=0.9."
)
@click.option("--max-tokens", type=Integer(min=1), help="Maximum number of tokens to generate.")
@click.option("--temperature", type=Number(min=0), help="Sampling temperature.")
@click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE",
    multiple=True,
    shell_complete=complete_files,
    help="Text file or PDF to put before the prompt.",
)
@click.option(
    "-a",
    "--image",
    "images",
    metavar="IMAGE",
    multiple=True,
    shell_complete=complete_files,
    help="Image file, or URL of an image.",
)
@click.option(
    "--schema",
    metavar="FILE|FIELDS",
    shell_complete=complete_files,
    help="Answer with JSON: a JSON Schema, or fields such as 'name, age int'.",
)
@click.option(
    "--tool", "tools", metavar="MODULE:FUNCTION", multiple=True, help="Python function that the model may call."
)
@click.option("--yes", is_flag=True, help="Run tools without asking.")
@click.option("-c", "--continue", "is_continued", is_flag=True, help="Continue the last conversation of the log.")
@click.option("--conversation", type=Integer(min=1), metavar="ID", help="Continue this conversation of the log.")
@click.option("--no-stdin", is_flag=True, help="Do not read standard input.")
@click.option("--raw", is_flag=True, help="Print the text as it arrives, without drawing Markdown.")
@click.option("--reasoning", is_flag=True, help="Show the model's reasoning, on standard error.")
@click.option("--stats", is_flag=True, help="Print token counts and times, on standard error.")
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors on standard error.")
@json_option
@_read_inputs
@backend_options
async def chat(choice: Choice, inputs: ChatInputs) -> None:
    """Send a prompt and print the answer as it arrives; without a prompt, begin a conversation.

    PROMPT follows what is piped to standard input. "-" names standard input.
    """
    from ctxbackends._cli.chat.answer import run_chat  # not loaded before the first line on the terminal

    await run_chat(choice, inputs)
