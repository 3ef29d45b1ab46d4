"""A run and its proposal: what the commands do. The journal, the privacy globs, and the one file that is written.

Writes nothing but the proposal and the journal; ``.context/*.md`` is read to say what stands there already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ctxbackends._client.backend import Backend
from ctxbackends.knowledge._errors import JournalError, SourceError
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.progress import OnEvent, Plan, Report, ResumePoint
from ctxbackends.knowledge._extract.run import Ingestion
from ctxbackends.knowledge._privacy.rules import is_private, is_redacted
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
    """``privacy.redact`` of a ``.ctxrc``: files that match one of ``globs``, which are relative to ``root``, go to
    loopback and private endpoints alone."""

    globs: tuple[str, ...] = ()
    root: Path = Path()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to: ``path`` of the proposal, None where nothing was found and nothing was written."""

    path: Path | None
    rows: tuple[Row, ...]
    report: Report


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: ``command`` is what the proposal says that it came from, ``directory`` where proposals are
    (``.context/proposals``), ``context`` the directory whose ``*.md`` say what is known already.

    ``resume``: True goes on where a run of the same inputs ended half-way; False starts anew; None starts anew only
    where there is nothing to go on with.
    """

    command: str
    sources: tuple[Source, ...]
    directory: Path
    options: RunOptions = RunOptions()
    context: Path | None = None
    privacy: Privacy = Privacy()
    resume: bool | None = None
    skipped: tuple[SkippedInput, ...] = ()

    @property
    def has_redacted(self) -> bool:
        """Whether there is a source that ``privacy`` keeps on this network."""
        return any(self._is_redacted(source) for source in self.sources)

    async def plan(self, backend: Backend, *, on_event: OnEvent | None = None) -> Plan:
        """What :meth:`propose` would send; nothing is written and no model is asked."""
        allowed, withheld = await self._allowed(backend, on_event)
        plan = await self._ingestion(backend, allowed, None, on_event).plan()
        return msgspec.structs.replace(plan, skipped=(*self.skipped, *withheld, *plan.skipped))

    async def propose(
        self, backend: Backend, *, on_event: OnEvent | None = None, on_row: Callable[[Row], object] | None = None
    ) -> Outcome:
        """Ask the model about all of it, and write one proposal, whole; or none, where an error comes or nothing is
        found. Finished chunks of a run that fails are kept in the journal."""
        prepare_directory(self.directory, context=self.context)  # said now, and not after hours of work
        allowed, withheld = await self._allowed(backend, on_event)
        journal = self._journal(allowed)
        try:
            if len(journal) and self.resume is None:
                raise JournalError(
                    f"a run of these inputs ended half-way, and its finished chunks are kept ({len(journal)}); "
                    "--resume goes on with them, --no-resume asks the model again"
                )
            if not self.resume:
                journal.clear()
            async with self._ingestion(backend, allowed, journal, on_event) as run:
                async for row in run:
                    if on_row is not None:
                        on_row(row)
                outcome = self._written(run, withheld)
            journal.remove()
        except BaseException:
            if len(journal) and on_event is not None:
                on_event(ResumePoint(chunks=len(journal)))
            raise
        finally:
            journal.close()
        return outcome

    def _ingestion(
        self, backend: Backend, sources: Sequence[Source], journal: Journal | None, on_event: OnEvent | None
    ) -> Ingestion:
        return Ingestion(
            backend,
            sources,
            self.options,
            journal=journal,
            on_event=on_event,
        )

    async def _allowed(self, backend: Backend, on_event: OnEvent | None) -> tuple[list[Source], list[SkippedInput]]:
        """The sources that may go to this backend, and those that stay here."""
        for one in self.skipped:
            if on_event is not None:
                on_event(one)
        secret = [one for one in self.sources if self._is_redacted(one)]
        if not secret or await is_private(backend.endpoint):
            return list(self.sources), []
        withheld = [
            SkippedInput(source=one.name, reason=f"not sent to {backend.endpoint}: privacy.redact of .ctxrc has it")
            for one in secret
        ]
        if len(secret) == len(self.sources):
            raise SourceError(
                secret[0].name,
                f"not sent to {backend.endpoint}: privacy.redact of .ctxrc has it, and there is nothing else to read; "
                "choose a backend on this machine or network",
            )
        for withheld_one in withheld:
            if on_event is not None:
                on_event(withheld_one)
        return [one for one in self.sources if one not in secret], withheld

    def _is_redacted(self, source: Source) -> bool:
        return source.path is not None and is_redacted(source.path, self.privacy.globs, root=self.privacy.root)

    def _journal(self, sources: Iterable[Source]) -> Journal:
        """The journal of these inputs: of their names, so that a changed file keeps what did not change in it; of the
        content, where there is no name."""
        of = [self.command, *self.options.kinds]
        for source in sources:
            of.append(str(source.path.absolute()) if source.path is not None else source.prepare().sha256)
        name = hashlib.sha256("\0".join(of).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        parent = self.directory.parent
        beside = self.directory.name == DIRECTORY and (parent.name == CONTEXT or parent == self.context)
        place = self.directory.parent / "journal" if beside else self.directory / ".journal"
        return Journal(place / f"{name}.jsonl")

    def _written(self, run: Ingestion, withheld: Sequence[SkippedInput]) -> Outcome:
        known = ExistingEntries.read(self.context) if self.context is not None else ExistingEntries()
        rows = tuple(msgspec.structs.replace(row, known_at=known.where(row)) for row in run.rows())
        skipped = (*self.skipped, *withheld, *run.report.skipped, *known.skipped)
        report = msgspec.structs.replace(run.report, skipped=skipped)
        if not rows and not run.quarantined:
            return Outcome(path=None, rows=(), report=report)
        now = datetime.now(UTC)
        first = self.sources[0].name
        facts = Facts(
            id=proposal_id(now, slugify(Path(first).stem or first)),
            created=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            command=self.command,
            kinds=self.options.kinds,
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
        )
        proposal = Proposal(facts=facts, rows=rows, quarantined=run.quarantined, skipped=skipped)
        return Outcome(path=write_proposal(self.directory, proposal), rows=rows, report=report)
