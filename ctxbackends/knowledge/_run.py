"""A run with its journal, its privacy rules and its proposal, as the commands use it.

It writes only the proposal and the journal. ``.context/*.md`` is read to find rows that are already there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ctxbackends._client.backend import Backend
from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import JournalError, SourceError
from ctxbackends.knowledge._extract.distributed import Workers
from ctxbackends.knowledge._extract.estimate import estimate_plan
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.progress import OnEvent, Plan, Report, ResumePoint
from ctxbackends.knowledge._extract.run import Ingestion
from ctxbackends.knowledge._own_kinds import OwnKind, name_of
from ctxbackends.knowledge._privacy.redaction import is_redacted
from ctxbackends.knowledge._privacy.rules import is_private
from ctxbackends.knowledge._proposals.existing import ExistingEntries
from ctxbackends.knowledge._proposals.model import Facts, Proposal
from ctxbackends.knowledge._proposals.store import (
    CONTEXT,
    DIRECTORY,
    prepare_directory,
    proposal_id,
    slugify,
    write_proposal,
)
from ctxbackends.knowledge._records import Row
from ctxbackends.knowledge._sources.base import SkippedInput, Source


class Privacy(msgspec.Struct, frozen=True):
    """``privacy.redact`` of a ``.ctxrc``: matching files are sent only to loopback and private endpoints.

    Attributes:
        globs: The globs.
        root: The directory that globs are relative to.
    """

    globs: tuple[str, ...] = ()
    root: Path = Path()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of :meth:`Run.propose`.

    Attributes:
        path: The file of the proposal; None if no rows were found and nothing was written.
        rows: The proposed rows.
        report: The figures of the run.
    """

    path: Path | None
    rows: tuple[Row, ...]
    report: Report


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run that writes a proposal.

    Attributes:
        command: The command, for the facts of the proposal.
        sources: The sources.
        directory: The directory for proposals, such as ``.context/proposals``.
        options: The options of the run.
        context: The directory whose ``*.md`` files are searched for rows with the same title; None for no search.
        privacy: The privacy rules.
        resume: True continues an unfinished run of the same inputs, False starts over, and None raises JournalError if
            there is an unfinished run.
        skipped: Input that was skipped when the sources were searched.
        prompt_files: The files of the instructions and of own kinds, which are in each prompt. ``privacy`` applies.
        workers: Worker processes that send the requests of :meth:`propose`; None for this process.
    """

    command: str
    sources: tuple[Source, ...]
    directory: Path
    options: RunOptions = RunOptions()
    context: Path | None = None
    privacy: Privacy = Privacy()
    resume: bool | None = None
    skipped: tuple[SkippedInput, ...] = ()
    prompt_files: tuple[Path, ...] = ()
    workers: Workers | None = None

    @property
    def has_redacted(self) -> bool:
        """Whether ``privacy`` keeps a source or a file of the prompt from public endpoints."""
        return any(self._is_redacted(path) for path in (*self.prompt_files, *(one.path for one in self.sources)))

    async def plan(self, backend: Backend, *, on_event: OnEvent | None = None) -> Plan:
        """Return the requests that :meth:`propose` would send. Nothing is sent to the model, and nothing is written.

        Args:
            backend: The backend.
            on_event: Called with each event.

        Raises:
            SourceError: A source cannot be read, or ``privacy`` keeps all of them from this endpoint.
            KnowledgeError: The model's context is too small.
            BackendError: A request to the server failed.
        """
        allowed, withheld = await self._select_sources(backend, on_event)
        plan = await self._ingestion(backend, allowed, None, on_event).plan()
        return msgspec.structs.replace(plan, skipped=(*self.skipped, *withheld, *plan.skipped))

    def estimate(self, *, on_event: OnEvent | None = None) -> Plan:
        """Return the requests that :meth:`propose` would send, without a server. It reads the sources, and blocks.

        ``privacy`` is not applied, since the endpoint is unknown.

        Args:
            on_event: Called with each event.

        Raises:
            SourceError: A source cannot be read.
        """
        notify = on_event or (lambda _: None)
        for skipped in self.skipped:
            notify(skipped)
        plan = estimate_plan(self.sources, self.options, on_event=notify)
        return msgspec.structs.replace(plan, skipped=(*self.skipped, *plan.skipped))

    async def propose(
        self, backend: Backend, *, on_event: OnEvent | None = None, on_row: Callable[[Row], object] | None = None
    ) -> Outcome:
        """Extract rows and write one proposal, unless an error is raised or no rows are found.

        If the run fails, the answers to finished chunks are kept in the journal.

        Args:
            backend: The backend.
            on_event: Called with each event.
            on_row: Called with each new row.

        Raises:
            SourceError: A source cannot be read, or ``privacy`` keeps all of them from this endpoint.
            UnenforcedSchemaError: The server does not enforce the schema.
            ChunkError: The model gave no usable answer to a chunk.
            JournalError: There is an unfinished run and ``resume`` is None, or the journal cannot be used.
            ProposalError: The proposal cannot be written.
            KnowledgeError: The model's context is too small.
            EngineError: The workers cannot be started.
            BackendError: A request to the server failed.
        """
        prepare_directory(self.directory, context=self.context)  # before the run, which may take hours
        allowed, withheld = await self._select_sources(backend, on_event)
        journal = self._open_journal(allowed)
        try:
            if len(journal) and self.resume is None:
                count = pluralize(len(journal), "answer")
                raise JournalError(
                    f"an earlier run of these inputs is unfinished: {count} in the journal; use --resume "
                    "to continue it, or --no-resume to start over"
                )
            if not self.resume:
                journal.clear()
            async with self._ingestion(backend, allowed, journal, on_event) as run:
                async for row in run:
                    if on_row is not None:
                        on_row(row)
                outcome = self._write(run, withheld)
            journal.remove()
        except BaseException:
            if len(journal) and on_event is not None:
                on_event(ResumePoint(answers=len(journal)))
            raise
        finally:
            journal.close()
        return outcome

    def _ingestion(
        self, backend: Backend, sources: Sequence[Source], journal: Journal | None, on_event: OnEvent | None
    ) -> Ingestion:
        return Ingestion(backend, sources, self.options, journal=journal, on_event=on_event, workers=self.workers)

    async def _select_sources(
        self, backend: Backend, on_event: OnEvent | None
    ) -> tuple[list[Source], list[SkippedInput]]:
        """Return the sources that may be sent to this backend, and the others as skipped input."""
        notify = on_event or (lambda _: None)
        for skipped in self.skipped:
            notify(skipped)
        if not self.has_redacted or await is_private(backend.endpoint):
            return list(self.sources), []
        problem = f"not sent to {backend.endpoint}: matches privacy.redact of .ctxrc"
        advice = "choose a backend on this machine or in a private network"
        for path in self.prompt_files:
            if self._is_redacted(path):
                raise SourceError(str(path), f"{problem}, and is in each prompt; {advice}")
        redacted = [source for source in self.sources if self._is_redacted(source.path)]
        withheld = [SkippedInput(source=source.name, reason=problem) for source in redacted]
        if len(redacted) == len(self.sources):
            raise SourceError(redacted[0].name, f"{problem}, and there is nothing else to read; {advice}")
        for skipped in withheld:
            notify(skipped)
        return [source for source in self.sources if source not in redacted], withheld

    def _is_redacted(self, path: Path | None) -> bool:
        return path is not None and is_redacted(path, self.privacy.globs, root=self.privacy.root)

    def _open_journal(self, sources: Iterable[Source]) -> Journal:
        """Open the journal of these inputs.

        It is named after their paths, so that the chunks of a changed file are found, else after their hashes.
        """
        identity = [
            self.command,
            *map(name_of, self.options.kinds),
            *(str(one.path.absolute()) if one.path is not None else one.prepare().sha256 for one in sources),
        ]
        name = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        parent = self.directory.parent
        in_context = self.directory.name == DIRECTORY and (parent.name == CONTEXT or parent == self.context)
        directory = parent / "journal" if in_context else self.directory / ".journal"
        return Journal(directory / f"{name}.jsonl")

    def _write(self, run: Ingestion, withheld: Sequence[SkippedInput]) -> Outcome:
        entries = ExistingEntries.read(self.context) if self.context is not None else ExistingEntries()
        rows = tuple(msgspec.structs.replace(row, known_at=entries.find(row)) for row in run.rows())
        skipped = (*self.skipped, *withheld, *run.report.skipped, *entries.skipped)
        report = msgspec.structs.replace(run.report, skipped=skipped)
        if not rows and not run.quarantined:
            return Outcome(path=None, rows=(), report=report)
        now = datetime.now(UTC)
        first_name = self.sources[0].name
        instructions = self.options.instructions
        facts = Facts(
            id=proposal_id(now, slugify(Path(first_name).stem or first_name)),
            created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            command=self.command,
            kinds=tuple(map(name_of, self.options.kinds)),
            backend=report.backend,
            backend_type=report.backend_type,
            endpoint=report.endpoint,
            requested_model=report.requested_model or "",
            served_model=report.served_model,
            server_version=report.server_version,
            schema_sha256=report.schema_sha256,
            enforcement=report.enforcement,
            inputs=report.inputs,
            chunks=report.chunks,
            input_tokens=report.input_tokens,
            output_tokens=report.output_tokens,
            cached_input_tokens=report.cached_input_tokens,
            masked=report.masked,
            own_kinds=tuple(kind for kind in self.options.kinds if isinstance(kind, OwnKind)),
            instructions_sha256=None if instructions is None else hashlib.sha256(instructions.encode()).hexdigest(),
        )
        proposal = Proposal(facts=facts, rows=rows, quarantined=run.quarantined, skipped=skipped)
        return Outcome(path=write_proposal(self.directory, proposal), rows=rows, report=report)
