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
    from ctxbackends.knowledge.ingestion import Ingestion as Ingestion
    from ctxbackends.knowledge.ingestion import ingest as ingest
    from ctxbackends.knowledge.journal import Journal as Journal
    from ctxbackends.knowledge.progress import Event as Event
    from ctxbackends.knowledge.progress import OnEvent as OnEvent
    from ctxbackends.knowledge.progress import Plan as Plan
    from ctxbackends.knowledge.progress import Progress as Progress
    from ctxbackends.knowledge.progress import Report as Report
    from ctxbackends.knowledge.progress import ResumePoint as ResumePoint
    from ctxbackends.knowledge.proposal import Facts as Facts
    from ctxbackends.knowledge.proposal import Proposal as Proposal
    from ctxbackends.knowledge.proposals import context_directory as context_directory
    from ctxbackends.knowledge.proposals import find_proposal as find_proposal
    from ctxbackends.knowledge.proposals import read_proposal as read_proposal
    from ctxbackends.knowledge.proposals import write_proposal as write_proposal
    from ctxbackends.knowledge.propose import Outcome as Outcome
    from ctxbackends.knowledge.propose import Privacy as Privacy
    from ctxbackends.knowledge.propose import Run as Run
    from ctxbackends.knowledge.records import Decision as Decision
    from ctxbackends.knowledge.records import Evidence as Evidence
    from ctxbackends.knowledge.records import Kind as Kind
    from ctxbackends.knowledge.records import Learning as Learning
    from ctxbackends.knowledge.records import OpenQuestion as OpenQuestion
    from ctxbackends.knowledge.records import QuarantinedRow as QuarantinedRow
    from ctxbackends.knowledge.records import Record as Record
    from ctxbackends.knowledge.records import Risk as Risk
    from ctxbackends.knowledge.records import Row as Row
    from ctxbackends.knowledge.records import Task as Task
    from ctxbackends.knowledge.records import Term as Term
    from ctxbackends.knowledge.review import Review as Review
    from ctxbackends.knowledge.review import Verdict as Verdict
    from ctxbackends.knowledge.run_options import RunOptions as RunOptions
    from ctxbackends.knowledge.sources.base import Input as Input
    from ctxbackends.knowledge.sources.base import Piece as Piece
    from ctxbackends.knowledge.sources.base import Segment as Segment
    from ctxbackends.knowledge.sources.base import SkippedInput as SkippedInput
    from ctxbackends.knowledge.sources.base import Source as Source
    from ctxbackends.knowledge.sources.documents import DOCXSource as DOCXSource
    from ctxbackends.knowledge.sources.documents import PDFSource as PDFSource
    from ctxbackends.knowledge.sources.find import DiscoveryResult as DiscoveryResult
    from ctxbackends.knowledge.sources.find import find_sources as find_sources
    from ctxbackends.knowledge.sources.find import source_of as source_of
    from ctxbackends.knowledge.sources.text import StdinSource as StdinSource
    from ctxbackends.knowledge.sources.text import TextSource as TextSource
    from ctxbackends.knowledge.sources.transcripts import TranscriptSource as TranscriptSource

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
    "ingestion": (
        "Ingestion",
        "ingest",
    ),
    "journal": ("Journal",),
    "progress": (
        "Event",
        "OnEvent",
        "Plan",
        "Progress",
        "Report",
        "ResumePoint",
    ),
    "proposal": (
        "Facts",
        "Proposal",
    ),
    "proposals": (
        "context_directory",
        "find_proposal",
        "read_proposal",
        "write_proposal",
    ),
    "propose": (
        "Outcome",
        "Privacy",
        "Run",
    ),
    "records": (
        "Decision",
        "Evidence",
        "Kind",
        "Learning",
        "OpenQuestion",
        "QuarantinedRow",
        "Record",
        "Risk",
        "Row",
        "Task",
        "Term",
    ),
    "review": (
        "Review",
        "Verdict",
    ),
    "sources.base": (
        "Input",
        "Piece",
        "Segment",
        "SkippedInput",
        "Source",
    ),
    "run_options": ("RunOptions",),
    "sources.documents": (
        "DOCXSource",
        "PDFSource",
    ),
    "sources.find": (
        "DiscoveryResult",
        "find_sources",
        "source_of",
    ),
    "sources.text": (
        "StdinSource",
        "TextSource",
    ),
    "sources.transcripts": ("TranscriptSource",),
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
