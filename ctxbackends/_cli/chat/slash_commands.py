"""The commands of a conversation, such as ``/model``: each changes the session, and says what it did."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ctxbackends._chat.messages import Message, OpaquePart, Part, ReasoningPart, TextPart, ToolCall
from ctxbackends._cli.chat.inputs import load_file, load_image
from ctxbackends._cli.chat.output import describe_stats
from ctxbackends._cli.chat.session import ChatSession
from ctxbackends._cli.chat.transcript import save
from ctxbackends._suggestions import find_similar, suggest
from ctxbackends._util.text import pluralize
from ctxbackends.errors import BackendError

if TYPE_CHECKING:
    from ctxbackends._registry import Registry

_URL = re.compile("(https?|data):", re.IGNORECASE)
LIST_SECONDS = 3.0
"""How long a completion waits for the server's list of models."""

Candidates: TypeAlias = Sequence[tuple[str, str]]
"""Texts that may complete a word, each with a remark."""


class CommandError(Exception):
    """A command cannot do what it was asked. The message says why, and what to do."""


class LeaveConversation(Exception):  # noqa: N818  # ends the loop, no error
    """The user leaves."""


@attrs.define(kw_only=True)
class Conversation:
    """The state that the commands change.

    Attributes:
        session: The conversation with the model.
        registry: The backends that ``/backend`` chooses from.
        say: Prints a line on standard error.
        attachments: Files and images for the next message, with their names.
        shows_stats: Whether the token counts are printed after each answer.
    """

    session: ChatSession
    registry: Registry
    say: Callable[[str], object]
    attachments: list[tuple[str, Part]] = attrs.field(factory=list)
    shows_stats: bool = False
    _models: dict[str, tuple[str, ...]] = attrs.field(factory=dict, init=False)

    @property
    def model(self) -> str | None:
        """The model of the next answer, as far as it is known."""
        return self.session.model or self.session.backend.default_model

    def take_message(self, text: str) -> Message:
        """Return the next message: its attachments, and the text."""
        if not self.attachments:
            return Message.user(text)
        parts = [part for _, part in self.attachments]
        self.attachments.clear()
        return Message("user", (*parts, TextPart(text)))

    async def list_models(self) -> tuple[str, ...]:
        """Return the names of the server's models; none if it does not list them soon."""
        name = self.session.backend.name
        if name not in self._models:
            try:
                async with asyncio.timeout(LIST_SECONDS):
                    self._models[name] = tuple(model.id for model in await self.session.backend.models())
            except (BackendError, TimeoutError):
                return ()
        return self._models[name]


Run: TypeAlias = Callable[[Conversation, str], Awaitable["Message | None"]]
"""Runs a command with the rest of its line. Returns a message to send."""


@attrs.frozen
class SlashCommand:
    """A command of a conversation.

    Attributes:
        run: Runs it.
        argument: The name of its argument in the help, empty if it has none; in brackets if it is optional.
        help: Its line in the help.
        complete: Returns the candidates for its argument.
    """

    run: Run
    argument: str
    help: str
    complete: Callable[[Conversation, str], Awaitable[Candidates]] | None = None


# --- the commands -----------------------------------------------------------------------------------


async def _help(conversation: Conversation, _: str) -> None:
    rows = [(f"/{name} {command.argument}".rstrip(), command.help) for name, command in COMMANDS.items()]
    width = max(len(usage) for usage, _ in rows)
    for usage, text in rows:
        conversation.say(f"{usage:{width}}  {text}")
    conversation.say("Enter sends the message; Alt-Enter, or Esc and then Enter, begins a new line.")
    conversation.say("Ctrl-C stops an answer, Ctrl-R searches the history, Ctrl-D leaves.")
    conversation.say("A line that begins with a space is sent, even if a slash follows.")


async def _system(conversation: Conversation, argument: str) -> None:
    session = conversation.session
    if argument:
        session.system = None if argument == "off" else argument
    conversation.say("no system message" if session.system is None else f"system message: {session.system}")


async def _model(conversation: Conversation, argument: str) -> None:
    names = await conversation.list_models()
    if not argument:
        conversation.say(f"model: {conversation.model or 'none'}")
        if names:
            conversation.say(f"the server has: {', '.join(names)}")
        return
    conversation.session.model = argument
    conversation.say(f"model: {argument}")
    if names and argument not in names:
        conversation.say(f"the server does not list this model; {suggest(argument, names)}")


