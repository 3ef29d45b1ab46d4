"""One chunk to its answer: from the journal, or from the model, in halves where it is too much for one answer. Knows no
source and checks no citation.
"""

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
"""How often a chunk is halved whose answer did not become whole."""


class ChunkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The model's answer to a chunk, or ``failed``. ``kept``: it came from the journal."""

    chunk: Chunk
    answer: Any = None
    usage: Usage | None = None
    requested_model: str | None = None
    served_model: str | None = None
    kept: bool = False
    failed: SkippedInput | None = None


class _JournalEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer as the journal holds it. ``split``: the chunk was halved, and its halves have answers."""

    answer: msgspec.Raw = msgspec.Raw(b"null")
    requested_model: str | None = None
    served_model: str | None = None
    usage: Usage | None = None
    split: bool = False


class ChunkExtractor:
    """Asks one question about many chunks, ``at_once`` of them at the same time. ``answer_tokens`` is what an answer
    may have. ``options.skip_failed``: a chunk without a usable answer is told of, and no error."""

    def __init__(
        self,
        backend: Backend,
        question: Prompt,
        options: RunOptions,
        *,
        max_in_flight: int,
        answer_tokens: int,
        journal: Journal | None,
    ) -> None:
        self._backend = backend
        self._question = question
        self._options = options
        self._places = asyncio.Semaphore(max_in_flight)
        self._answer_tokens = answer_tokens
        self._journal = journal

    async def extract(self, chunk: Chunk, *, splits: int = 0) -> list[ChunkResult]:
        """The answer to a chunk; of its parts, where it was too much for one."""
        shown = chunk.render()
        key = self._key(shown)
        kept = self._kept(key)
        if kept is not None and not kept.split:
            return [self._answered(chunk, kept)]
        if kept is None:
            try:
                return [await self._asked(chunk, shown, key)]
            except (ContextOverflowError, IncompleteOutputError) as error:
                halves = chunk.split() if splits < MAX_SPLITS and _may_fit_in_parts(error) else None
                if halves is None:
                    return [self._failed(chunk, error)]
            except StructuredOutputError as error:
                return [self._failed(chunk, error)]
            self._keep(key, _JournalEntry(split=True))
        else:
            halves = chunk.split()
            assert halves is not None, "it was halved before"
        return [
            *await self.extract(halves[0], splits=splits + 1),
            *await self.extract(halves[1], splits=splits + 1),
        ]

    async def _asked(self, chunk: Chunk, shown: str, key: str) -> ChunkResult:
        # Cloud APIs have models that refuse any temperature.
        sampling: dict[str, Any] = {"temperature": 0.0} if self._backend.schema_enforcement == "grammar" else {}
        async with self._places:
            result = await extract_result(
                self._backend,
                self._question.target,
                shown,
                instructions=self._question.instructions,
                model=self._options.model,
                max_tokens=self._answer_tokens,
                **sampling,
            )
        completion = result.completion
        self._keep(
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

    def _failed(self, chunk: Chunk, error: Exception) -> ChunkResult:
        """The model's answer to this chunk is of no use: the end of the run, unless the user said to go on."""
        problem = f"the model gave no usable answer to this part: {error}"
        if not self._options.skip_failed:
            raise ChunkError(chunk.where, f"{problem}; --skip-failed goes on without it, and says so") from error
        skipped = SkippedInput(source=chunk.source, line=chunk.segments[0].first, reason=f"{chunk.where}: {problem}")
        return ChunkResult(chunk=chunk, failed=skipped)

    # --- the journal ------------------------------------------------------------------------------

    def _key(self, shown: str) -> str:
        """Of all that the answer depends on: another model, question or text is asked anew."""
        parts = (
            self._question.sha256,
            str(self._backend.type),
            self._backend.name,
            self._options.model or self._backend.default_model or "",
            shown,
        )
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    def _kept(self, key: str) -> _JournalEntry | None:
        raw = self._journal.get(key) if self._journal is not None else None
        return None if raw is None else msgspec.json.decode(raw, type=_JournalEntry)

    def _keep(self, key: str, kept: _JournalEntry) -> None:
        if self._journal is not None:
            self._journal.put(key, msgspec.json.encode(kept))

    def _answered(self, chunk: Chunk, kept: _JournalEntry) -> ChunkResult:
        return ChunkResult(
            chunk=chunk,
            answer=self._question.decoded(kept.answer),
            usage=kept.usage,
            requested_model=kept.requested_model,
            served_model=kept.served_model,
            kept=True,
        )


def _may_fit_in_parts(error: Exception) -> bool:
    return not isinstance(error, IncompleteOutputError) or error.finish_reason == "length"
