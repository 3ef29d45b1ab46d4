"""What ``ctx`` does with a backend: sessions and documents in, rows with checked citations out, for people to ratify.
Public names, imported on first use (PEP 562); no other code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxbackends.knowledge.errors import ChunkError as ChunkError
    from ctxbackends.knowledge.errors import JournalError as JournalError
    from ctxbackends.knowledge.errors import KnowledgeError as KnowledgeError
    from ctxbackends.knowledge.errors import ProposalError as ProposalError
    from ctxbackends.knowledge.errors import SourceChangedError as SourceChangedError
    from ctxbackends.knowledge.errors import SourceError as SourceError
    from ctxbackends.knowledge.errors import UnenforcedSchemaError as UnenforcedSchemaError
    from ctxbackends.knowledge.records import Decision as Decision
    from ctxbackends.knowledge.records import Evidence as Evidence
    from ctxbackends.knowledge.records import Kind as Kind
    from ctxbackends.knowledge.records import Learning as Learning
    from ctxbackends.knowledge.records import OpenQuestion as OpenQuestion
    from ctxbackends.knowledge.records import Quarantined as Quarantined
    from ctxbackends.knowledge.records import Record as Record
    from ctxbackends.knowledge.records import Risk as Risk
    from ctxbackends.knowledge.records import Row as Row
    from ctxbackends.knowledge.records import Task as Task
    from ctxbackends.knowledge.records import Term as Term
    from ctxbackends.knowledge.sources.base import Input as Input
    from ctxbackends.knowledge.sources.base import Segment as Segment
    from ctxbackends.knowledge.sources.base import Skipped as Skipped
    from ctxbackends.knowledge.sources.base import Source as Source

_HOMES = {
    "errors": (
        "ChunkError",
        "JournalError",
        "KnowledgeError",
        "ProposalError",
        "SourceChangedError",
        "SourceError",
        "UnenforcedSchemaError",
    ),
    "records": (
        "Decision",
        "Evidence",
        "Kind",
        "Learning",
        "OpenQuestion",
        "Quarantined",
        "Record",
        "Risk",
        "Row",
        "Task",
        "Term",
    ),
    "sources.base": (
        "Input",
        "Segment",
        "Skipped",
        "Source",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # one source for the names; a test holds it against the imports above


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # only on use

    value = getattr(import_module(f"ctxbackends.knowledge.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
