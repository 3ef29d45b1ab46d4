"""Every fault x every wire x (stream, complete, extract, embed), held to the table: the right error with its facts, a
request that may have been processed sent once, nothing left behind, no key shown, no hang.

Five pairs of a type and a wire always run: they cover each wire, in one piece and as a stream. The others are marked
``full``."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import attrs
import pytest

from ctxbackends import (
    Backend,
    BackendError,
    Completion,
    IncompleteOutputError,
    StructuredOutputError,
    extract,
    open_backend,
)
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._wire.options import Unsupported
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing._fault_server.answers import PIECES, Kind, WireName
from tests.faults.outcomes import TABLE, WIRE_ROWS, Answers, Fails, Outcome, row_of

Operation = Literal["stream", "complete", "extract", "embed"]
OPERATIONS: tuple[Operation, ...] = ("stream", "complete", "extract", "embed")

CANARY = "sk-canary-4f6d2a9c1e8b7035"
VARIABLE = "CTXBACKENDS_TEST_CANARY"
OBJECT_PIECES = ('{"ti', 'tle": ', '"Go', '"}')
NO_HANG = 30.0
SHORT = 0.25
LONG = 20.0


@attrs.frozen
class Title:
    title: str


@attrs.frozen
class Way:
    """One wire as one type speaks it. Types differ in whether ``complete()`` streams, and in their cold start."""

    type: str
    wire: WireName

    @property
    def name(self) -> str:
        return f"{self.type}/{self.wire}"

    def has(self, operation: Operation) -> bool:
        """Where schemas are refused, so is ``extract()``; embeddings go the same way, whatever generations go."""
        profile = PROFILES[self.type]
        if operation == "embed":
            return profile.embed is not None and self.wire == profile.wire_api
        refused = isinstance(profile.wire_apis[self.wire]["response_format: json_schema"], Unsupported)
        return operation != "extract" or (not refused and self in USUAL_WAYS)  # else it is complete(), and its object

    def kind(self, operation: Operation) -> Kind:
        if operation == "embed":
            return "embed"
        return "stream" if operation == "stream" or PROFILES[self.type].complete_streams else "plain"


ALL_WAYS = tuple(Way(type_, cast(WireName, wire)) for type_, profile in PROFILES.items() for wire in profile.wire_apis)

# Each wire, in one piece and as a stream. A fault that is waited out is waited out with these alone; so is extract().
USUAL_WAYS = (
    Way("vllm", "chat_completions"),
    Way("openai", "chat_completions"),
    Way("vllm", "messages"),
    Way("anthropic", "messages"),
    Way("ollama", "ollama"),
)


@attrs.frozen
class Case:
    fault: str
    way: Way
    operation: Operation

    def __str__(self) -> str:
        return f"{self.fault}-{self.way.name}-{self.operation}"

    @property
    def expected(self) -> Outcome:
        row = row_of(self.fault, self.way.wire)
        if row.cold is not None and PROFILES[self.way.type].ready_timeout is not None:
            return row.cold
        kind = self.way.kind(self.operation)
        outcome = row.streamed if kind == "stream" else row.embed if kind == "embed" and row.embed else row.plain
        assert outcome is not None, f"the table says nothing of {self}"
        return outcome

    @property
    def limits(self) -> dict[str, Any]:
        """Short where the fault is that nothing comes, and else far longer than anything takes."""
        hangs = row_of(self.fault, self.way.wire).hangs
        limit = SHORT if hangs else LONG
        limits: dict[str, Any] = {"first_token_timeout": limit, "idle_timeout": limit}
        in_one_piece = self.way.kind(self.operation) != "stream"
        if self.fault == "endless_stream" or (in_one_piece and PROFILES[self.way.type].timeout is not None):
            limits["timeout"] = limit
        if self.way.wire != PROFILES[self.way.type].wire_api:
            limits["wire_api"] = self.way.wire
        return limits


def cases() -> Iterator[Case]:
    for name, fault in faults.CATALOGUE.items():
        for way in USUAL_WAYS if TABLE[name].hangs else ALL_WAYS:
            for operation in OPERATIONS:
                if not way.has(operation):
                    continue
                if fault.applies_to(way.kind(operation), way.wire):
                    yield Case(name, way, operation)


def test_the_table_is_complete() -> None:
    assert set(faults.CATALOGUE) == set(TABLE)
    assert {name for rows in WIRE_ROWS.values() for name in rows} <= set(TABLE)


def test_the_usual_ways_cover_every_wire_in_one_piece_and_as_a_stream() -> None:
    def covered(ways: Sequence[Way]) -> set[tuple[str, str]]:
        return {(way.wire, way.kind(operation)) for way in ways for operation in OPERATIONS if way.has(operation)}

    assert covered(ALL_WAYS) == covered(USUAL_WAYS)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Everything that anybody logs, at any level."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, root = Kept(level=0), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(0)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=str(case), marks=[] if case.way in USUAL_WAYS else [pytest.mark.full]) for case in cases()],
)
async def test_table(case: Case, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, CANARY)
    pieces = OBJECT_PIECES if case.operation == "extract" else PIECES
    tasks = asyncio.all_tasks()
    async with FaultServer(pieces=pieces) as server:
        server.play(faults.CATALOGUE[case.fault])
        async with open_backend(
            case.way.type, name="one", endpoint=server.url, api_key_env=VARIABLE, default_model="m", **case.limits
        ) as backend:
            result: object
            try:
                async with asyncio.timeout(NO_HANG):
                    result = await ask(backend, case.operation)
            except BackendError as error:
                result = error
        if isinstance(case.expected, Fails):
            holds_failure(case, result, server, pieces)
        else:
            holds_answer(case, result, server, pieces)
        # Nothing is left: no connection, no task, and the key is nowhere.
        await server.wait_idle()
    assert tasks == asyncio.all_tasks()
    assert all(request.headers["host"] == f"127.0.0.1:{server.port}" for request in server.requests)
    assert not [line for line in log if CANARY in line]


async def ask(backend: Backend, operation: Operation) -> object:
    if operation == "stream":
        async with backend.stream("Hello") as stream:
            events = [event async for event in stream]
            assert events
            return stream.completion
    if operation == "complete":
        return await backend.complete("Hello")
    if operation == "extract":
        return await extract(backend, Title, "Hello")
    return (await backend.embed("Hello")).vectors


def holds_answer(case: Case, result: object, server: FaultServer, pieces: tuple[str, ...]) -> None:
    expected = case.expected
    assert isinstance(expected, Answers)
    if case.operation == "embed":
        assert ((0.25, -0.5, 1.0),) == result
    elif case.operation == "extract" and expected.calls:
        assert isinstance(result, StructuredOutputError)
    elif case.operation == "extract" and expected.finish_reason != "stop":
        assert isinstance(result, IncompleteOutputError)
    elif case.operation == "extract":
        assert Title("Go") == result
    else:
        assert isinstance(result, Completion), result
        assert ("" if expected.calls else "".join(pieces), expected.finish_reason) == (
            result.text,
            result.finish_reason,
        )
        assert expected.calls == tuple(f"{call.name} {call.arguments}" for call in result.tool_calls)
        assert result.usage is not None
        assert (3, 2) == (result.usage.input_tokens, result.usage.output_tokens)
    if expected.requests is not None:
        assert expected.requests == len(server.generations)


def holds_failure(case: Case, error: object, server: FaultServer, pieces: tuple[str, ...]) -> None:
    expected = case.expected
    assert isinstance(expected, Fails)
    assert isinstance(error, BackendError), error
    assert expected.error is type(error), error
    assert expected.says in str(error)
    assert ("one", server.url) == (error.backend, error.endpoint)
    facts = {**expected.facts}
    if facts.get("phase") == "total" and PROFILES[case.way.type].timeout is None and case.fault != "endless_stream":
        facts["key"] = "first_token_timeout"  # a type without a limit in all has this one for what comes in one piece
    assert facts == {name: getattr(error, name) for name in facts}
    partial = getattr(error, "partial", None)
    if expected.pieces is not None:
        assert partial is not None
        assert "".join(pieces[: expected.pieces]) == partial.text
    if expected.cause is not None:
        assert isinstance(error.__cause__, expected.cause)
    assert expected.requests == len(server.generations)
    assert_shows_no_key(error)


def assert_shows_no_key(error: BaseException) -> None:
    shown = [str(error), repr(error), repr(vars(error)), *map(str, getattr(error, "__notes__", ()))]
    shown += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    assert not [text for text in shown if CANARY in text]
