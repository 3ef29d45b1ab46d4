"""The SQLite file of the log: its schema and migrations, its modes, and its errors in words that help."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctxbackends._cli.log_entries import LogError

BUSY_SECONDS = 10.0
"""How long to wait for another process that writes."""

_MIN_INDEXED = 3  # characters: the index has runs of three

_APPLICATION_ID = 0x63747862  # "ctxb", in the header of the file: the database of another program is never written to
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE turns (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            conversation INTEGER NOT NULL,
            position INTEGER NOT NULL,
            created TEXT NOT NULL,
            backend TEXT NOT NULL,
            endpoint TEXT,
            model_path TEXT,
            api_key_env TEXT,
            server TEXT,
            model TEXT,
            served_model TEXT,
            system TEXT,
            options TEXT NOT NULL,
            messages TEXT NOT NULL,
            finish_reason TEXT,
            input_tokens INTEGER,
            output_tokens INTEGER,
            seconds REAL,
            is_private INTEGER NOT NULL,
            title TEXT NOT NULL,
            text TEXT NOT NULL
        )""",
        "CREATE INDEX turns_of_conversation ON turns (conversation, id)",
    ),
)
"""The statements that lead from each version of the schema (``user_version``) to the next."""


@contextlib.contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database, which is created with its directory if it is missing, and close it at the end.

    Raises:
        LogError: The file cannot be read or written, or is not a log of this version.
    """
    with translate_errors(path):
        _prepare_file(path)
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            database.row_factory = sqlite3.Row
            _migrate(database, path)
            yield database
        finally:
            database.close()


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Write in one transaction: all or nothing. It waits for other writers before it reads."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite has rolled back by itself when the disk is full
            database.execute("ROLLBACK")
        raise


def _prepare_file(path: Path) -> None:
    """Create the file for its user only. SQLite gives its other files (-wal, -shm, -journal) the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise LogError(f"{path}: is not a file; move it away")
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    if _version(database, path) == len(MIGRATIONS):
        return
    with contextlib.suppress(sqlite3.OperationalError):  # not on every file system; then the file itself is locked
        database.execute("PRAGMA journal_mode = WAL")
    with transaction(database):
        version = _version(database, path)  # again: another process may have migrated it
        for statement in (statement for migration in MIGRATIONS[version:] for statement in migration):
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Return the version of the schema, 0 for a new file. Raises LogError for another program's database."""
    application, version = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")
    )
    if application != _APPLICATION_ID:
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] or application or version:
            raise LogError(f"{path}: is a database of another program; {_MOVE}")
        return 0
    if version > len(MIGRATIONS):
        raise LogError(
            f"{path}: was written by a newer ctxbackends (schema {version}, and this one knows {len(MIGRATIONS)}); "
            "upgrade ctxbackends, or move the file away"
        )
    return version


_MOVE = "move the file away, and ctxbackends creates a new one"
_ADVICE = {
    sqlite3.SQLITE_NOTADB: f"is not a SQLite database; {_MOVE}",
    sqlite3.SQLITE_CORRUPT: f"is damaged; {_MOVE}",
    sqlite3.SQLITE_BUSY: f"is locked by another process for more than {BUSY_SECONDS:.0f} s; try again",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full; free some space, or run ctxbackends logs off",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; correct the modes of the file and its directory",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error; check it, or run ctxbackends logs off",
    sqlite3.SQLITE_READONLY: "cannot be written: read-only; correct its mode, or run ctxbackends logs off",
}


@contextlib.contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Raise LogError for every error of SQLite or the system in the block."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is the extended code
        advice = _ADVICE.get(code, f"cannot be used ({error}); {_MOVE}, or run ctxbackends logs off")
        raise LogError(f"{path}: {advice}") from error
    except OSError as error:
        where = error.filename or path
        raise LogError(
            f"{where}: {error.strerror or error}; correct it, or set CTXBACKENDS_DATA_DIR to another directory"
        ) from error


def search_turns(database: sqlite3.Connection, terms: Sequence[str], limit: int) -> list[sqlite3.Row]:
    """Return the newest turns that contain every term, in any case; terms are not a query language."""
    database.create_function("contains", 2, lambda text, term: term in text.lower(), deterministic=True)
    conditions, values = ["contains(text, ?)"] * len(terms), [term.lower() for term in terms]
    indexed = [term for term in terms if len(term) >= _MIN_INDEXED]
    if indexed and _update_index(database):
        conditions.append("id IN (SELECT rowid FROM turns_index WHERE turns_index MATCH ?)")
        values.append(" ".join('"' + term.replace('"', '""') + '"' for term in indexed))
    query = (
        "SELECT conversation, id, created, backend, coalesce(model, served_model) AS model, text FROM turns "  # noqa: S608  # our words
        f"WHERE {' AND '.join(reversed(conditions))} ORDER BY id DESC LIMIT ?"
    )
    return database.execute(query, (*reversed(values), limit)).fetchall()


def _update_index(database: sqlite3.Connection) -> bool:
    """Add the new turns to the index; return False where SQLite has none: the turns are read one by one then.

    Rows are never changed, so those after the last one are new. Recording stays free of the index, and is complete
    whether or not the SQLite that records has FTS5.
    """
    try:
        with transaction(database):
            database.execute(
                "CREATE VIRTUAL TABLE IF NOT EXISTS turns_index "
                "USING fts5 (text, content = 'turns', content_rowid = 'id', tokenize = 'trigram')"
            )
            database.execute(
                "INSERT INTO turns_index (rowid, text) SELECT id, text FROM turns "
                "WHERE id > (SELECT coalesce(max(id), 0) FROM turns_index_docsize)"
            )
    except sqlite3.OperationalError:  # no FTS5, or one without trigrams; or the file cannot be written
        return False
    return True
