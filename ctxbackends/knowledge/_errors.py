"""What can go wrong between a source and a proposal; all of them are BackendErrors, so that one ``except`` holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctxbackends.errors import BackendError


class KnowledgeError(BackendError):
    """The root of what this package raises."""


class SourceError(KnowledgeError):
    """A source that cannot be used: missing, empty, binary, no UTF-8. ``source`` is its name, ``line`` (from 1) where
    the fault is."""

    def __init__(self, source: str, problem: str, *, line: int | None = None) -> None:
        super().__init__(f"{source}{f':{line}' if line is not None else ''}: {problem}")
        self.source = source
        self.line = line


class SourceChangedError(SourceError):
    """The source changed while it was read, so that citations would be wrong."""


class UnenforcedSchemaError(KnowledgeError):
    """The server does not hold answers to a schema, or nobody knows."""


class ChunkError(KnowledgeError):
    """The model gave no usable answer to one chunk. ``where`` is the part of the source; the answer's error is
    ``__cause__``."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


class JournalError(KnowledgeError):
    """The journal of a run cannot be used: another run holds it, or it cannot be written."""


class ProposalError(KnowledgeError):
    """A proposal or its review cannot be read, written or found."""


@contextmanager
def wrap_write_errors(path: Path) -> Iterator[None]:
    """Raise ProposalError in place of an OSError of the block, which writes ``path`` atomically."""
    try:
        yield
    except OSError as error:
        raise ProposalError(f"{path} cannot be written: {error.strerror}; nothing was changed") from error
