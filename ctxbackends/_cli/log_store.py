"""The log of conversations, in a SQLite file in the user's data directory that only the user can read.

sqlite3 is imported where the file is opened: :attr:`LogStore.is_on` only asks whether a file exists.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ctxbackends._chat.messages import Message, TextPart, ToolResult
from ctxbackends._cli.log_entries import (
    ConversationSummary,
    LogEntry,
    LogError,
    LoggedConversation,
    SearchHit,
    Turn,
    unreadable,
)
from ctxbackends._cli.log_privacy import find_secrets, mask_secrets
from ctxbackends._util.directories import data_directory
from ctxbackends._util.text import one_line

if TYPE_CHECKING:
    import sqlite3

FILE_NAME = "logs.db"
MARKER_NAME = "logs-on"
"""A file next to the database that says that the log is on."""

MAX_ID = 2**63 - 1  # of SQLite
_TURN_COLUMNS = tuple(field.name for field in attrs.fields(Turn) if field.name != "is_taken_back")
_SETTINGS = ("backend", "endpoint", "model_path", "api_key_env", "server", "model", "system", "options")
_TITLE_LENGTH = 200
_EXCERPT_LENGTH = 40  # characters on each side of the first term


class LogStore:
    """The log. Each method opens the file and closes it again, so that any number of processes can use it.

    All methods raise LogError if the file cannot be read or written. An answer is never lost because of it: see
    :func:`record_or_warn`.

    Attributes:
        path: The database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path | None = None) -> LogStore:
        """Return the log at ``path``, by default in the data directory. Nothing is read or created yet."""
        return cls(data_directory() / FILE_NAME if path is None else path)

    @property
    def is_on(self) -> bool:
        """Whether conversations are to be recorded. They are not if the directory cannot be searched."""
        return os.path.exists(self._marker)

    @property
    def advice(self) -> str:
        """How to turn the log on, to follow a message that it has nothing; empty if it is on."""
        return "" if self.is_on else "; the log is off: turn it on with ctxbackends logs on"

    @property
    def _marker(self) -> Path:
        return self.path.with_name(MARKER_NAME)

    def turn_on(self) -> None:
        """Create the database if it is missing, and turn the log on."""
        with self._connect():
            self._marker.touch(mode=0o600)

    def turn_off(self) -> None:
        """Turn the log off. The database is kept."""
        from ctxbackends._cli.log_database import translate_errors  # imports sqlite3

        with translate_errors(self._marker):
            self._marker.unlink(missing_ok=True)

    # --- writing ----------------------------------------------------------------------------------------

    def record(self, entry: LogEntry) -> int:
        """Record a turn, and return the ID of its conversation for the next ``LogEntry.conversation``.

        API keys are masked. Of a private turn only the metadata is recorded. The caller asks :attr:`is_on` first.
        """
        secrets = find_secrets({entry.api_key_env or ""})
        messages = () if entry.is_private else tuple(entry.messages)
        return self._insert(
            {
                **attrs.asdict(entry, recurse=False, filter=lambda field, _: field.name in _TURN_COLUMNS),
                "endpoint": mask_secrets(entry.endpoint, secrets),
                "server": mask_secrets(entry.server, secrets),
                "system": None if entry.is_private else mask_secrets(entry.system, secrets),
                "options": {} if entry.is_private else mask_secrets(entry.options, secrets),
                "messages": [mask_secrets(message.to_dict(), secrets) for message in messages],
                "input_tokens": None if entry.usage is None else entry.usage.input_tokens,
                "output_tokens": None if entry.usage is None else entry.usage.output_tokens,
                "title": one_line(mask_secrets(messages[0].text, secrets))[:_TITLE_LENGTH] if messages else "",
                "text": mask_secrets("\n".join(_text_of(message) for message in messages), secrets),
            }
        )

    def truncate(self, conversation: int, length: int) -> None:
        """Take back all but the first ``length`` messages of a conversation, for ``/undo``.

        A turn that is recorded with the same ``position`` does that by itself.
        """
        last = attrs.asdict(self.turns(conversation)[-1], recurse=False)
        self._insert(
            {name: last[name] for name in (*_SETTINGS, "conversation")}
            | {"position": length, "messages": [], "is_private": False, "title": "", "text": ""}
        )

    def _insert(self, values: Mapping[str, Any]) -> int:
        from ctxbackends._cli.log_database import transaction  # imports sqlite3

        row = {
            **{name: _encodable(value) for name, value in values.items()},
            "conversation": values["conversation"] or 0,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": json.dumps(values["options"], default=repr),
            "messages": json.dumps(values["messages"]),
        }
        statement = f"INSERT INTO turns ({', '.join(row)}) VALUES ({', '.join(f':{name}' for name in row)})"  # noqa: S608  # our names
        with self._connect() as database, transaction(database):
            turn = database.execute(statement, row).lastrowid or 0
            database.execute("UPDATE turns SET conversation = id WHERE id = ? AND conversation = 0", (turn,))
            return int(row["conversation"] or turn)

    # --- reading ----------------------------------------------------------------------------------------

    def last_conversation(self) -> LoggedConversation:
        """Return the conversation with the newest turn, for ``--continue``.

        Raises:
            LogError: There is none, or it cannot be continued (see :meth:`conversation`).
        """
        newest = self.conversations(limit=1)
        if not newest:
            raise LogError(f"no conversation to continue: the log is empty{self.advice}")
        return self.conversation(newest[0].id)

    def conversation(self, conversation: int) -> LoggedConversation:
        """Return what continuing a conversation needs, for ``--conversation ID``.

        Set ``LogEntry.conversation`` to its ID and ``LogEntry.position`` to the number of its messages. Where the
        options of the command line name another backend, model or system message, those win.

        Raises:
            LogError: It is unknown, or not all of its messages were logged: a file in it matches ``privacy.redact``, or
                the log could not be written at the time.
        """
        turns = self.turns(conversation)
        if any(turn.is_private and not turn.is_taken_back for turn in turns):
            raise LogError(
                f"conversation {conversation} cannot be continued: a file in it matches privacy.redact of .ctxrc, so "
                "its messages were not logged; begin a new one"
            )
        messages: list[Message] = []
        for turn in turns:
            if turn.position > len(messages):
                raise LogError(
                    f"conversation {conversation} cannot be continued: a turn of it could not be logged, so messages "
                    "are missing; begin a new one"
                )
            messages[turn.position :] = turn.parse()
        return LoggedConversation(
            id=conversation,
            messages=tuple(messages),
            **{name: getattr(turns[-1], name) for name in _SETTINGS},
        )

    def turns(self, conversation: int) -> tuple[Turn, ...]:
        """Return the turns of a conversation in their order, with those that were taken back.

        Raises:
            LogError: The conversation is unknown.
        """
        query = f"SELECT {', '.join(_TURN_COLUMNS)} FROM turns WHERE conversation = ? ORDER BY id"  # noqa: S608  # our names
        rows = self._select(query, conversation) if conversation <= MAX_ID else []
        turns = [_build_turn(row) for row in rows]
        if not turns:
            raise LogError(f"no such conversation: {conversation}; list them with ctxbackends logs list")
        return tuple(
            attrs.evolve(turn, is_taken_back=any(later.position <= turn.position for later in turns[at + 1 :]))
            for at, turn in enumerate(turns)
        )

    def conversations(self, *, limit: int) -> tuple[ConversationSummary, ...]:
        """Return the newest conversations, the one with the newest turn first."""
        rows = self._select(_SUMMARIES, limit)
        return tuple(
            ConversationSummary(
                id=row["id"],
                created=row["created"],
                updated=row["updated"],
                turns=row["turns"],
                backend=row["backend"],
                model=row["model"],
                title=row["title"] or None,
                is_private=bool(row["is_private"]),
            )
            for row in rows
        )

    def search(self, text: str, *, limit: int) -> tuple[SearchHit, ...]:
        """Return the newest turns that contain every word of ``text``, in any case and as part of a word too."""
        terms = text.split()
        if not terms or not self._exists():
            return ()
        from ctxbackends._cli.log_database import search_turns  # imports sqlite3

        with self._connect() as database:
            rows = search_turns(database, terms, limit)
        return tuple(
            SearchHit(
                conversation=row["conversation"],
                turn=row["id"],
                created=row["created"],
                backend=row["backend"],
                model=row["model"],
                excerpt=_find_excerpt(row["text"], terms[0]),
            )
            for row in rows
        )

    def _select(self, query: str, *values: object) -> list[sqlite3.Row]:
        if not self._exists():
            return []
        with self._connect() as database:
            return database.execute(query, values).fetchall()

    def _exists(self) -> bool:
        from ctxbackends._cli.log_database import translate_errors  # imports sqlite3

        with translate_errors(self.path):
            return self.path.exists()

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        from ctxbackends._cli.log_database import connect  # imports sqlite3

        with connect(self.path) as database:
            yield database


