"""The events of a run, its plan and its report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from ctxbackends._chat.events import Loading
from ctxbackends._util.text import format_duration, pluralize
from ctxbackends.knowledge._extract.activity import Activity
from ctxbackends.knowledge._records import QuarantinedRow
from ctxbackends.knowledge._sources.base import Input, SkippedInput

ANSWER_TOKENS = 300
"""Tokens of an answer with about three rows, to estimate the time of a run."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a run.

    Attributes:
        source: The name of the current source.
        sources: The number of sources.
        sources_done: The number of sources that have been read.
        size: Bytes of text in all sources.
        size_done: Bytes of text in the finished chunks.
        chunks: The number of finished chunks.
        reused: The number of answers that came from the journal.
        rows: The number of rows.
        quarantined: The number of quarantined rows.
        input_tokens: Tokens of all prompts, as far as the server reports them.
        output_tokens: Tokens of all answers, as far as the server reports them.
        elapsed: Seconds since the first request.
    """

    source: str
    sources: int
    sources_done: int
    size: int
    size_done: int
    chunks: int
    reused: int
    rows: int
    quarantined: int
    input_tokens: int
    output_tokens: int
    elapsed: float

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens per second over all concurrent requests; None before the first answer."""
        return self.output_tokens / self.elapsed if self.elapsed > 0 and self.output_tokens else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end; None before the first chunk is done."""
        if not self.size_done or self.elapsed <= 0:
            return None
        return self.elapsed * (self.size - self.size_done) / self.size_done

    def __str__(self) -> str:
        files = f"{self.sources_done} of {self.sources} files, " if self.sources > 1 else ""
        speed = f", {self.tokens_per_second:.0f} tokens/s" if self.tokens_per_second is not None else ""
        left = f", {format_duration(self.seconds_left)} left" if self.seconds_left is not None else ""
        quarantined = f", {self.quarantined} quarantined" if self.quarantined else ""
        counts = f"{files}{pluralize(self.chunks, 'chunk')}, {pluralize(self.rows, 'row')}{quarantined}{speed}"
        return f"{100 * self.size_done // self.size}%: {counts}{left}" if self.size_done < self.size else counts


class ResumePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A run ended early, and another run can resume it.

    Attributes:
        answers: The number of answers in the journal: one for each question about a chunk.
    """

    answers: int


Event: TypeAlias = Loading | Activity | Progress | SkippedInput | QuarantinedRow | ResumePoint
OnEvent: TypeAlias = Callable[[Event], object]
"""A callback for the events of a run."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run.

    Attributes:
        backend: The name of the backend.
        backend_type: The type of the backend.
        endpoint: The URL of the backend.
        requested_model: The model that was requested; None if the server chose it.
        served_model: The model that the server reported; None if it reported none.
        server_version: The version of the server; None if unknown.
        enforcement: How the server enforces the schema: ``grammar``, ``native`` or ``proven`` by a probe.
        schema_sha256: Hash of the schema, in hex.
        context_length: The model's context in tokens; None if the server does not report it.
        chunk_tokens: The most tokens of text in one request.
        inputs: The sources.
        skipped: Input that was not read.
        chunks: The number of finished chunks.
        requests: The number of requests to the model.
        reused: The number of answers that came from the journal.
        cut: The number of answers that were truncated or have a full list, so that there may be more rows.
        rows: The number of rows.
        quarantined: The number of quarantined rows.
        relocated: The number of quotes that were found at another place than the model named.
        merged: The number of duplicate rows that were merged.
        masked: The number of masked secrets.
        second_looks: The number of rows that the model was asked about again.
        recovered: The number of these rows whose new quote is valid.
        input_tokens: Tokens of all prompts; None if the server reports none.
        output_tokens: Tokens of all answers; None if the server reports none.
        cached_input_tokens: Tokens of the prompts that came from the server's cache; None if the server reports none.
        elapsed: Seconds since the first request.
    """

    backend: str
    backend_type: str
    endpoint: str
    requested_model: str | None
    served_model: str | None
    server_version: str | None
    enforcement: str
    schema_sha256: str
    context_length: int | None
    chunk_tokens: int
    inputs: tuple[Input, ...]
    skipped: tuple[SkippedInput, ...]
    chunks: int
    requests: int
    reused: int
    cut: int
    rows: int
    quarantined: int
    relocated: int
    merged: int
    masked: int
    second_looks: int
    recovered: int
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    elapsed: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that a run would send.

    Attributes:
        backend: The name of the backend; None without a server.
        endpoint: The URL of the backend; None without a server.
        model: The model; None if the server chooses it.
        context_length: The model's context in tokens; None if the server does not report it.
        chunk_tokens: The most tokens of text in one request.
        inputs: The sources.
        skipped: Input that would not be read.
        chunks: The number of chunks.
        requests: The number of requests to the model: one for each chunk, or several (``kinds_per_question``,
            ``passes``). Passes may end early.
        tokens: Tokens of all prompts, with the instructions.
        is_counted: Whether the server counted ``tokens``; otherwise 3 bytes count as one.
        masked: The number of secrets that would be masked.
    """

    backend: str | None
    endpoint: str | None
    model: str | None
    context_length: int | None
    chunk_tokens: int
    inputs: tuple[Input, ...]
    skipped: tuple[SkippedInput, ...]
    chunks: int
    requests: int
    tokens: int
    is_counted: bool
    masked: int

    def estimate_seconds(self, *, read_rate: float, write_rate: float) -> float:
        """Estimate the seconds of the run, with ``ANSWER_TOKENS`` tokens in each answer.

        Args:
            read_rate: Tokens of prompts that the server reads per second, in all concurrent requests.
            write_rate: Tokens of answers that it writes per second, in all concurrent requests.
        """
        return self.tokens / read_rate + self.requests * ANSWER_TOKENS / write_rate
