"""Extract from one chunk: take the answer from the journal or the model, and split a chunk that is too long."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, TypeVar

import msgspec

from ctxbackends._chat.responses import Usage
from ctxbackends._client.backend import Backend
from ctxbackends._structured import Extraction, extract_result
from ctxbackends.errors import ContextOverflowError, IncompleteOutputError, StructuredOutputError
from ctxbackends.knowledge._errors import ChunkError
from ctxbackends.knowledge._extract.citations import CitedRow, QuoteChecker, check
from ctxbackends.knowledge._extract.journal import SECOND_LOOK, Journal
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.packing import AnyChunk, PackedChunk, find_part
from ctxbackends.knowledge._extract.prompt import Prompt, Question
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._extract.second_look import (
    IDENTITY,
    INSTRUCTIONS,
    MAX_TOKENS,
    QuoteAnswer,
    build_question,
    choose_passage,
)
from ctxbackends.knowledge._records import QuarantinedRow, title_of
from ctxbackends.knowledge._sources.base import SkippedInput

T = TypeVar("T")

MAX_SPLITS = 4
"""How often a chunk is split whose prompt or answer is too long."""


class ChunkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verified rows of a chunk for one question, or its failure.

    ``from_journal``: no request was sent for them. ``second_looks`` and ``recovered`` count the rows that the
    model was asked about again, and those whose new quote is valid.
    """

    chunk: AnyChunk
    question: Question
    rows: tuple[CitedRow | QuarantinedRow, ...] = ()
    usages: tuple[Usage, ...] = ()
    requested_model: str | None = None
    served_model: str | None = None
    from_journal: bool = False
    failure: SkippedInput | None = None
    second_looks: int = 0
    recovered: int = 0