async def _backend(conversation: Conversation, argument: str) -> None:
    session, names = conversation.session, conversation.registry.names
    if not argument:
        conversation.say(f"backend: {session.backend.name}")
        conversation.say(f"configured: {', '.join(names)}")
        return
    if argument not in names:
        raise CommandError(f"no such backend: {argument}; {suggest(argument, names)}")
    backend = conversation.registry.resolve(argument)
    if backend is not session.backend:
        session.backend, session.model = backend, None  # a model of one server is unknown to the other
        session.messages[:] = [make_portable(message) for message in session.messages]
    conversation.say(f"backend: {backend.name} at {backend.endpoint}, model: {conversation.model or 'none'}")


def make_portable(message: Message) -> Message:
    """Return the message without what only the server of its answer understands: reasoning and opaque data.

    Anthropic refuses reasoning that it has not signed, and no server needs that of answers that are complete.
    """
    if isinstance(message.content, str) or message.role != "assistant":
        return message
    parts = [part for part in message.content if not isinstance(part, ReasoningPart | OpaquePart)]
    plain = [_without_opaque(part) for part in parts]
    return Message("assistant", tuple(plain)) if plain else Message("assistant", "")


def _without_opaque(part: Part) -> Part:
    if isinstance(part, TextPart):
        return TextPart(part.text)
    return ToolCall(part.id, part.name, part.arguments) if isinstance(part, ToolCall) else part


async def _clear(conversation: Conversation, _: str) -> None:
    session = conversation.session
    count = len(session.messages)
    session.messages.clear()
    session.failed = None
    if session.log is not None:
        session.log.begin()
    conversation.attachments.clear()
    conversation.say(f"forgot {pluralize(count, 'message')}")


async def _retry(conversation: Conversation, _: str) -> Message:
    session = conversation.session
    if session.failed is not None:
        return session.failed
    return _remove_last(session)


async def _undo(conversation: Conversation, _: str) -> None:
    session = conversation.session
    if session.failed is not None:
        message, session.failed = session.failed, None
    else:
        message = _remove_last(session)
    conversation.say(f"removed: {message.text}")


def _remove_last(session: ChatSession) -> Message:
    """Remove the last message of the user and all after it, and return it."""
    for index in range(len(session.messages) - 1, -1, -1):
        message = session.messages[index]
        if message.role == "user":
            del session.messages[index:]
            if session.log is not None:
                session.log.truncate(index)
            return message
    raise CommandError("the conversation has no messages yet")


async def _file(conversation: Conversation, argument: str) -> None:
    _attach(conversation, argument, load_file)


async def _image(conversation: Conversation, argument: str) -> None:
    _attach(conversation, argument, load_image)


def _attach(conversation: Conversation, argument: str, load: Callable[[str], Part]) -> None:
    name = argument if _URL.match(argument) else str(_to_path(argument))
    part = load(name)
    log = conversation.session.log
    if log is not None and not _URL.match(argument):
        log.add_files([Path(name)])
    conversation.attachments.append((name, part))
    conversation.say(f"with the next message: {', '.join(name for name, _ in conversation.attachments)}")


async def _save(conversation: Conversation, argument: str) -> None:
    session = conversation.session
    if not session.messages:
        raise CommandError("the conversation has no messages yet")
    path = _to_path(argument)
    system = [] if session.system is None else [Message.system(session.system)]
    if not save(path, [*system, *session.messages], backend=session.backend.name, model=conversation.model):
        raise CommandError(f"the file exists: {path}; choose another name")
    conversation.say(f"saved {pluralize(len(session.messages), 'message')} to {path}")


def _to_path(argument: str) -> Path:
    """Return the path of an argument, which a file manager puts into quotes."""
    is_quoted = len(argument) > 1 and argument[0] == argument[-1] and argument[0] in "'\""
    name = argument[1:-1] if is_quoted else argument
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise CommandError(f"{name}: no such user") from None


async def _stats(conversation: Conversation, argument: str) -> None:
    if argument not in ("", "on", "off"):
        raise CommandError(f"invalid argument: {argument}; use on or off")
    if argument:
        conversation.shows_stats = argument == "on"
        conversation.say(f"token counts after each answer: {argument}")
        return
    session = conversation.session
    conversation.say(f"{pluralize(len(session.messages), 'message')}, {pluralize(len(session.turns), 'answer')}")
    usages = [turn.usage for turn in session.turns if turn.usage is not None]
    if usages:
        read, written = sum(usage.input_tokens for usage in usages), sum(usage.output_tokens for usage in usages)
        conversation.say(f"{read} input tokens and {written} output tokens in all")
    if session.turns:
        conversation.say(describe_stats(session.turns[-1]))


