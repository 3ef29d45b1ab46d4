"""Extract from one chunk: from the journal or the model, which is asked again after gaps."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions
from ctxbackends._chat.responses import Completion, Usage
from ctxbackends._client.backend import Backend
from ctxbackends._structured import Plan, plan_extraction
from ctxbackends._util.text import pluralize
from ctxbackends.errors import ContextOverflowError, StructuredOutputError
from ctxbackends.knowledge._errors import ChunkError
from ctxbackends.knowledge._extract.activity import Monitor, Work
from ctxbackends.knowledge._extract.budget import build_messages
from ctxbackends.knowledge._extract.citations import CitedRow, QuoteChecker, check
from ctxbackends.knowledge._extract.cut_answers import (
    MAX_CUTS,
    can_be_too_long,
    has_other_cause,
    is_worth_asking,
    parse_cut_answer,
)
from ctxbackends.knowledge._extract.journal import REPEAT, SECOND_LOOK, AnswerFiles
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.packing import AnyChunk, PackedChunk, find_part
from ctxbackends.knowledge._extract.passes import build_text
from ctxbackends.knowledge._extract.prompt import Prompt, Question
from ctxbackends.knowledge._extract.results import ChunkResult, add_rows, mark_as_cut, merge, skip
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._extract.second_look import (
    IDENTITY,
    INSTRUCTIONS,
    MAX_TOKENS,
    QuoteAnswer,
    build_question,
    choose_passage,
    repeats_example,
)
from ctxbackends.knowledge._own_kinds import AnyKind, find_record_problem, name_of
from ctxbackends.knowledge._records import QuarantinedRow, Record, kind_of, normalize_title, title_of

T = TypeVar("T")

NO_ANSWER = "no usable answer from the model"

MAX_SPLITS = 4
"""How often a chunk is split whose prompt or answer is too long."""


class _JournalEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer in the journal.

    ``cut``: it was truncated, and has the complete rows. ``split``: the chunk was split, and its parts have answers.
    """

    answer: msgspec.Raw = msgspec.Raw(b"null")
    requested_model: str | None = None
    served_model: str | None = None
    usage: Usage | None = None
    cut: bool = False
    split: bool = False

    @property
    def has_answer(self) -> bool:
        """Whether there are rows; not for a split chunk whose answer had none."""
        return bytes(self.answer) != b"null"


class _Attempt(msgspec.Struct, frozen=True):
    """A question about a chunk or a part of one.

    ``splits`` and ``cuts``: how often the chunk was split before, and how often of these because of an incomplete
    answer. ``is_extra``: there is an answer about the text already, so a failure is reported and not raised.
    """

    question: Question
    work: Work
    splits: int = 0
    cuts: int = 0
    is_extra: bool = False

    def can_split(self, chunk: AnyChunk, *, is_cut: bool = False) -> bool:
        """Return whether the chunk may be split; ``is_cut``: because of an incomplete answer."""
        if isinstance(chunk, PackedChunk):
            return True  # a problem concerns one of several sources
        return self.splits < MAX_SPLITS and (not is_cut or self.cuts < MAX_CUTS) and chunk.split() is not None

    def split(self, chunk: AnyChunk, *, is_cut: bool, is_extra: bool) -> _Attempt:
        """Return the attempt for the parts of a chunk."""
        is_extra = self.is_extra or is_extra
        if isinstance(chunk, PackedChunk):
            return _Attempt(self.question, self.work, self.splits, self.cuts, is_extra)
        return _Attempt(self.question, self.work, self.splits + 1, self.cuts + is_cut, is_extra)


class ExtractorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a :class:`ChunkExtractor`. They are pickled.

    Attributes:
        prompt: The questions.
        options: The options of the run.
        answer_tokens: The most tokens of an answer.
        max_in_flight: The most chunks at a time, with one request each.
    """

    prompt: Prompt
    options: RunOptions
    answer_tokens: int
    max_in_flight: int


class ChunkExtractor:
    """Sends the questions for each chunk, with at most ``max_in_flight`` chunks at a time.

    The questions of a chunk are sent one after the other, so that the server still has the chunk in its prefix cache.
    ``requests`` counts what was sent.
    With ``options.skip_failed``, a chunk without a usable answer is returned as a failure instead of raised.
    """

    def __init__(
        self,
        backend: Backend,
        settings: ExtractorSettings,
        *,
        journal: AnswerFiles | None,
        monitor: Monitor,
    ) -> None:
        self._backend = backend
        self._prompt = settings.prompt
        self._options = settings.options
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._answer_tokens = settings.answer_tokens
        self._journal = journal
        self._monitor = monitor
        self.requests = 0

    async def extract(self, chunk: AnyChunk) -> list[ChunkResult]:
        """Return the answers to the questions about a chunk, or about its parts where it had to be split.

        Raises:
            ChunkError: The model gave no usable answer.
            JournalError: The journal cannot be written.
        """
        async with self._slots:
            with self._monitor.work(chunk) as work:
                attempts = [_Attempt(question, work) for question in self._prompt.questions]
                return [result for attempt in attempts for result in await self._extract(chunk, attempt)]

    async def _extract(self, chunk: AnyChunk, attempt: _Attempt) -> list[ChunkResult]:
        is_packed = isinstance(chunk, PackedChunk)
        question = attempt.question.packed if is_packed else attempt.question
        text = question.build_text(chunk.render())
        key = self._key(text, question.sha256)
        entry = self._read_journal(key)
        from_journal = entry is not None
        if entry is None:
            try:
                entry = await self._request(chunk, question, attempt, text, key)
            except (ContextOverflowError, StructuredOutputError) as error:
                is_too_long = isinstance(error, ContextOverflowError) or is_packed
                if not (is_too_long and attempt.can_split(chunk)):
                    return [self._fail(chunk, attempt, error)]
                entry = _JournalEntry(split=True)
                self._write_journal(key, entry)
        result = _build_result(chunk, question, entry, from_journal=from_journal)
        full: list[AnyKind] = []
        if entry.has_answer:
            rows = question.parse_rows(question.decode(entry.answer))
            checked = check(rows, chunk)
            full = [] if entry.cut else _find_full_kinds(question, rows, checked)
            result = await self._verify(result, chunk, rows, checked, attempt.work)
            if entry.cut and not entry.split:
                problem = f"the answer was truncated after {pluralize(len(rows), 'complete row')}"
                result = mark_as_cut(result, chunk, problem)
        if entry.split:
            return await self._extract_parts(chunk, attempt, result, is_cut=entry.cut)
        if not full:
            return [await self._add_passes(result, chunk, question, text, attempt.work)]
        if len(question.kinds) > 1 and not is_packed:  # a separate list has room for more rows
            for kind in full:
                alone = _Attempt(question.select(kind), attempt.work, attempt.splits, attempt.cuts, is_extra=True)
                result = merge(result, await self._extract(chunk, alone))
            return [await self._add_passes(result, chunk, question, text, attempt.work)]
        if attempt.can_split(chunk, is_cut=True):
            return await self._extract_parts(chunk, attempt, result, is_cut=True)
        problem = f"the list of the answer is full after {pluralize(question.bounds.rows, 'row')}"
        return [mark_as_cut(result, chunk, problem)]

    async def _add_passes(
        self, result: ChunkResult, chunk: AnyChunk, question: Question, text: str, work: Work
    ) -> ChunkResult:
        """Add the rows of further passes, until one finds nothing new."""
        attempt = _Attempt(question, work, splits=MAX_SPLITS, cuts=MAX_CUTS, is_extra=True)
        for number in range(2, self._options.passes + 1):
            known = {_identify(checked) for checked in result.rows}
            titles = [title_of(_record_of(checked)) for checked in result.rows]
            again = build_text(text, titles, answer_tokens=self._answer_tokens)
            key = REPEAT + self._key(again, question.sha256)
            entry = self._read_journal(key)
            from_journal = entry is not None
            if entry is None:
                try:
                    entry = await self._request(chunk, question, attempt, again, key)
                except (ContextOverflowError, StructuredOutputError) as error:
                    return skip(result, chunk, f"pass {number}: {NO_ANSWER}: {error}")
            more = _build_result(chunk, question, entry, from_journal=from_journal)
            if entry.has_answer:
                rows = question.parse_rows(question.decode(entry.answer))
                more = await self._verify(more, chunk, rows, check(rows, chunk), work)
            if entry.cut:
                more = mark_as_cut(more, chunk, f"the answer of pass {number} was truncated")
            result = merge(result, [more], by_title=True)
            if known.issuperset(_identify(checked) for checked in more.rows):
                break
        return result

    async def _extract_parts(
        self, chunk: AnyChunk, attempt: _Attempt, result: ChunkResult, *, is_cut: bool
    ) -> list[ChunkResult]:
        """Return the answers to the halves of a chunk, with what its own answer has in addition."""
        halves = chunk.split()
        assert halves is not None, "the chunk was split before"
        half = attempt.split(chunk, is_cut=is_cut, is_extra=bool(result.rows))
        first, *others = [*await self._extract(halves[0], half), *await self._extract(halves[1], half)]
        known = [row for part in (first, *others) for row in part.rows]
        return [add_rows(first, result, known), *others]

    async def _request(
        self, chunk: AnyChunk, question: Question, attempt: _Attempt, text: str, key: str
    ) -> _JournalEntry:
        """Ask the question, and store the answer: of a truncated one the complete rows."""
        messages = question.build_messages(text)
        plan, completion = await self._ask(attempt.work, question.response_type, messages, self._answer_tokens)
        if completion.finish_reason != "length":
            entry = _new_entry(completion, plan.decode(completion).value)
        else:
            answer = parse_cut_answer(question.response_type, completion.text)
            rows = question.parse_rows(answer) if answer is not None else ()
            helps = attempt.can_split(chunk, is_cut=True) and self._helps_to_split(chunk, rows, completion.text)
            if not rows and not helps:
                plan.decode(completion)  # raises IncompleteOutputError
            entry = _new_entry(completion, answer, cut=True, split=helps)
        self._write_journal(key, entry)
        return entry

    def _helps_to_split(self, chunk: AnyChunk, rows: Sequence[ExtractedRow], text: str) -> bool:
        """Return whether the parts of a chunk with a truncated answer can have more rows."""
        if isinstance(chunk, PackedChunk):
            return True
        if not rows:
            return has_other_cause(text, self._answer_tokens)
        return can_be_too_long(chunk, self._answer_tokens) and is_worth_asking(rows, check(rows, chunk))

    async def _ask(
        self, work: Work, target: type[T], messages: Sequence[Message], max_tokens: int
    ) -> tuple[Plan[T], Completion]:
        self.requests += 1
        plan = plan_extraction(self._backend, target)
        options: ChatOptions = {"model": self._options.model, "max_tokens": max_tokens}
        # Some models of cloud APIs reject the option temperature.
        if self._backend.schema_enforcement == "grammar":
            options["temperature"] = 0.0
        return plan, await work.ask(self._backend, messages, plan.add_format(options))

    # --- citations --------------------------------------------------------------------------------

    async def _verify(
        self,
        result: ChunkResult,
        chunk: AnyChunk,
        extracted: Sequence[ExtractedRow],
        rows: list[CitedRow | QuarantinedRow],
        work: Work,
    ) -> ChunkResult:
        """Add the checked rows; with ``second_look``, ask once more for the quotes that are not valid."""
        if not self._options.second_look:
            return msgspec.structs.replace(result, rows=tuple(rows))
        usages, second_looks, recovered = list(result.usages), 0, 0
        known: dict[tuple[str, str, int], CitedRow | QuarantinedRow] = {}  # the same row is asked about once
        for at, (row, checked) in enumerate(zip(extracted, rows, strict=True)):
            if isinstance(checked, CitedRow) or find_record_problem(row.record) is not None or repeats_example(row):
                continue
            identity = (repr(row.record), row.quote, find_part(chunk, row.line)[0])
            if identity not in known:
                known[identity] = cited = await self._look_again(row, checked, chunk, usages, work)
                second_looks += 1
                recovered += isinstance(cited, CitedRow)
            rows[at] = known[identity]
        return msgspec.structs.replace(
            result, rows=tuple(rows), usages=tuple(usages), second_looks=second_looks, recovered=recovered
        )

    async def _look_again(
        self, row: ExtractedRow, quarantined: QuarantinedRow, chunk: AnyChunk, usages: list[Usage], work: Work
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
            messages = build_messages(INSTRUCTIONS, question)
            try:
                plan, completion = await self._ask(work, QuoteAnswer, messages, max_tokens)
                answer = plan.decode(completion).value
            except (ContextOverflowError, StructuredOutputError):
                return quarantined
            self._write_journal(key, _new_entry(completion, answer))
            quote, usage = answer.quote, completion.usage
        usages += [usage] if usage is not None else []
        evidence = QuoteChecker(passage).find(quote, passage.segments[0].first)
        if isinstance(evidence, str):
            return quarantined
        segment = passage.segments[0]
        return CitedRow(row=row, evidence=evidence[0], relocated=not segment.first <= row.line - offset <= segment.last)

    def _fail(self, chunk: AnyChunk, attempt: _Attempt, error: Exception) -> ChunkResult:
        """Return the failure of a chunk with ``skip_failed`` or if there is an answer already, else raise it."""
        kinds = f" for {attempt.question.label}" if len(self._prompt.questions) > 1 else ""
        problem = f"{NO_ANSWER}{kinds}: {error}"
        if not (self._options.skip_failed or attempt.is_extra):
            raise ChunkError(chunk.where, f"{problem}; use --skip-failed to continue without this part") from error
        result = ChunkResult(kinds=attempt.question.kinds, size=chunk.size)
        return mark_as_cut(result, chunk, problem) if attempt.is_extra else skip(result, chunk, problem)

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


def _build_result(chunk: AnyChunk, question: Question, entry: _JournalEntry, *, from_journal: bool) -> ChunkResult:
    return ChunkResult(
        kinds=question.kinds,
        size=chunk.size,
        usages=(entry.usage,) if entry.usage is not None else (),
        requested_model=entry.requested_model,
        served_model=entry.served_model,
        from_journal=from_journal,
    )


def _record_of(checked: CitedRow | QuarantinedRow) -> Record:
    return checked.row.record if isinstance(checked, CitedRow) else checked.record


def _identify(checked: CitedRow | QuarantinedRow) -> tuple[str, str]:
    record = _record_of(checked)
    return kind_of(record), normalize_title(title_of(record))


def _new_entry(
    completion: Completion, answer: msgspec.Struct | None, *, cut: bool = False, split: bool = False
) -> _JournalEntry:
    return _JournalEntry(
        answer=msgspec.Raw(msgspec.json.encode(answer)),
        requested_model=completion.requested_model,
        served_model=completion.served_model,
        usage=completion.usage,
        cut=cut,
        split=split,
    )


def _find_full_kinds(
    question: Question, rows: Sequence[ExtractedRow], checked: Sequence[CitedRow | QuarantinedRow]
) -> list[AnyKind]:
    """Return the kinds whose lists have all the rows that the schema allows, so that there may be more."""
    kinds = [kind_of(row.record) for row in rows]
    counts = Counter(kinds)
    full: list[AnyKind] = []
    for kind in question.kinds:
        if counts[name_of(kind)] == question.bounds.rows:
            indexes = [index for index, one in enumerate(kinds) if one == name_of(kind)]
            if is_worth_asking([rows[index] for index in indexes], [checked[index] for index in indexes]):
                full.append(kind)
    return full
