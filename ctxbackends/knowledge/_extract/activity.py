"""The work of a run at the moment: its phase, the chunks in work, and events about them from a timer."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Self, TypeAlias

import msgspec

from ctxbackends._chat.events import Loading, PromptProgress
from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions
from ctxbackends._chat.responses import Completion, PartialCompletion
from ctxbackends._client.backend import Backend, Stream
from ctxbackends._util.text import format_rate, pluralize
from ctxbackends.errors import ContextOverflowError, StreamInterruptedError
from ctxbackends.knowledge._extract.budget import BYTES_PER_TOKEN
from ctxbackends.knowledge._extract.packing import AnyChunk

Phase: TypeAlias = Literal["searching", "preparing", "connecting", "probing", "waiting", "reading", "writing"]
"""The work of a run: ``searching`` for files, ``preparing`` them (each is read once before the first request),
``connecting`` to the server, ``probing`` whether it enforces schemas. A chunk is ``waiting`` until the server begins to
answer (for a slot, a model that loads, or an answer that is not streamed), then the model is ``reading`` the prompt and
``writing`` the answer."""

INTERVAL = 1.0
"""Seconds between two events."""

_SOONEST = 0.1
"""Seconds between an event and the next one because of another phase."""

_SHORTEST_RATE = 0.5
"""Seconds, at least, over which tokens per second are measured."""

_RATE_SAMPLES = 5
"""The number of samples, a second apart, over which they are measured."""


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a run at the moment. Reported at the start, every second, and when the phase changes.

    Attributes:
        phase: The phase of the first unfinished chunk, or of the run before the first chunk.
        source: The name of the source; of the first of several in one chunk, with the number of the others.
        sources: The number of sources.
        sources_done: The number of sources that are done in this phase.
        chunk: The number of the chunk, from 1; None before the first.
        chunks: The number of chunks; None while the sources are still being split.
        in_flight: The number of chunks in work.
        size: Bytes of text in all sources.
        size_done: Bytes of text in the finished chunks.
        rows: The number of rows so far.
        quarantined: The number of quarantined rows so far.
        prompt: The progress of prompt processing, if the server reports it.
        output_tokens: Tokens of all answers so far; those of unfinished answers are estimated from their length.
        tokens_per_second: Tokens of all answers in each of the last seconds; None at the beginning.
        elapsed: Seconds since the start of the run.
    """

    phase: Phase
    source: str = ""
    sources: int = 0
    sources_done: int = 0
    chunk: int | None = None
    chunks: int | None = None
    in_flight: int = 0
    size: int = 0
    size_done: int = 0
    rows: int = 0
    quarantined: int = 0
    prompt: PromptProgress | None = None
    output_tokens: int = 0
    tokens_per_second: float | None = None
    elapsed: float = 0.0

    def __str__(self) -> str:
        if self.chunk is None:
            count = f" ({self.sources_done + 1:,} of {self.sources:,} files)" if self.sources > 1 else ""
            return {
                "searching": "searching for files",
                "connecting": "asking the server for its state",
                "probing": "testing whether the server enforces schemas",
            }.get(self.phase, f"reading {self.source}{count}")
        return f"{self.source}: {', '.join(text for _, text in self._parts())}"

    def fit(self, columns: int) -> str:
        """Return the line in at most ``columns``, if it can: with a shorter name, and then without some parts."""
        text = str(self)
        if len(text) <= columns:
            return text
        if self.chunk is None:
            room = len(self.source) - (len(text) - columns)
            return text.replace(self.source, _cut_start(self.source, room), 1) if self.source else text
        parts = self._parts()
        while True:
            line = ", ".join(text for _, text in parts)
            room = columns - len(line) - 2
            if room >= _SHORTEST_NAME:
                return f"{_cut_start(self.source, room)}: {line}"
            optional = [part for part in parts if part[0]]
            if not optional:
                return line
            parts.remove(max(optional))

    def _parts(self) -> list[tuple[int, str]]:
        """Return the parts of the line after the name, those with a higher number to be left out first, 0 never."""
        percent = f" ({100 * self.size_done // self.size}%)" if self.size else ""
        parts = [(0, f"chunk {self.chunk}{f' of {self.chunks}' if self.chunks is not None else percent}")]
        parts += [(4, f"{self.in_flight} at once")] if self.in_flight > 1 else []
        phase = str(self.prompt) if self.phase == "reading" and self.prompt is not None else _PHASES[self.phase]
        parts += [(1, phase)]
        if self.output_tokens:
            parts += [(5, pluralize(self.output_tokens, "token"))]
            if self.tokens_per_second is not None:
                parts += [(2, f"{format_rate(self.tokens_per_second)} tokens/s")]
        parts += [(0, pluralize(self.rows, "row"))]
        parts += [(3, f"{self.quarantined} quarantined")] if self.quarantined else []
        return parts


def _cut_start(text: str, length: int) -> str:
    """Return the end of a name, which tells more than its beginning."""
    return text if len(text) <= length else f"…{text[len(text) - max(1, length - 1) :]}"


_SHORTEST_NAME = 12
"""Characters: with less room for the name of the source, parts of the line are left out."""


_PHASES = {"waiting": "waiting for the server", "reading": "reading the prompt", "writing": "writing"}


