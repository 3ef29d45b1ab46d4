"""The command chat: its options, and one answer or a conversation."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ctxbackends._cli.backends import Choice, backend_options, open_choice, open_registry
from ctxbackends._cli.chat.display import Display, create_display
from ctxbackends._cli.chat.inputs import build_message, load_file, load_image, read_prompt
from ctxbackends._cli.chat.model_options import ModelOptions, check_options, parse_options
from ctxbackends._cli.completers import complete_files, complete_models
from ctxbackends._cli.numbers import Integer, Number
from ctxbackends._cli.options import json_option
from ctxbackends._cli.terminal import utf8

if TYPE_CHECKING:
    from ctxbackends._chat.messages import Message
    from ctxbackends._chat.requests import Tool
    from ctxbackends._cli.chat.session import ChatSession
    from ctxbackends._cli.log_entries import LoggedConversation


@attrs.frozen(kw_only=True)
class ChatInputs:
    """The options of the command, read and checked.

    Attributes:
        message: The message to send, None for a conversation.
        model: The model, None for the default.
        system: The system message, None for none.
        values: The other options of the requests.
        schema: The schema of the answer, None for text.
        tools: The tools.
        asks: Whether each call of a tool is asked about.
        paths: The files that the message is read from, for the log.
        continued: The conversation of the log that is continued, None for a new one.
        display: The display of the first answer.
        raw: Whether the text is printed as it arrives.
        is_quiet: Whether standard error has only warnings and errors.
        shows_reasoning: Whether the text of the reasoning is shown.
        shows_stats: Whether token counts are printed.
        as_json: Whether one JSON object is printed.
    """

    message: Message | None
    model: str | None
    system: str | None
    values: ModelOptions
    schema: dict[str, Any] | None
    tools: tuple[Tool, ...]
    asks: bool
    paths: Sequence[Path]
    continued: LoggedConversation | None
    display: Display
    raw: bool
    is_quiet: bool
    shows_reasoning: bool
    shows_stats: bool
    as_json: bool


def _read_inputs(run: Callable[..., Any]) -> Callable[..., Any]:
    """Read the inputs before the event loop starts: asyncio.run delays a Ctrl-C until the loop runs again."""

    @wraps(run)
    def read(
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
        continued = None
        if is_continued or conversation is not None:
            continued = _find_conversation(choice, conversation)
        text = read_prompt(prompt, skip_stdin=no_stdin, is_quiet=quiet)
        is_one_answer = text is not None or files or images
        if not is_one_answer:
            _check_conversation(schema=schema, as_json=as_json)
        display = create_display(
            raw=raw, quiet=quiet, reasoning="full" if reasoning else "line", text=not (as_json or schema is not None)
        )
        inputs = ChatInputs(
            message=build_message(text or "", *parts) if is_one_answer else None,
            model=values.options.pop("model", None),
            system=system,
            values=values,
            schema=answer_schema,
            tools=loaded_tools,
            asks=not yes,
            paths=[Path(name) for name in (*files, *images) if "://" not in name],
            continued=continued,
            display=display,
            raw=raw,
            is_quiet=quiet,
            shows_reasoning=reasoning,
            shows_stats=stats,
            as_json=as_json,
        )
        if is_one_answer:
            display.start()
        try:
            return run(inputs=inputs, **choice)
        finally:
            display.finish(None)

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
    from ctxbackends._cli.chat.schema_option import parse_schema  # noqa: PLC0415  # needed only with the option

    return parse_schema(value)


def _load_tools(names: Sequence[str]) -> tuple[Tool, ...]:
    from ctxbackends._cli.chat.tool_option import load_tools  # noqa: PLC0415  # needed only with the option

    return load_tools(names)


def _check_terminal() -> None:
    from ctxbackends._cli.chat.approval import can_ask  # noqa: PLC0415  # needed only with tools

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


def _find_conversation(choice: dict[str, Any], number: int | None) -> LoggedConversation:
    """Return a conversation of the log, by default the last, and choose its backend unless the command line does."""
    from ctxbackends._cli.log_store import LogStore  # noqa: PLC0415  # needed only with the option

    store = LogStore.open()
    conversation = store.last_conversation() if number is None else store.conversation(number)
    if not any(choice.get(name) for name in ("backend", "endpoint", "model_path")):
        if conversation.model_path is not None:
            choice["model_path"] = conversation.model_path
        else:
            choice |= {"backend": conversation.backend, "endpoint": conversation.endpoint}
            choice["api_key_env"] = choice["api_key_env"] or conversation.api_key_env
    return conversation


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "-m",
    "--model",
    metavar="NAME",
    callback=utf8,
    shell_complete=complete_models,
    help="Model to use instead of the backend's default_model.",
)
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
    from ctxbackends.errors import NoBackendConfiguredError  # noqa: PLC0415  # help needs none of it

    try:
        if inputs.message is None:
            await _converse(choice, inputs)
            return
        async with open_choice(choice) as backend:
            session = _create_session(backend, inputs, choice)
            await _answer(session, inputs.message, inputs)
    except NoBackendConfiguredError as error:
        raise NoBackendConfiguredError(f"{error}\n  {await _suggest_server()}") from error


async def _suggest_server() -> str:
    """Return how to chat with a server that runs on this machine, or with a model on it."""
    from ctxbackends._cli.detection import find_servers, local_endpoints  # noqa: PLC0415  # needed only on failure

    endpoints = local_endpoints()
    for server in await find_servers(endpoints):
        if server.is_usable:
            is_default = server.type in endpoints[server.endpoint]
            endpoint = "" if is_default else f" --endpoint {server.endpoint}"
            model = shlex.quote((server.loaded or server.models)[0])
            command = f"ctxbackends chat --backend {server.type}{endpoint} --model {model}"
            return f"{server.type} runs at {server.endpoint}; to use it, run {command}"
    from ctxbackends.local._models import suggest_local_model  # noqa: PLC0415  # needed only on failure

    return suggest_local_model()


async def _converse(choice: Choice, inputs: ChatInputs) -> None:
    from ctxbackends._cli.chat.conversation import converse  # noqa: PLC0415  # needs prompt_toolkit

    async with open_registry(choice) as (registry, backend):
        await converse(
            _create_session(backend, inputs, choice),
            registry,
            create_display=partial(
                create_display,
                raw=inputs.raw,
                quiet=inputs.is_quiet,
                reasoning="full" if inputs.shows_reasoning else "line",
            ),
            shows_stats=inputs.shows_stats,
        )


def _create_session(backend: Any, inputs: ChatInputs, choice: Choice) -> ChatSession:
    from ctxbackends._cli.chat.session import ChatSession  # noqa: PLC0415  # help needs none of it

    session = ChatSession(
        backend=backend,
        model=inputs.model,
        system=inputs.system,
        options=inputs.values.options,
        tools=inputs.tools,
        log=_open_log(inputs, choice),
    )
    if inputs.values.request:
        from ctxbackends._config.request_options import RequestOptions  # noqa: PLC0415  # needed only with an option

        session.request_options = RequestOptions(**inputs.values.request)
    if inputs.asks and inputs.tools:
        from ctxbackends._cli.chat.approval import TerminalApproval  # noqa: PLC0415  # needed only with tools

        session.approve = TerminalApproval()
    if inputs.continued is not None:
        _continue(session, inputs.continued, choice)
    return session


def _open_log(inputs: ChatInputs, choice: Choice) -> Any:
    """Return what records the session, None if the log is off."""
    from ctxbackends._cli.log_store import LogStore  # noqa: PLC0415  # help needs none of it

    store = LogStore.open()
    if not store.is_on:
        return None
    from ctxbackends._cli.chat.recorder import Recorder  # noqa: PLC0415  # needed only with a log
    from ctxbackends._cli.log_privacy import path_of_stdin  # noqa: PLC0415

    recorder = Recorder(store=store, endpoint=choice.endpoint, api_key_env=choice.api_key_env)
    if choice.model_path is not None:
        from ctxbackends.local import find_model  # noqa: PLC0415  # loaded already, by the backend

        recorder.model_path = os.path.abspath(find_model(choice.model_path))
    recorder.add_files([*inputs.paths, path_of_stdin()])
    if inputs.continued is not None:
        recorder.conversation = inputs.continued.id
    return recorder


def _continue(session: ChatSession, conversation: LoggedConversation, choice: Choice) -> None:
    """Set what the command line does not: the options of the conversation, and its model on the same backend."""
    session.messages = [*conversation.messages]
    session.options = {**conversation.options, **session.options}
    if session.system is None:
        session.system = conversation.system
    if session.backend.name == conversation.backend:
        session.model = session.model or conversation.model
    else:
        from ctxbackends._cli.chat.slash_commands import make_portable  # noqa: PLC0415  # needed only for another backend

        session.messages = [make_portable(message) for message in session.messages]
    is_local = choice.model_path is not None and conversation.model_path is not None  # on another port each time
    if session.backend.endpoint != conversation.server and not is_local:
        note = f"note: the conversation was with {conversation.server}; it goes on with {session.backend.endpoint}"
        click.echo(note, err=True)


async def _answer(session: ChatSession, message: Message, inputs: ChatInputs) -> None:
    """Print one answer."""
    from ctxbackends._cli.chat.output import describe_stats, print_notes, print_turn, print_value  # noqa: PLC0415

    answer_format = None
    if inputs.schema is not None:
        from ctxbackends._cli.chat.schema_option import format_answer  # noqa: PLC0415  # needed only with the option

        answer_format = format_answer(session.backend, inputs.schema)
        session.options = {**session.options, "response_format": answer_format.response_format}
    completion = await session.ask(message, inputs.display)
    turn = session.turns[-1]
    try:
        if answer_format is not None:
            value = answer_format.decode(completion)
            if inputs.as_json:
                print_turn(turn, value=value)
            else:
                print_value(value)
        elif inputs.as_json:
            print_turn(turn)
        else:
            print_notes(completion, has_limit="max_tokens" in session.options)
    finally:
        if inputs.shows_stats:
            click.echo(describe_stats(turn), err=True)