class _JournalEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer in the journal. ``split``: the chunk was split, and its parts have the answers."""

    answer: msgspec.Raw = msgspec.Raw(b"null")
    requested_model: str | None = None
    served_model: str | None = None
    usage: Usage | None = None
    split: bool = False


class ChunkExtractor:
    """Sends the questions for each chunk, with at most ``max_in_flight`` chunks at a time.

    The questions of a chunk are sent one after the other, so that the server still has the chunk in its prefix cache.
    ``requests`` counts what was sent.
    With ``options.skip_failed``, a chunk without a usable answer is returned as a failure instead of raised.
    """

    def __init__(
        self,
        backend: Backend,
        prompt: Prompt,
        options: RunOptions,
        *,
        max_in_flight: int,
        answer_tokens: int,
        journal: Journal | None,
    ) -> None:
        self._backend = backend
        self._prompt = prompt
        self._options = options
        self._slots = asyncio.Semaphore(max_in_flight)
        self._answer_tokens = answer_tokens
        self._journal = journal
        self.requests = 0

    async def extract(self, chunk: AnyChunk) -> list[ChunkResult]:
        """Return the answers to the questions about a chunk, or about its parts where it had to be split.

        Raises:
            ChunkError: The model gave no usable answer.
            JournalError: The journal cannot be written.
        """
        async with self._slots:
            return [result for question in self._prompt.questions for result in await self._extract(chunk, question)]

    async def _extract(self, chunk: AnyChunk, question: Question, *, splits: int = 0) -> list[ChunkResult]:
        text = question.build_text(chunk.render())
        key = self._key(text, question.sha256)
        entry = self._read_journal(key)
        if entry is not None and not entry.split:
            return [await self._verify(self._from_journal(chunk, question, entry), question.decode(entry.answer))]
        if entry is None:
            try:
                result, answer = await self._request(chunk, question, text, key)
            except (ContextOverflowError, StructuredOutputError) as error:
                halves = chunk.split() if _can_split(chunk, splits, error) else None
                if halves is None:
                    return [self._fail(chunk, question, error)]
            else:
                return [await self._verify(result, answer)]
            self._write_journal(key, _JournalEntry(split=True))
        else:
            halves = chunk.split()
            assert halves is not None, "the chunk was split before"
        if not isinstance(chunk, PackedChunk):
            splits += 1
        return [result for half in halves for result in await self._extract(half, question, splits=splits)]

    async def _request(
        self, chunk: AnyChunk, question: Question, text: str, key: str
    ) -> tuple[ChunkResult, msgspec.Struct]:
        result = await self._ask(question.response_type, text, question.instructions, key, self._answer_tokens)
        completion = result.completion
        reply = ChunkResult(
            chunk=chunk,
            question=question,
            usages=(completion.usage,) if completion.usage is not None else (),
            requested_model=completion.requested_model,
            served_model=completion.served_model,
        )
        return reply, result.value

    async def _ask(self, target: type[T], text: str, instructions: str, key: str, max_tokens: int) -> Extraction[T]:
        """Send a request, and store its answer in the journal."""
        # Some models of cloud APIs reject the option temperature.
        sampling: dict[str, Any] = {"temperature": 0.0} if self._backend.schema_enforcement == "grammar" else {}
        self.requests += 1
        result = await extract_result(
            self._backend,
            target,
            text,
            instructions=instructions,
            model=self._options.model,
            max_tokens=max_tokens,
            **sampling,
        )
        completion = result.completion
        self._write_journal(
            key,
            _JournalEntry(
                answer=msgspec.Raw(msgspec.json.encode(result.value)),
                requested_model=completion.requested_model,
                served_model=completion.served_model,
                usage=completion.usage,
            ),
        )
        return result

    # --- citations --------------------------------------------------------------------------------

    async def _verify(self, result: ChunkResult, answer: msgspec.Struct) -> ChunkResult:
        """Check the rows of the answer; with ``second_look``, ask once more for the quotes that are not valid."""
        extracted = result.question.parse_rows(answer)
        rows = check(extracted, result.chunk)
        if not self._options.second_look:
            return msgspec.structs.replace(result, rows=tuple(rows))
        usages, second_looks, recovered = list(result.usages), 0, 0
        known: dict[tuple[str, str, int], CitedRow | QuarantinedRow] = {}  # the same row is asked about once
        for at, (row, checked) in enumerate(zip(extracted, rows, strict=True)):
            if isinstance(checked, CitedRow) or not title_of(row.record).strip():
                continue
            identity = (repr(row.record), row.quote, find_part(result.chunk, row.line)[0])
            if identity not in known:
                known[identity] = cited = await self._look_again(row, checked, result.chunk, usages)
                second_looks += 1
                recovered += isinstance(cited, CitedRow)
            rows[at] = known[identity]
        return msgspec.structs.replace(
            result, rows=tuple(rows), usages=tuple(usages), second_looks=second_looks, recovered=recovered
        )

    async def _look_again(
        self, row: ExtractedRow, quarantined: QuarantinedRow, chunk: AnyChunk, usages: list[Usage]
    ) -> CitedRow | QuarantinedRow:
        """Ask for a quote from the passage that the row is about; add the tokens to ``usages``."""
        passage, offset = choose_passage(chunk, row)
        question = build_question(passage, row)
        key = SECOND_LOOK + self._key(question, IDENTITY)
        entry = self._read_journal(key)
        if entry is not None:
            quote, usage = msgspec.json.decode(entry.answer, type=QuoteAnswer).quote, entry.usage
        else:
            max_tokens = min(MAX_TOKENS, self._answer_tokens)
            try:
                result = await self._ask(QuoteAnswer, question, INSTRUCTIONS, key, max_tokens)
            except (ContextOverflowError, IncompleteOutputError, StructuredOutputError):
                return quarantined
            quote, usage = result.value.quote, result.completion.usage
        usages += [usage] if usage is not None else []
        evidence = QuoteChecker(passage).find(quote, passage.segments[0].first)
        if isinstance(evidence, str):
            return quarantined
        segment = passage.segments[0]
        return CitedRow(row=row, evidence=evidence[0], relocated=not segment.first <= row.line - offset <= segment.last)

    def _fail(self, chunk: AnyChunk, question: Question, error: Exception) -> ChunkResult:
        """Return the failure of a chunk with ``skip_failed``, else raise it."""
        kinds = f" for {question.label}" if len(self._prompt.questions) > 1 else ""
        problem = f"no usable answer from the model{kinds}: {error}"
        if not self._options.skip_failed:
            raise ChunkError(chunk.where, f"{problem}; use --skip-failed to continue without this part") from error
        part = chunk.parts[0]
        skipped = SkippedInput(source=part.source, line=part.segments[0].first, reason=f"{chunk.where}: {problem}")
        return ChunkResult(chunk=chunk, question=question, failure=skipped)

    # --- the journal ------------------------------------------------------------------------------

    def _key(self, text: str, prompt: str) -> str:
        """Return a hash of all that the answer depends on: the prompt, the backend, the model and the text."""
        parts = (
            prompt,
            str(self._backend.type),
            self._backend.name,
            self._options.model or self._backend.default_model or "",
            text,
        )
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def _read_journal(self, key: str) -> _JournalEntry | None:
        raw = self._journal.get(key) if self._journal is not None else None
        return None if raw is None else msgspec.json.decode(raw, type=_JournalEntry)

    def _write_journal(self, key: str, entry: _JournalEntry) -> None:
        if self._journal is not None:
            self._journal.put(key, msgspec.json.encode(entry))

    def _from_journal(self, chunk: AnyChunk, question: Question, entry: _JournalEntry) -> ChunkResult:
        return ChunkResult(
            chunk=chunk,
            question=question,
            usages=(entry.usage,) if entry.usage is not None else (),
            requested_model=entry.requested_model,
            served_model=entry.served_model,
            from_journal=True,
        )


def _can_split(chunk: AnyChunk, splits: int, error: Exception) -> bool:
    """Return whether the parts of a chunk may have answers. An error concerns only one of several sources."""
    if isinstance(chunk, PackedChunk):
        return True
    is_too_long = isinstance(error, ContextOverflowError) or (
        isinstance(error, IncompleteOutputError) and error.finish_reason == "length"
    )
    return is_too_long and splits < MAX_SPLITS
