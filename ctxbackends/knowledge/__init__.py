"""Extract decisions and tasks from sessions and documents, with verified citations.

The public names are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends.knowledge._errors import ChunkError as ChunkError
    from ctxbackends.knowledge._errors import JournalError as JournalError
    from ctxbackends.knowledge._errors import KnowledgeError as KnowledgeError
    from ctxbackends.knowledge._errors import MissingLibraryError as MissingLibraryError
    from ctxbackends.knowledge._errors import ProposalError as ProposalError
    from ctxbackends.knowledge._errors import SourceChangedError as SourceChangedError
    from ctxbackends.knowledge._errors import SourceError as SourceError
    from ctxbackends.knowledge._errors import UnenforcedSchemaError as UnenforcedSchemaError
    from ctxbackends.knowledge._extract.activity import Activity as Activity
    from ctxbackends.knowledge._extract.distributed import Workers as Workers
    from ctxbackends.knowledge._extract.journal import Journal as Journal
    from ctxbackends.knowledge._extract.options import RunOptions as RunOptions
    from ctxbackends.knowledge._extract.progress import Event as Event
    from ctxbackends.knowledge._extract.progress import OnEvent as OnEvent
    from ctxbackends.knowledge._extract.progress import Plan as Plan
    from ctxbackends.knowledge._extract.progress import Progress as Progress
    from ctxbackends.knowledge._extract.progress import Report as Report
    from ctxbackends.knowledge._extract.progress import ResumePoint as ResumePoint
    from ctxbackends.knowledge._extract.run import Ingestion as Ingestion
    from ctxbackends.knowledge._extract.run import ingest as ingest
    from ctxbackends.knowledge._own_kinds import OwnKind as OwnKind
    from ctxbackends.knowledge._proposals.model import Facts as Facts
    from ctxbackends.knowledge._proposals.model import Proposal as Proposal
    from ctxbackends.knowledge._proposals.review import Review as Review
    from ctxbackends.knowledge._proposals.review import Verdict as Verdict
    from ctxbackends.knowledge._proposals.store import context_directory as context_directory
    from ctxbackends.knowledge._proposals.store import find_proposal as find_proposal
    from ctxbackends.knowledge._proposals.store import read_proposal as read_proposal
    from ctxbackends.knowledge._proposals.store import write_proposal as write_proposal
    from ctxbackends.knowledge._records import Decision as Decision
    from ctxbackends.knowledge._records import Evidence as Evidence
    from ctxbackends.knowledge._records import Kind as Kind
    from ctxbackends.knowledge._records import Learning as Learning
    from ctxbackends.knowledge._records import OpenQuestion as OpenQuestion
    from ctxbackends.knowledge._records import OwnRecord as OwnRecord
    from ctxbackends.knowledge._records import QuarantinedRow as QuarantinedRow
    from ctxbackends.knowledge._records import Record as Record
    from ctxbackends.knowledge._records import Risk as Risk
    from ctxbackends.knowledge._records import Row as Row
    from ctxbackends.knowledge._records import Task as Task
    from ctxbackends.knowledge._records import Term as Term
    from ctxbackends.knowledge._run import Outcome as Outcome
    from ctxbackends.knowledge._run import Privacy as Privacy
    from ctxbackends.knowledge._run import Run as Run
    from ctxbackends.knowledge._sources.base import Input as Input
    from ctxbackends.knowledge._sources.base import Piece as Piece
    from ctxbackends.knowledge._sources.base import Segment as Segment
    from ctxbackends.knowledge._sources.base import SkippedInput as SkippedInput
    from ctxbackends.knowledge._sources.base import Source as Source
    from ctxbackends.knowledge._sources.documents.docx import DOCXSource as DOCXSource
    from ctxbackends.knowledge._sources.documents.html import HTMLSource as HTMLSource
    from ctxbackends.knowledge._sources.documents.mail import MailSource as MailSource
    from ctxbackends.knowledge._sources.documents.notebook import NotebookSource as NotebookSource
    from ctxbackends.knowledge._sources.documents.odt import ODTSource as ODTSource
    from ctxbackends.knowledge._sources.documents.pdf import PDFSource as PDFSource
    from ctxbackends.knowledge._sources.documents.pptx import PPTXSource as PPTXSource
    from ctxbackends.knowledge._sources.find import DiscoveryResult as DiscoveryResult
    from ctxbackends.knowledge._sources.find import find_sources as find_sources
    from ctxbackends.knowledge._sources.formats import source_of as source_of
    from ctxbackends.knowledge._sources.text import AsciiDocSource as AsciiDocSource
    from ctxbackends.knowledge._sources.text import OrgSource as OrgSource
    from ctxbackends.knowledge._sources.text import RSTSource as RSTSource
    from ctxbackends.knowledge._sources.text import StdinSource as StdinSource
    from ctxbackends.knowledge._sources.text import TextSource as TextSource
    from ctxbackends.knowledge._sources.transcripts import TranscriptSource as TranscriptSource