_SUMMARIES = """
    SELECT first.id AS id, first.created AS created, last.created AS updated, turns, last.backend AS backend,
        coalesce(last.model, last.served_model) AS model, first.title AS title, grouped.is_private
    FROM (
        SELECT conversation, max(id) AS last, max(is_private) AS is_private,
            sum(is_private OR messages != '[]') AS turns  -- without those that only took something back
        FROM turns GROUP BY conversation ORDER BY last DESC LIMIT ?
    ) AS grouped
    JOIN turns AS first ON first.id = grouped.conversation JOIN turns AS last ON last.id = grouped.last
    ORDER BY grouped.last DESC
"""


def record_or_warn(store: LogStore, entry: LogEntry) -> int | None:
    """Record a turn whose answer has been printed, and return the ID of its conversation.

    If that fails, a warning on standard error says why, and the result is ``entry.conversation``: the command succeeds
    all the same (exit code 0), since it did what was asked.
    """
    try:
        return store.record(entry)
    except LogError as error:
        click.echo(f"warning: the answer was not logged: {error.format_message()}", err=True)
        return entry.conversation


def _build_turn(row: sqlite3.Row) -> Turn:
    values = dict(row)
    try:
        options, messages = json.loads(values["options"]), json.loads(values["messages"])
        if not isinstance(messages, list):
            raise TypeError("its messages must be a list")
    except (ValueError, TypeError) as error:
        raise unreadable(values["conversation"], error) from error
    return Turn(**values | {"options": options, "messages": tuple(messages), "is_private": bool(values["is_private"])})


def _encodable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _text_of(message: Message) -> str:
    return "\n".join(part.text for part in message.parts if isinstance(part, TextPart | ToolResult))


def _find_excerpt(text: str, term: str) -> str:
    match = re.search(re.escape(term), text, re.IGNORECASE)
    middle = match.start() if match else 0
    start, end = max(0, middle - _EXCERPT_LENGTH), middle + len(term) + _EXCERPT_LENGTH
    return ("…" if start else "") + one_line(text[start:end]) + ("…" if end < len(text) else "")
