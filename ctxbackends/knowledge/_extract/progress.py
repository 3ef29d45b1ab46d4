"""What a run tells while it works. Values only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from ctxbackends._chat.events import Loading
from ctxbackends.knowledge._records import QuarantinedRow
from ctxbackends.knowledge._sources.base import Input, SkippedInput


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is. ``size`` and ``size_done`` are bytes of text, ``elapsed`` seconds since the first request;
    tokens are those that the server reported. ``chunks`` is how many are done, ``reused`` how many of them came from
    the journal."""

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
        """Tokens that the model wrote, over all requests that are at work at once."""
        return self.output_tokens / self.elapsed if self.elapsed > 0 and self.output_tokens else None

    @property
    def seconds_left(self) -> float | None:
        """As long as the rest would take at the pace so far; None before there is one."""
        if not self.size_done or self.elapsed <= 0:
            return None
        return self.elapsed * (self.size - self.size_done) / self.size_done

    def __str__(self) -> str:
        files = f"{self.sources_done} of {self.sources} files, " if self.sources > 1 else ""
        share = self.size_done / self.size if self.size else 1.0
        speed = f", {self.tokens_per_second:.0f} tokens/s" if self.tokens_per_second is not None else ""
        left = f", {_duration(self.seconds_left)} left" if self.seconds_left is not None else ""
        rows = f"{self.rows} rows" + (f", {self.quarantined} quarantined" if self.quarantined else "")
        return f"{share:.0%}: {files}{self.chunks} chunks, {rows}{speed}{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class ResumePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A run ends half-way; so many ``chunks`` are in its journal, for the next one."""

    chunks: int


Event: TypeAlias = Loading | Progress | SkippedInput | QuarantinedRow | ResumePoint
OnEvent: TypeAlias = Callable[[Event], object]
"""Is told what happens in a run: a wait for a cold start, how far it is, what was not read, what is not believed."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did. ``moved``: quotes that stand elsewhere than the model said, and are cited where they stand;
    ``merged``: rows that said again what another one says; ``masked``: secrets that were not sent. Tokens are None
    where the server reports none. ``context_length`` is in tokens, None where the server does not tell."""

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
    reused: int
    rows: int
    quarantined: int
    relocated: int
    merged: int
    masked: int
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    elapsed: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do, without asking the model: its inputs, and how many chunks of at most ``chunk_tokens`` they
    make."""

    backend: str
    endpoint: str
    model: str | None
    context_length: int | None
    chunk_tokens: int
    inputs: tuple[Input, ...]
    skipped: tuple[SkippedInput, ...]
    chunks: int
    masked: int
