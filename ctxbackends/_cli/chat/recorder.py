"""Record the turns of a session in the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ctxbackends._chat.messages import Message
from ctxbackends._cli.log_entries import LogError
from ctxbackends._cli.log_store import LogStore, record_or_warn

if TYPE_CHECKING:
    from ctxbackends._cli.chat.session import ChatSession, Turn


@attrs.define(kw_only=True)
class Recorder:
    """Records each turn of one session.

    Attributes:
        store: The log.
        endpoint: The value of ``--endpoint``.
        model_path: The path of the model of ``--model-path``.
        api_key_env: The value of ``--api-key-env``.
        conversation: The ID of the conversation in the log, None before its first turn.
        is_private: Whether something in the conversation came from a file that matches ``privacy.redact``.
    """

    store: LogStore
    endpoint: str | None = None
    model_path: str | None = None
    api_key_env: str | None = None
    conversation: int | None = None
    is_private: bool = False

    def add_files(self, paths: Iterable[Path | None]) -> None:
        """Note the files that are about to become part of the conversation. Raises ConfigError for a bad .ctxrc."""
        names = [path for path in paths if path is not None]
        if names and not self.is_private:
            from ctxbackends._cli.log_privacy import PrivateFiles  # needed only for files

            private = PrivateFiles.of_ctxrc()
            self.is_private = any(path in private for path in names)

    def record(self, session: ChatSession, messages: Sequence[Message], turn: Turn | None) -> None:
        """Record the messages that a turn has added to the session; ``turn`` is None if it was stopped."""
        from ctxbackends._cli.log_entries import LogEntry  # needed only with a log

        completion = None if turn is None else turn.completion
        entry = LogEntry(
            messages=messages,
            backend=session.backend.name,
            conversation=self.conversation,
            position=len(session.messages) - len(messages),
            endpoint=self.endpoint,
            model_path=self.model_path,
            api_key_env=self.api_key_env,
            server=session.backend.endpoint,
            model=session.model,
            served_model=None if completion is None else completion.served_model,
            system=session.system,
            options=_without_format(session.options),
            finish_reason=None if completion is None else completion.finish_reason,
            usage=None if turn is None else turn.usage,
            seconds=None if turn is None else turn.seconds,
            is_private=self.is_private,
        )
        self.conversation = record_or_warn(self.store, entry)

    def begin(self) -> None:
        """Begin a new conversation with the next turn."""
        self.conversation = None
        self.is_private = False

    def truncate(self, length: int) -> None:
        """Take back all but the first messages of the conversation."""
        if self.conversation is not None:
            try:
                self.store.truncate(self.conversation, length)
            except LogError as error:
                click.echo(error.format_message(), err=True)


def _without_format(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without the format, which is for one answer; the others are for the next message too."""
    return {name: value for name, value in options.items() if name != "response_format"}
