"""The requests of the soak: each one completes, is cancelled, or fails with an error that fits the disturbances."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

import attrs

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    Backend,
    BackendConfig,
    BackendError,
    Completion,
    ModelLoadingError,
    Registry,
    ServerDiedError,
    StreamInterruptedError,
    TextDelta,
    extract,
)
from tests.soak.disturbed_server import MODEL, DisturbedServer

READY, FIRST_TOKEN, IDLE, TOTAL, CONNECT = 6.0, 4.0, 2.0, 15.0, 2.0
LONGEST = READY + TOTAL + 3 * CONNECT + 5.0
"""Seconds: all budgets of a request one after another, and some for a busy machine. What takes longer hangs."""

MAX_MESSAGES = 20  # violations that are told in full


CHAT, MESSAGES = "soak", "soak-messages"
"""The names of two backends over the one server: both wire formats that it speaks."""


def settings(endpoint: str, name: str) -> BackendConfig:
    """Times that are short, so that each of them passes now and then."""
    return BackendConfig(
        name=name,
        type="llamacpp",
        wire_api="messages" if name == MESSAGES else None,
        endpoint=endpoint,
        default_model=MODEL,
        ready_timeout=READY,
        first_token_timeout=FIRST_TOKEN,
        idle_timeout=IDLE,
        timeout=TOTAL,
        connect_timeout=CONNECT,
    )


class Label(TypedDict):
    """Short, so that no answer is cut."""

    sure: bool
    kind: Literal["greeting", "question", "noise"]


class LeftEarly(Exception):
    """We left the stream."""


@attrs.define
class Progress:
    """What the consumer of a stream had been handed when it ended, None for requests that are no stream."""

    text: str | None = None


Operation: TypeAlias = Callable[[Backend, random.Random, Progress], Coroutine[Any, Any, None]]


def _check(completion: Completion, most: int) -> None:
    assert completion.finish_reason in ("stop", "length"), completion.finish_reason
    assert completion.served_model == MODEL
    assert completion.usage is not None
    assert 0 < completion.usage.output_tokens <= most, completion.usage
    assert completion.text or completion.finish_reason == "stop"


def _prompt(chance: random.Random) -> str:
    return f"Hello {chance.randrange(1000)} " * chance.choice((1, 1, 20))


async def _stream(backend: Backend, chance: random.Random, progress: Progress, leave_after: float = math.inf) -> None:
    most = chance.choice((16, 300, 1200))
    progress.text = ""
    # Else the tiny model ends most answers soon: some are to be long enough to be met in their middle.
    endless: dict[str, Any] = {"extra_body": {"ignore_eos": True}} if chance.random() < 0.5 else {}
    events = 0
    async with backend.stream(_prompt(chance), max_tokens=most, **endless) as stream:
        async for event in stream:
            events += 1
            if isinstance(event, TextDelta):
                progress.text += event.text
            if events > leave_after * most:
                raise LeftEarly
            if chance.random() < 0.01:
                await asyncio.sleep(0.05)  # a consumer that is slow now and then
        _check(stream.completion, most)
        assert stream.completion.text == progress.text


async def _leave_early(backend: Backend, chance: random.Random, progress: Progress) -> None:
    await _stream(backend, chance, progress, leave_after=chance.random() * 0.5)


async def _complete(backend: Backend, chance: random.Random, _: Progress) -> None:
    most = chance.choice((4, 32, 200))
    _check(await backend.complete(_prompt(chance), max_tokens=most), most)


async def _extract(backend: Backend, chance: random.Random, _: Progress) -> None:
    answer = await extract(backend, Label, _prompt(chance), max_tokens=400, seed=chance.randrange(1000))
    assert {"sure", "kind"} == set(answer)


async def _embed(backend: Backend, chance: random.Random, _: Progress) -> None:
    texts = [_prompt(chance) for _ in range(chance.randint(1, 3))]
    embeddings = await backend.embed(texts)
    assert len(texts) == len(embeddings.vectors)
    assert embeddings.served_model == MODEL


async def _models(backend: Backend, _: random.Random, __: Progress) -> None:
    assert [MODEL] == [model.id for model in await backend.models()]


async def _ping(backend: Backend, _: random.Random, __: Progress) -> None:
    assert MODEL == (await backend.ping()).model


OPERATIONS: Mapping[str, tuple[int, Operation]] = {
    "stream": (10, _stream),
    "stream, left early": (3, _leave_early),
    "stream, task cancelled": (3, _stream),
    "stream, under a timeout": (3, _stream),
    "complete": (6, _complete),
    "complete, task cancelled": (2, _complete),
    "extract": (3, _extract),
    "embed": (6, _embed),
    "embed, task cancelled": (1, _embed),
    "models": (2, _models),
    "ping": (2, _ping),
}


class Ledger:
    """What became of every request."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()  # kind of request, outcome
        self.errors: Counter[str] = Counter()
        self.longest: dict[str, float] = {}
        self.violations: list[str] = []
        self.violation_count = 0

    def end(self, kind: str, outcome: str, took: float) -> None:
        self.outcomes[kind, outcome] += 1
        self.longest[kind] = max(took, self.longest.get(kind, 0.0))

    def violate(self, what: str) -> None:
        self.violation_count += 1
        if len(self.violations) < MAX_MESSAGES:
            self.violations.append(what)


