"""Extract from one chunk: take the answer from the journal or the model, and split a chunk that is too long."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec

from ctxbackends._chat.responses import Usage
from ctxbackends._client.backend import Backend
from ctxbackends._structured import extract_result
from ctxbackends.errors import ContextOverflowError, IncompleteOutputError, StructuredOutputError
from ctxbackends.knowledge._errors import ChunkError
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._sources.base import SkippedInput

MAX_SPLITS = 4
"""How often a chunk is split whose prompt or answer is too long."""


class ChunkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a chunk, or its failure. ``from_journal``: no request was sent."""

    chunk: Chunk
    answer: Any = None
    usage: Usage | None = None
    requested_model: str | None = None
    served_model: str | None = None
    from_journal: bool = False
    failure: SkippedInput | None = None


class _JournalEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer in the journal. ``split``: the chunk was split, and its parts have the answers."""

    answer: msgspec.Raw = msgspec.Raw(b"null")
    requested_model: str | None = None
    served_model: str | None = None
    usage: Usage | None = None
    split: bool = False


class ChunkExtractor:
    """Sends the prompt for each chunk, with at most ``max_in_flight`` requests at a time.

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

    async def extract(self, chunk: Chunk, *, splits: int = 0) -> list[ChunkResult]:
        """Return the answer to a chunk, or the answers to its parts if it had to be split.

        Raises:
            ChunkError: The model gave no usable answer.
            JournalError: The journal cannot be written.
        """
        text = chunk.render()
        key = self._key(text)
        entry = self._read_journal(key)
        if entry is not None and not entry.split:
            return [self._from_journal(chunk, entry)]
        if entry is None:
            try:
                return [await self._request(chunk, text, key)]
            except (ContextOverflowError, IncompleteOutputError) as error:
                halves = chunk.split() if splits < MAX_SPLITS and _can_fit_when_split(error) else None
                if halves is None:
                    return [self._fail(chunk, error)]
            except StructuredOutputError as error:
                return [self._fail(chunk, error)]
            self._write_journal(key, _JournalEntry(split=True))
        else:
            halves = chunk.split()
            assert halves is not None, "the chunk was split before"
        return [
            *await self.extract(halves[0], splits=splits + 1),
            *await self.extract(halves[1], splits=splits + 1),
        ]

    async def _request(self, chunk: Chunk, text: str, key: str) -> ChunkResult:
        # Some models of cloud APIs reject the option temperature.
        sampling: dict[str, Any] = {"temperature": 0.0} if self._backend.schema_enforcement == "grammar" else {}
        async with self._slots:
            result = await extract_result(
                self._backend,
                self._prompt.response_type,
                text,
                instructions=self._prompt.instructions,
                model=self._options.model,
                max_tokens=self._answer_tokens,
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
        return ChunkResult(
            chunk=chunk,
            answer=result.value,
            usage=completion.usage,
            requested_model=completion.requested_model,
            served_model=completion.served_model,
        )

    def _fail(self, chunk: Chunk, error: Exception) -> ChunkResult:
        """Return the failure of a chunk with ``skip_failed``, else raise it."""
        problem = f"no usable answer from the model: {error}"
        if not self._options.skip_failed:
            raise ChunkError(chunk.where, f"{problem}; use --skip-failed to continue without this part") from error
        skipped = SkippedInput(source=chunk.source, line=chunk.segments[0].first, reason=f"{chunk.where}: {problem}")
        return ChunkResult(chunk=chunk, failure=skipped)

    # --- the journal ------------------------------------------------------------------------------

    def _key(self, text: str) -> str:
        """Return a hash of all that the answer depends on: the prompt, the backend, the model and the text."""
        parts = (
            self._prompt.sha256,
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

    def _from_journal(self, chunk: Chunk, entry: _JournalEntry) -> ChunkResult:
        return ChunkResult(
            chunk=chunk,
            answer=self._prompt.decode(entry.answer),
            usage=entry.usage,
            requested_model=entry.requested_model,
            served_model=entry.served_model,
            from_journal=True,
        )


def _can_fit_when_split(error: Exception) -> bool:
    return not isinstance(error, IncompleteOutputError) or error.finish_reason == "length"
