"""One answer or a conversation, with the options of the command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import Tool
from ctxbackends._cli.backends import Choice, open_choice, open_registry
from ctxbackends._cli.chat.display import Display
from ctxbackends._cli.chat.model_options import ModelOptions
from ctxbackends._cli.chat.session import ChatSession
from ctxbackends._cli.live_line import LINE
from ctxbackends.errors import NoBackendConfiguredError

if TYPE_CHECKING:
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
        previous: The conversation of the log to continue, None for a new one.
        has_backend: Whether the command line names the backend, so that the conversation may go on at another server.
        create_display: Returns the display of an answer.
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
    previous: LoggedConversation | None
    has_backend: bool
    create_display: Callable[..., Display]
    shows_stats: bool
    as_json: bool


async def run_chat(choice: Choice, inputs: ChatInputs) -> None:
    """Print the answer to the message, or begin a conversation."""
    try:
        if inputs.message is None:
            await _converse(choice, inputs)
            return
        display = inputs.create_display(text=not inputs.as_json and inputs.schema is None)
        display.start()
        try:
            async with open_choice(choice) as backend:
                session = _create_session(backend, inputs, choice)
                await _answer(session, inputs.message, display, inputs)
        finally:
            display.finish(None)
    except NoBackendConfiguredError as error:
        raise NoBackendConfiguredError(f"{error}\n  {await _suggest_server()}") from error


async def _suggest_server() -> str:
    """Return how to chat with a server that runs on this machine, or with a model on it."""
    from ctxbackends._cli.detection import find_servers, local_endpoints  # needed only on failure

    endpoints = local_endpoints()
    for server in await find_servers(endpoints):
        if server.is_usable:
            is_default = server.type in endpoints[server.endpoint]
            endpoint = "" if is_default else f" --endpoint {server.endpoint}"
            model = shlex.quote((server.loaded or server.models)[0])
            command = f"ctxbackends chat --backend {server.type}{endpoint} --model {model}"
            return f"{server.type} runs at {server.endpoint}; to use it, run {command}"
    from ctxbackends.local._models import suggest_local_model  # needed only on failure

    return suggest_local_model()


async def _converse(choice: Choice, inputs: ChatInputs) -> None:
    from ctxbackends._cli.chat.conversation import converse  # needs prompt_toolkit

    async with open_registry(choice) as (registry, backend):
        session = _create_session(backend, inputs, choice)
        LINE.erase()
        await converse(
            session,
            registry,
            create_display=inputs.create_display,
            shows_stats=inputs.shows_stats,
        )


def _create_session(backend: Any, inputs: ChatInputs, choice: Choice) -> ChatSession:
    session = ChatSession(
        backend=backend,
        model=inputs.model,
        system=inputs.system,
        options=inputs.values.options,
        tools=inputs.tools,
        log=_open_log(inputs, choice),
    )
    if inputs.values.request:
        from ctxbackends._config.request_options import RequestOptions  # needed only with an option

        session.request_options = RequestOptions(**inputs.values.request)
    if inputs.asks and inputs.tools:
        from ctxbackends._cli.chat.approval import TerminalApproval  # needed only with tools

        session.approve = TerminalApproval()
    if inputs.previous is not None:
        _continue(session, inputs.previous, choice, has_backend=inputs.has_backend)
    return session


def _open_log(inputs: ChatInputs, choice: Choice) -> Any:
    """Return what records the session, None if the log is off."""
    from ctxbackends._cli.log_store import LogStore  # help needs none of it

    store = LogStore.open()
    if not store.is_on:
        return None
    from ctxbackends._cli.chat.recorder import Recorder  # needed only with a log
    from ctxbackends._cli.log_privacy import path_of_stdin

    recorder = Recorder(store=store, endpoint=choice.endpoint, api_key_env=choice.api_key_env)
    if choice.model_path is not None:
        from ctxbackends.local import find_model  # loaded already, by the backend

        recorder.model_path = os.path.abspath(find_model(choice.model_path))
    recorder.add_files([*inputs.paths, path_of_stdin()])
    if inputs.previous is not None:
        recorder.conversation = inputs.previous.id
    return recorder


def _continue(session: ChatSession, conversation: LoggedConversation, choice: Choice, *, has_backend: bool) -> None:
    """Set what the command line does not: the options of the conversation, and its model on the same backend.

    Raises:
        ClickException: The backend has another server now, and the command line does not name it.
    """
    is_local = choice.model_path is not None and conversation.model_path is not None  # on another port each time
    if session.backend.endpoint != conversation.server and not is_local:
        name, endpoint = session.backend.name, session.backend.endpoint
        if not has_backend:
            raise click.ClickException(
                f"the conversation was with {conversation.server}, and {name} is at {endpoint} now; to send it there, "
                f"use --backend {name}"
            )
        LINE.erase()
        click.echo(f"note: the conversation was with {conversation.server}; it goes on with {endpoint}", err=True)
    session.messages = [*conversation.messages]
    session.options = {**conversation.options, **session.options}
    if session.system is None:
        session.system = conversation.system
    if session.backend.name == conversation.backend:
        session.model = session.model or conversation.model
    else:
        from ctxbackends._cli.chat.slash_commands import make_portable  # needed only for another backend

        session.messages = [make_portable(message) for message in session.messages]


async def _answer(session: ChatSession, message: Message, display: Display, inputs: ChatInputs) -> None:
    """Print one answer."""
    from ctxbackends._cli.chat.output import print_notes, print_stats, print_turn, print_value

    answer_format = None
    if inputs.schema is not None:
        from ctxbackends._answer_format import format_answer  # needed only with the option

        answer_format = format_answer(session.backend, inputs.schema)
        session.options = {**session.options, "response_format": answer_format.response_format}
    completion = await session.ask(message, display)
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
            print_stats(turn)
