"""The conversation at a terminal: read a message, answer it or run a command, until the user leaves."""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctxbackends._chat.messages import Message
from ctxbackends._cli.backends import add_models
from ctxbackends._cli.chat.approval import ToolAnswers
from ctxbackends._cli.chat.display import Display
from ctxbackends._cli.chat.line_editor import LineEditor, open_terminal
from ctxbackends._cli.chat.output import print_notes, print_stats
from ctxbackends._cli.chat.session import ChatSession
from ctxbackends._cli.chat.slash_commands import CommandError, Conversation, LeaveConversation, complete, run_command
from ctxbackends._cli.error_messages import format_error
from ctxbackends._cli.terminal import say
from ctxbackends._util.directories import data_directory
from ctxbackends._util.text import one_line
from ctxbackends.errors import NoModelError

if TYPE_CHECKING:
    from ctxbackends._registry import Registry
    from ctxbackends._tool_loop import ToolRequest

HISTORY_NAME = "history"
HOW_TO_LEAVE = "press Ctrl-D or type /quit to leave"
BARE_QUIT = ("exit", "quit")
"""Messages that leave, as in other programs; a line that begins with a space is sent."""
_ARGUMENTS_SHOWN = 500  # characters
T = TypeVar("T")


async def converse(
    session: ChatSession, registry: Registry, *, create_display: Callable[[], Display], shows_stats: bool = False
) -> None:
    """Read messages and commands from the terminal until the user leaves.

    Args:
        session: The conversation. Its ``approve``, if it has one, is replaced by a question in the conversation.
        registry: The backends that can be chosen.
        create_display: Returns a display for each answer.
        shows_stats: Whether the token counts are printed after each answer.
    """
    with open_terminal():
        await _Terminal(session, registry, create_display, shows_stats=shows_stats).run()


class _Terminal:
    def __init__(
        self, session: ChatSession, registry: Registry, create_display: Callable[[], Display], *, shows_stats: bool
    ) -> None:
        self._session = session
        self._state = Conversation(session=session, registry=registry, say=say, shows_stats=shows_stats)
        self._create_display = create_display
        self._editor = LineEditor(data_directory() / HISTORY_NAME, self._complete, say)
        self._task: asyncio.Task[Any] | None = None
        self._answers = ToolAnswers()
        if session.approve is not None:
            session.approve = self._approve

    async def run(self) -> None:
        session = self._session
        say(f"{self._state.model or 'no model'} at {session.backend.endpoint}; /help shows the commands, Ctrl-D leaves")
        loop = asyncio.get_running_loop()
        with _on_interrupt(lambda: self._stop(loop)):
            while True:
                try:
                    line = await self._editor.read()
                    await self._handle(line)
                except KeyboardInterrupt:
                    say(HOW_TO_LEAVE)
                except (EOFError, LeaveConversation):
                    return

    def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop what runs; at a second Ctrl-C, if it does not end, leave the program. At a prompt, Ctrl-C is a key."""
        task = self._task
        if task is None:  # between two prompts
            return
        if task.cancelling():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(task.cancel)

    async def _handle(self, line: str) -> None:
        if not line.strip():
            return
        try:
            line.encode()
        except UnicodeEncodeError:
            say("the message is not UTF-8; it was not sent")
            return
        if line.strip() in BARE_QUIT and not line.startswith(" "):
            raise LeaveConversation
        if not line.startswith("/"):
            await self._answer(self._state.take_message(line))
            return
        try:
            message = await self._interruptible(run_command(self._state, line))
        except LeaveConversation:
            raise
        except (CommandError, click.ClickException) as error:
            say(str(error))
        except Exception as error:  # noqa: BLE001  # a mistake in one command does not end the conversation
            _report(error)
        else:
            if message is not None:
                await self._answer(message)

    async def _answer(self, message: Message) -> None:
        display = self._create_display()
        display.start()
        try:
            answer = await self._interruptible(self._session.ask(message, display))
        except Exception as error:  # noqa: BLE001  # as above, for an answer
            if isinstance(error, NoModelError):
                await add_models(error, self._session.backend)
            _report(error, advice="/retry sends the message again")
            return
        if answer is None:
            return
        say("")
        print_notes(answer, has_limit=self._session.options.get("max_tokens") is not None)
        if self._state.shows_stats:
            print_stats(self._session.turns[-1])

    async def _interruptible(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of ``work``, None if Ctrl-C stopped it."""
        self._task = task = asyncio.create_task(work)
        try:
            with _without_echo():
                return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # the program is about to end
                task.cancel()
                raise
            say("stopped")
            return None
        finally:
            self._task = None

    async def _approve(self, request: ToolRequest) -> bool:
        name = request.call.name
        if self._answers.always_approve(name):
            return True
        say(f"the model calls {name}({one_line(request.call.arguments):.{_ARGUMENTS_SHOWN}})")
        try:
            while True:
                may_run = self._answers.parse(name, await self._editor.ask(f"run it? {ToolAnswers.CHOICES}"))
                if may_run is not None:
                    return may_run
        except (KeyboardInterrupt, EOFError):
            assert self._task is not None  # a tool is called while an answer is awaited
            self._task.cancel()
            return False

    async def _complete(self, line: str) -> Any:
        return await complete(self._state, line)


def _report(error: Exception, advice: str = "") -> None:
    """Print an error on one line with its hint; one that is not expected with its traceback."""
    text = format_error(error)
    if text is None:
        traceback.print_exception(error)
    else:
        say("; ".join(part.strip() for part in (*text.splitlines(), advice) if part))


@contextmanager
def _on_interrupt(call: Callable[[], None]) -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _without_echo() -> Iterator[None]:
    """Do not show what is typed meanwhile, which would break what is drawn over. It is read afterwards."""
    if sys.platform == "win32":
        yield
        return
    import termios  # not on Windows

    terminal = sys.stdin.fileno()
    settings = termios.tcgetattr(terminal)
    silent = [*settings]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, settings)