class Load:
    """Workers that ask the server, each for one thing after another."""

    def __init__(self, registry: Registry, server: DisturbedServer, ledger: Ledger) -> None:
        self._chat, self._messages = registry.resolve(CHAT), registry.resolve(MESSAGES)
        self._server = server
        self._ledger = ledger

    async def run(self, until: asyncio.Event, chances: list[random.Random]) -> None:
        """Until the event is set, and the requests of then have ended."""
        async with asyncio.TaskGroup() as workers:
            for chance in chances:
                workers.create_task(self._work(until, chance))

    async def _work(self, until: asyncio.Event, chance: random.Random) -> None:
        kinds, weights = list(OPERATIONS), [weight for weight, _ in OPERATIONS.values()]
        while not until.is_set():
            await self._run(chance.choices(kinds, weights)[0], chance)
            await asyncio.sleep(chance.uniform(0, 0.05))

    async def _run(self, kind: str, chance: random.Random) -> None:
        progress = Progress()
        self._ledger.begun[kind] += 1
        start = time.monotonic()
        task = asyncio.create_task(self._perform(kind, chance, progress))
        if kind.endswith("task cancelled"):
            await asyncio.wait([task], timeout=chance.choice((0.0, chance.uniform(0, 0.1), chance.uniform(0, 1))))
            task.cancel()
        await asyncio.wait([task], timeout=LONGEST)
        if not task.done():
            at = [f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack()]
            self._ledger.violate(f"{kind}: no end within {LONGEST:g} s; it stands at {at}")
            task.cancel()
            await asyncio.wait([task])
            self._ledger.end(kind, "failed", LONGEST)
            return
        took = time.monotonic() - start
        self._ledger.end(kind, self._outcome(kind, task, start, progress), took)

    async def _perform(self, kind: str, chance: random.Random, progress: Progress) -> None:
        operation = OPERATIONS[kind][1]
        generates = operation in (_stream, _leave_early, _complete)
        backend = self._messages if generates and chance.random() < 0.25 else self._chat
        limit = chance.choice((0.0, 0.02, 0.2, 1.0)) if kind.endswith("under a timeout") else None
        async with asyncio.timeout(limit):
            await operation(backend, chance, progress)

    def _outcome(self, kind: str, task: asyncio.Task[None], start: float, progress: Progress) -> str:
        if task.cancelled() and kind.endswith("task cancelled"):
            return "cancelled"
        if task.cancelled():
            self._ledger.violate(f"{kind}: it was cancelled, and not by us")
            return "failed"
        error = task.exception()
        if error is None:
            return "completed"
        if isinstance(error, LeftEarly) or (type(error) is TimeoutError and kind.endswith("under a timeout")):
            return "cancelled"
        outcomes = time.monotonic()
        done = self._server.done_within(start, outcomes)
        fault = find_fault(error, done, outcomes - start, progress, self._server.url)
        what = f"{type(error).__name__}{_detail(error)}"
        if fault is not None:
            message = (
                f"{kind}: {fault}: {what}: {error} (cause: {error.__cause__!r}; done to the server: {sorted(done)}"
            )
            self._ledger.violate(f"{message}; after {outcomes - start:.2f} s)")
        self._ledger.errors[what] += 1
        return "failed"


def _detail(error: BaseException) -> str:
    if isinstance(error, APITimeoutError):
        return f" {error.phase}"
    if isinstance(error, APIConnectionError):
        return " refused" if error.refused else " after it was sent" if error.sent else " not connected"
    return ""


_BREAKS = frozenset({"kill", "term", "flap"})  # a server that is only stopped keeps its connections
_KEYS = {
    "connect": {"connect_timeout"},
    "first_token": {"first_token_timeout"},
    "idle": {"idle_timeout"},
    "total": {"timeout", "ready_timeout"},
}


def find_fault(
    error: BaseException, done: frozenset[str], took: float, progress: Progress, endpoint: str
) -> str | None:
    """What is wrong with a failure, or None where it is right."""
    if not isinstance(error, BackendError):
        return "no error of ours"
    if not done:
        return "it failed, and nothing had been done to the server"
    if error.backend not in (CHAT, MESSAGES) or error.endpoint != endpoint:
        return f"it names {error.backend!r} at {error.endpoint!r}"
    partial = error.partial if isinstance(error, StreamInterruptedError | APITimeoutError) else None
    if progress.text is not None and partial is not None and partial.text != progress.text:
        return f"its partial text has {len(partial.text)} characters, and {len(progress.text)} had been handed on"
    if isinstance(error, APITimeoutError):
        if error.key not in _KEYS[error.phase]:
            return f"its phase is {error.phase}, and it names {error.key}"
        return None if took >= error.limit else f"it came after {took:.2f} s, before its limit of {error.limit:g} s"
    if not done & _BREAKS:
        return "the server had only been stopped for a while"
    if isinstance(error, StreamInterruptedError):
        return None if isinstance(error.__cause__, APIConnectionError) else "no connection broke"
    if isinstance(error, ModelLoadingError) or (isinstance(error, APIConnectionError) and error.refused):
        waiting_time = error.waited or 0.0
        return (
            None
            if waiting_time >= 0.95 * READY
            else f"it waited for {waiting_time:.2f} s, and was to wait for {READY:g} s"
        )
    if isinstance(error, ServerDiedError | APIConnectionError):
        return None
    return "an error of this kind cannot be right here"
