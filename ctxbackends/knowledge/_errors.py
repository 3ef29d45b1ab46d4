"""The exceptions of this package. All are BackendErrors, so one ``except`` clause catches them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctxbackends.errors import BackendError


class KnowledgeError(BackendError):
    """Base class of the exceptions of ``ctxbackends.knowledge``."""


class SourceError(KnowledgeError):
    """A source cannot be read: it is missing, empty, binary or not UTF-8.

    Attributes:
        source: The name of the source.
        line: The line with the problem, from 1; None if the problem is not in one line.
        reason: The problem without the source and the line.
    """

    def __init__(self, source: str, reason: str, *, line: int | None = None) -> None:
        super().__init__(f"{source}{f':{line}' if line is not None else ''}: {reason}")
        self.source = source
        self.line = line
        self.reason = reason


class MissingLibraryError(SourceError):
    """A source cannot be read without a library of the extra ``documents``."""


class SourceChangedError(SourceError):
    """A source changed while it was read, so its citations would be wrong."""


class UnenforcedSchemaError(KnowledgeError):
    """The server does not enforce a JSON schema, or a probe could not confirm that it does."""


class ChunkError(KnowledgeError):
    """The model gave no usable answer to one chunk; ``__cause__`` is the error of the answer.

    Attributes:
        where: The part of the source, such as ``notes.md:12-40``.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


class JournalError(KnowledgeError):
    """The journal of a run cannot be used: another run has locked it, or it cannot be written."""


class ProposalError(KnowledgeError):
    """A proposal or its review cannot be found, read or written."""


@contextmanager
def wrap_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes ``path`` atomically, into a ProposalError."""
    try:
        yield
    except OSError as error:
        raise ProposalError(f"cannot write {path}: {error.strerror}; nothing was changed") from error
