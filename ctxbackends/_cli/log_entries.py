"""The values of the log: a turn to record, and conversations as the log has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import click

from ctxbackends._chat.messages import Message
from ctxbackends._chat.responses import Usage


class LogError(click.ClickException):
    """The log cannot be read or written. The message names the file and says what to do."""


@attrs.frozen(kw_only=True)
class LogEntry:
    """One turn to record: a question, its answer, and the rounds of tools between them.

    Attributes:
        conversation: The ID of the conversation that it continues, None to begin one.
        position: The number of messages before it, without the system message. A turn replaces those from its position
            on (``/undo``, ``/retry``); the log keeps them as taken back.
        messages: The messages that it added, the user's first. An answer that was stopped ends with its part.
        backend: The name of the backend.
        endpoint: The value of ``--endpoint``, None for a backend of ``.ctxrc``.
        model_path: The value of ``--model-path``.
        api_key_env: The value of ``--api-key-env``: the name of a variable, never a key.
        server: The endpoint that answered (``Backend.endpoint``).
        model: The model that was requested, None for the backend's default.
        served_model: The model that the server named.
        system: The system message.
        options: The other options of the request, as JSON values.
        finish_reason: Why the answer ended, None if it was stopped.
        usage: Token counts, None if the server reports none.
        seconds: Seconds from the request to the end of the answer.
        is_private: Whether something in the conversation so far came from a file that matches ``privacy.redact`` (see
            :class:`ctxbackends._cli.log_privacy.PrivateFiles`). The log then keeps no message, system message or
            option of this turn.
    """

    messages: Sequence[Message]
    backend: str
    conversation: int | None = None
    position: int = 0
    endpoint: str | None = None
    model_path: str | None = None
    api_key_env: str | None = None
    server: str | None = None
    model: str | None = None
    served_model: str | None = None
    system: str | None = None
    options: Mapping[str, Any] = attrs.Factory(dict)
    finish_reason: str | None = None
    usage: Usage | None = None
    seconds: float | None = None
    is_private: bool = False


@attrs.frozen(kw_only=True)
class Turn:
    """A turn of the log.

    Attributes:
        id: Its ID.
        conversation: The ID of its conversation.
        position: The number of messages before it, without the system message.
        created: The time (UTC, ISO 8601) at which it was recorded.
        backend: The name of the backend.
        endpoint: The value of ``--endpoint``, None for a backend of ``.ctxrc``.
        model_path: The value of ``--model-path``.
        api_key_env: The value of ``--api-key-env``: the name of a variable, never a key.
        server: The endpoint that answered.
        model: The model that was requested, None for the backend's default.
        served_model: The model that the server named.
        system: The system message.
        options: The other options of the request.
        messages: The dicts of :meth:`Message.to_dict`; empty if ``is_private``.
        finish_reason: Why the answer ended, None if it was stopped.
        input_tokens: Tokens of the prompt, None if the server reports none.
        output_tokens: Tokens of the answer, None if the server reports none.
        seconds: Seconds from the request to the end of the answer.
        is_private: Whether something in the conversation so far came from a file that matches ``privacy.redact``.
        is_taken_back: Whether a later turn replaced it.
    """

    id: int
    conversation: int
    position: int
    created: str
    backend: str
    endpoint: str | None
    model_path: str | None
    api_key_env: str | None
    server: str | None
    model: str | None
    served_model: str | None
    system: str | None
    options: Mapping[str, Any]
    messages: tuple[Mapping[str, Any], ...]
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    seconds: float | None
    is_private: bool
    is_taken_back: bool = False

    def parse(self) -> list[Message]:
        """Return the messages. Raises LogError if this version cannot read them."""
        try:
            return [Message.from_dict(message) for message in self.messages]
        except (ValueError, TypeError) as error:
            raise unreadable(self.conversation, error) from error


def unreadable(conversation: int, error: Exception) -> LogError:
    """Return the error for a conversation whose messages cannot be read."""
    return LogError(
        f"conversation {conversation} cannot be read: {error}; another version of ctxbackends wrote it, or the log is "
        "damaged"
    )


@attrs.frozen(kw_only=True)
class LoggedConversation:
    """A conversation of the log, and how to continue it. The settings are those of its last turn.

    Attributes:
        id: Its ID, for ``LogEntry.conversation`` and ``--conversation``.
        backend: The name of the backend, for ``--backend``.
        endpoint: The value of ``--endpoint``, None for a backend of ``.ctxrc``.
        model_path: The value of ``--model-path``.
        api_key_env: The value of ``--api-key-env``.
        server: The endpoint that answered. Say so if another one would continue it.
        model: The model that was requested, None for the backend's default.
        system: The system message.
        options: The other options of the request.
        messages: The messages without the system message, from :meth:`Message.from_dict`.
    """

    id: int
    backend: str
    endpoint: str | None
    model_path: str | None
    api_key_env: str | None
    server: str | None
    model: str | None
    system: str | None
    options: Mapping[str, Any]
    messages: tuple[Message, ...]


@attrs.frozen(kw_only=True)
class ConversationSummary:
    """A line of ``logs list``.

    Attributes:
        id: The ID of the conversation.
        created: The time (UTC, ISO 8601) of its first turn.
        updated: The time (UTC, ISO 8601) of its last turn.
        turns: The number of its turns.
        backend: The name of the backend of its last turn.
        model: The model of its last turn, None for the backend's default.
        title: The first question, None if the log does not keep it.
        is_private: Whether the log keeps no messages of a turn.
    """

    id: int
    created: str
    updated: str
    turns: int
    backend: str
    model: str | None
    title: str | None
    is_private: bool


@attrs.frozen(kw_only=True)
class SearchHit:
    """A turn that contains every term.

    Attributes:
        conversation: The ID of its conversation.
        turn: Its ID.
        created: The time (UTC, ISO 8601) at which it was recorded.
        backend: The name of the backend.
        model: The model, None for the backend's default.
        excerpt: Its text around the first term.
    """

    conversation: int
    turn: int
    created: str
    backend: str
    model: str | None
    excerpt: str