async def _quit(_: Conversation, __: str) -> None:
    raise LeaveConversation


# --- completion -------------------------------------------------------------------------------------


async def _complete_model(conversation: Conversation, word: str) -> Candidates:
    return [(name, "") for name in await conversation.list_models() if name.startswith(word)]


async def _complete_backend(conversation: Conversation, word: str) -> Candidates:
    return [(name, "") for name in conversation.registry.names if name.startswith(word)]


async def _complete_path(_: Conversation, word: str) -> Candidates:
    return _list_paths(word)


def _list_paths(word: str) -> Candidates:
    head, _, tail = word.rpartition("/")
    prefix = f"{head}/" if "/" in word else ""
    try:
        directory = Path(f"{head}/").expanduser() if "/" in word else Path()
        entries = sorted(directory.iterdir())
    except (OSError, RuntimeError):  # RuntimeError: no such user
        return ()
    hidden = tail.startswith(".")
    return [
        (f"{prefix}{entry.name}{'/' if entry.is_dir() else ''}", "")
        for entry in entries
        if entry.name.startswith(tail) and (hidden or not entry.name.startswith("."))
    ]


# --- the table --------------------------------------------------------------------------------------

COMMANDS: Mapping[str, SlashCommand] = MappingProxyType(
    {
        "help": SlashCommand(_help, "", "Show the commands."),
        "system": SlashCommand(_system, "[TEXT]", "Show or set the system message; off removes it."),
        "model": SlashCommand(_model, "[NAME]", "Show the models, or choose one.", _complete_model),
        "backend": SlashCommand(_backend, "[NAME]", "Show the backends, or choose one.", _complete_backend),
        "file": SlashCommand(_file, "FILE", "Send a file with the next message.", _complete_path),
        "image": SlashCommand(_image, "FILE", "Send an image with the next message.", _complete_path),
        "clear": SlashCommand(_clear, "", "Forget the conversation; the system message stays."),
        "save": SlashCommand(_save, "FILE", "Save the conversation as Markdown, or as JSON (.json).", _complete_path),
        "retry": SlashCommand(_retry, "", "Ask again for the last answer."),
        "undo": SlashCommand(_undo, "", "Remove the last message and its answer."),
        "stats": SlashCommand(_stats, "[on|off]", "Show token counts, or show them after each answer."),
        "quit": SlashCommand(_quit, "", "Leave."),
    }
)
"""The commands by name, without the slash."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "?": "help",
        "backends": "backend",
        "bye": "quit",
        "exit": "quit",
        "forget": "clear",
        "load": "model",
        "models": "model",
        "new": "clear",
        "q": "quit",
        "regenerate": "retry",
        "reset": "clear",
        "system-prompt": "system",
    }
)
"""Other names of commands, which other programs use."""

ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "set": "use /system TEXT for the system message; other options go with the command, as chat -o temperature=0.2",
        "show": "use /model, /system or /stats",
    }
)
"""Commands of other programs that are none here, with the way to the same."""


async def run_command(conversation: Conversation, line: str) -> Message | None:
    """Run the command on a line that begins with a slash, and return the message to send next.

    Raises:
        CommandError: The command is unknown, or cannot do it.
        LeaveConversation: The user leaves.
        BackendError: A request failed.
        OSError: A file cannot be read or written.
    """
    word, _, argument = line[1:].strip().partition(" ")
    name = ALIASES.get(word, word)
    command = COMMANDS.get(name)
    if command is None and name in ADVICE:
        raise CommandError(f"unknown command: /{word}; {ADVICE[name]}")
    if command is None:
        meant = find_similar(f"/{word}", [f"/{known}" for known in COMMANDS])
        raise CommandError(
            f"unknown command: /{word}; " + (f"did you mean {meant}?" if meant else "/help lists the commands")
        )
    argument = argument.strip()
    if argument and not command.argument:
        raise CommandError(f"/{name} takes no argument: {argument}")
    if not argument and command.argument and not command.argument.startswith("["):
        raise CommandError(f"/{name} needs an argument; use /{name} {command.argument}")
    return await command.run(conversation, argument)


async def complete(conversation: Conversation, line: str) -> Candidates:
    """Return the candidates for the last word of a line that begins with a slash."""
    word, space, argument = line[1:].partition(" ")
    if not space:
        return [(f"/{name}", command.help) for name, command in COMMANDS.items() if name.startswith(word)]
    command = COMMANDS.get(word)
    if command is None or command.complete is None:
        return ()
    return await command.complete(conversation, argument.lstrip())