class Work:
    """A chunk in work, from its first request to the last.

    Attributes:
        number: The number of the chunk, from 1.
        source: The name of its source.
        phase: Its phase.
        prompt: The progress of prompt processing, if the server reports it.
    """

    __slots__ = ("_monitor", "_stream", "number", "phase", "prompt", "source")

    def __init__(self, monitor: Monitor, number: int, source: str) -> None:
        self.number = number
        self.source = source
        self.phase: Phase = "waiting"
        self.prompt: PromptProgress | None = None
        self._monitor = monitor
        self._stream: Stream | None = None

    async def ask(self, backend: Backend, messages: Sequence[Message], options: ChatOptions) -> Completion:
        """Return the answer to a request.

        It is streamed where that changes nothing but what is seen meanwhile.
        """
        on_progress = self._monitor.on_loading
        self._enter("waiting")
        if not getattr(backend, "streams_long_answers", False):
            completion = await backend.complete(messages, on_progress=on_progress, **options)
        else:
            try:
                async with backend.stream(messages, on_progress=on_progress, **options) as stream:
                    completion = await self._read(stream)
            except StreamInterruptedError as error:
                if isinstance(error.__cause__, ContextOverflowError):
                    raise error.__cause__ from None  # the error of an answer that is not streamed
                raise
            finally:
                self._stream = None
        self._monitor.add_answer(completion)
        return completion

    async def _read(self, stream: Stream) -> Completion:
        self._enter("reading")
        async for event in stream:
            if isinstance(event, PromptProgress):
                self.phase, self.prompt = "reading", event
            elif isinstance(event, Loading):
                self.phase = "waiting"
            else:
                break
        self._stream = stream
        self._enter("writing")
        return await stream.get_final_completion()

    def _enter(self, phase: Phase) -> None:
        self.phase, self.prompt = phase, None
        self._monitor.on_phase()

    def count_tokens(self, bytes_per_token: float) -> int:
        """Return about the number of tokens of the unfinished answer: of its size, or a token for each piece."""
        if self._stream is None:
            return 0
        return max(int(_size_of(self._stream.partial) / bytes_per_token), getattr(self._stream, "pieces_so_far", 0))


class Monitor:
    """Reports the activity of a run from a timer of the event loop, while it is used as a context manager.

    Args:
        build: Returns the activity; called for each event.
        notify: Called with each event.
    """

    def __init__(self, build: Callable[[], Activity], notify: Callable[[Activity | Loading], object]) -> None:
        self._build = build
        self._notify = notify
        self._works: dict[int, Work] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._failure: Exception | None = None
        self._started_at = self._reported_at = 0.0
        self._tokens = 0
        self._bytes_per_token = BYTES_PER_TOKEN
        self._rates: deque[tuple[float, int]] = deque(maxlen=_RATE_SAMPLES)

    def __enter__(self) -> Self:
        self._started_at = time.monotonic()
        self.report()
        self._schedule()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    def report(self) -> None:
        """Report now."""
        self._reported_at = time.monotonic()
        self._notify(self._build())

    def on_phase(self) -> None:
        """Report another phase now, unless there was an event just before.

        Raises:
            Exception: The callback for the events failed when the timer called it.
        """
        if self._failure is not None:
            raise self._failure
        if self._timer is not None and time.monotonic() - self._reported_at >= _SOONEST:
            self.report()

    def on_loading(self, loading: Loading) -> None:
        """Report a probe of a server that starts."""
        self._reported_at = time.monotonic()
        self._notify(loading)

    def _schedule(self) -> None:
        monitor: weakref.ref[Monitor] = weakref.ref(self)  # so that a forgotten run does not live on
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, _tick, monitor)

    def tick(self) -> None:
        """Report because of the timer."""
        try:
            self.report()
        except Exception as error:  # noqa: BLE001  # raised in the run
            self._failure, self._timer = error, None
        else:
            self._schedule()

    # --- chunks -----------------------------------------------------------------------------------

    @contextmanager
    def work(self, chunk: AnyChunk) -> Iterator[Work]:
        """Count a chunk among those in work."""
        number, (part, *others) = chunk.index + 1, chunk.parts
        source = f"{part.source} and {pluralize(len(others), 'file')} more" if others else part.source
        work = self._works[number] = Work(self, number, source)
        try:
            yield work
        finally:
            del self._works[number]

    @property
    def first(self) -> Work | None:
        """The first chunk in work."""
        return next(iter(self._works.values()), None)

    @property
    def in_flight(self) -> int:
        """The number of chunks in work."""
        return len(self._works)

    # --- tokens -----------------------------------------------------------------------------------

    def add_answer(self, completion: Completion) -> None:
        """Count the tokens of an answer; their size is used to estimate those of unfinished answers."""
        size = _size_of(completion)
        tokens = completion.usage.output_tokens if completion.usage is not None else None
        if tokens and size:
            self._bytes_per_token = size / tokens
        self.add_tokens(tokens if tokens is not None else int(size / self._bytes_per_token))

    def add_tokens(self, count: int) -> None:
        """Count the tokens of answers."""
        self._tokens += count

    def count_tokens(self) -> tuple[int, float | None]:
        """Return the tokens of all answers so far, and in each of the last seconds."""
        tokens = self._tokens + sum(work.count_tokens(self._bytes_per_token) for work in self._works.values())
        now = time.monotonic()
        if not self._rates or now - self._rates[-1][0] >= 1:
            self._rates.append((now, tokens))
        since, before = self._rates[0]
        seconds = now - since
        return tokens, max(0, tokens - before) / seconds if tokens and seconds >= _SHORTEST_RATE else None


def _tick(monitor: weakref.ref[Monitor]) -> None:
    live = monitor()
    if live is not None:
        live.tick()


def _size_of(answer: Completion | PartialCompletion) -> int:
    return len(answer.text.encode("utf-8", "replace")) + len(answer.reasoning.encode("utf-8", "replace"))
