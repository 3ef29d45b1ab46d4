"""The line where the user types: history, several lines, and completion."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.plain_text import PlainTextOutput

from ctxbackends._cli.chat.slash_commands import Candidates
from ctxbackends._cli.live_line import can_redraw

Complete: TypeAlias = Callable[[str], Awaitable[Candidates]]
"""Returns the candidates for the last word of a line that begins with a slash."""

BLOCK = '"""'
"""Begins and ends a message of several lines, as in ``ollama run``."""
PROMPT = "> "
CONTINUATION = "  "


class PrivateHistory(FileHistory):
    """A history file that only the user can read. One that cannot be read or written is reported once, and left.

    Args:
        path: The file.
        report: Called with the reason.
    """

    def __init__(self, path: Path, report: Callable[[str], object]) -> None:
        super().__init__(str(path))
        self._report: Callable[[str], object] | None = report

    def load_history_strings(self) -> Iterable[str]:
        """Return the entries, the newest first."""
        try:
            return list(super().load_history_strings())
        except OSError as error:
            self._fail(error)
            return []

    def store_string(self, string: str) -> None:
        """Append an entry."""
        try:
            self._create()
            super().store_string(string.encode(errors="replace").decode())
        except OSError as error:
            self._fail(error)

    def _create(self) -> None:
        path = Path(os.fsdecode(self.filename))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def _fail(self, error: OSError) -> None:
        if self._report is not None:
            self._report(f"cannot use the history {os.fsdecode(self.filename)}: {error.strerror or error}")
            self._report = None


@contextmanager
def open_terminal() -> Iterator[None]:
    """Send no escape sequences to a terminal that does not know them, as long as the block runs."""
    output = PlainTextOutput(sys.stdout) if not can_redraw(sys.stdout) else None
    with create_app_session(output=output):
        yield


class LineEditor:
    """Reads messages from the terminal.

    Args:
        history: The file of the history, None to keep it in memory.
        complete: Completes a line that begins with a slash.
        report: Called with the reason why the history cannot be used.
    """

    def __init__(self, history: Path | None, complete: Complete, report: Callable[[str], object]) -> None:
        kept: History = InMemoryHistory() if history is None else PrivateHistory(history, report)
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=kept,
            completer=_SlashCompleter(complete),
            complete_while_typing=False,
            key_bindings=_build_bindings(),
            multiline=True,
            prompt_continuation=CONTINUATION,
            reserve_space_for_menu=4,
            enable_suspend=True,
        )

    async def read(self) -> str:
        """Return the next message, without the quotes of a block.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, and nothing was typed.
            EOFError: Ctrl-D was pressed, and nothing was typed; or the terminal is gone.
        """
        text = await self._session.prompt_async(handle_sigint=False)
        inner = text.strip()
        if inner.startswith(BLOCK) and len(inner) >= 2 * len(BLOCK) and inner.find(BLOCK, 3) == len(inner) - 3:
            return inner[3:-3].strip("\n")
        return text

    async def ask(self, question: str) -> str:
        """Return the answer to a question, which is not kept in the history."""
        session: PromptSession[str] = PromptSession(question)
        return await session.prompt_async(handle_sigint=False)


def _build_bindings() -> KeyBindings:
    bindings = KeyBindings()
    is_typing = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=is_typing)
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None  # Enter takes the completion
        elif buffer.text.startswith(BLOCK) and BLOCK not in buffer.text[len(BLOCK) :]:
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=is_typing)
    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("c-c", filter=is_typing)
    def clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings


class _SlashCompleter(Completer):
    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002  # theirs
        """Return nothing: the names of models come from a server, without blocking."""
        return ()

    async def get_completions_async(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002  # the base class's
    ) -> AsyncGenerator[Completion, None]:
        """Yield the completions of the last word."""
        text = document.text_before_cursor
        if text.startswith("/") and "\n" not in text:
            word = text if " " not in text else text.partition(" ")[2].lstrip()
            for candidate, remark in await self._complete(text):
                yield Completion(candidate, start_position=-len(word), display_meta=remark)
