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
from ctxbackends._profiles.builtin import PROFILES, SERVERS
from ctxbackends._wire.options import Unsupported
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing._fault_server.answers import PIECES, Kind, WireName
from tests.faults.outcomes import TABLE, WIRE_ROWS, Failure, Outcome, Success, row_of

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
class Route:
    """One wire API of one type. Types differ in whether ``complete()`` streams, and in their cold start."""

    type: str
    wire: WireName
    in_one_piece: bool = False  # complete_streams: false

    @property
    def name(self) -> str:
        return f"{self.type}/{self.wire}" + ("/one-piece" if self.in_one_piece else "")

    @property
    def complete_streams(self) -> bool:
        return PROFILES[self.type].complete_streams and not self.in_one_piece

    def has(self, operation: Operation) -> bool:
        """Where schemas are not supported, neither is ``extract()``; embeddings have one route for all wire APIs."""
        profile = PROFILES[self.type]
        if self.in_one_piece:
            return operation == "complete"
        if operation == "embed":
            return profile.embed is not None and self.wire == profile.wire_api
        is_unsupported = isinstance(profile.wire_apis[self.wire]["response_format: json_schema"], Unsupported)
        return operation != "extract" or (
            not is_unsupported and self in USUAL_ROUTES
        )  # else it is complete(), and its object

    def kind(self, operation: Operation) -> Kind:
        if operation == "embed":
            return "embed"
        return "stream" if operation == "stream" or self.complete_streams else "plain"


ALL_ROUTES = tuple(
    Route(type_, cast("WireName", wire), in_one_piece)
    for type_, profile in SERVERS.items()
    for wire in profile.wire_apis
    for in_one_piece in ((False, True) if profile.complete_streams else (False,))
)

# Each wire, in one body and as a stream. Faults that time out, and extract(), are tested with these only.
USUAL_ROUTES = (
    Route("vllm", "chat_completions"),
    Route("openai", "chat_completions"),
    Route("vllm", "messages"),
    Route("anthropic", "messages"),
    Route("ollama", "ollama"),
    Route("vllm", "chat_completions", in_one_piece=True),
    Route("ollama", "ollama", in_one_piece=True),
)


@attrs.frozen
class Case:
    fault: str
    route: Route
    operation: Operation

    def __str__(self) -> str:
        return f"{self.fault}-{self.route.name}-{self.operation}"

    @property
    def expected(self) -> Outcome:
        row = row_of(self.fault, self.route.wire)
        if row.cold is not None and PROFILES[self.route.type].ready_timeout is not None:
            return row.cold
        kind = self.route.kind(self.operation)
        outcome = row.streamed if kind == "stream" else row.embed if kind == "embed" and row.embed else row.plain
        assert outcome is not None, f"the table says nothing of {self}"
        return outcome

    @property
    def limits(self) -> dict[str, Any]:
        """Short where the fault is that nothing comes, and else far longer than anything takes."""
        times_out = row_of(self.fault, self.route.wire).times_out
        limit = SHORT if times_out else LONG
        limits: dict[str, Any] = {"first_token_timeout": limit, "idle_timeout": limit}
        in_one_piece = self.route.kind(self.operation) != "stream"
        if self.fault == "endless_stream" or (in_one_piece and PROFILES[self.route.type].timeout is not None):
            limits["timeout"] = limit
        if self.fault == "other_model":
            limits["model_mismatch"] = "error"  # some types only warn by default
        if self.route.wire != PROFILES[self.route.type].wire_api:
            limits["wire_api"] = self.route.wire
        if self.route.in_one_piece:
            limits["complete_streams"] = False
        return limits


def cases() -> Iterator[Case]:
    for name, fault in faults.CATALOGUE.items():
        for route in USUAL_ROUTES if TABLE[name].times_out else ALL_ROUTES:
            for operation in OPERATIONS:
                if not route.has(operation):
                    continue
                if fault.applies_to(route.kind(operation), route.wire):
                    yield Case(name, route, operation)


def test_the_table_is_complete() -> None:
    assert set(faults.CATALOGUE) == set(TABLE)
    assert {name for rows in WIRE_ROWS.values() for name in rows} <= set(TABLE)


def test_the_usual_routes_cover_every_wire_plain_and_streamed() -> None:
    def coverage(routes: Sequence[Route]) -> set[tuple[str, str]]:
        return {
            (route.wire, route.kind(operation)) for route in routes for operation in OPERATIONS if route.has(operation)
        }

    assert coverage(ALL_ROUTES) == coverage(USUAL_ROUTES)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Everything that anybody logs, at any level."""
    lines: list[str] = []

    class ListHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, root = ListHandler(level=0), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(0)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=[] if case.route in USUAL_ROUTES else [pytest.mark.full])
        for case in cases()
    ],
)
async def test_table(case: Case, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, CANARY)
    pieces = OBJECT_PIECES if case.operation == "extract" else PIECES
    tasks = asyncio.all_tasks()
    async with FaultServer(pieces=pieces) as server:
        server.play(faults.CATALOGUE[case.fault])
        async with open_backend(
            case.route.type, name="one", endpoint=server.url, api_key_env=VARIABLE, default_model="m", **case.limits
        ) as backend:
            result = await attempt(case, backend)
        check_result(case, result, server)
        # Nothing is left: no connection, no task, and the key is nowhere.
        await server.wait_idle()
    assert tasks == asyncio.all_tasks()
    assert all(request.headers["host"] == f"127.0.0.1:{server.port}" for request in server.requests)
    assert not [line for line in log if CANARY in line]


async def attempt(case: Case, backend: Backend) -> object:
    """Return the result of the operation, or its error."""
    try:
        async with asyncio.timeout(NO_HANG):
            return await ask(backend, case.operation)
    except BackendError as error:
        return error


def check_result(case: Case, result: object, server: FaultServer) -> None:
    check = check_failure if isinstance(case.expected, Failure) else check_success
    check(case, result, server, tuple(server.pieces))


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


def check_success(case: Case, result: object, server: FaultServer, pieces: tuple[str, ...]) -> None:
    expected = case.expected
    assert isinstance(expected, Success)
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


def check_failure(case: Case, error: object, server: FaultServer, pieces: tuple[str, ...]) -> None:
    expected = case.expected
    assert isinstance(expected, Failure)
    assert isinstance(error, BackendError), error
    assert expected.error is type(error), error
    assert expected.message in str(error)
    assert ("one", server.url) == (error.backend, error.endpoint)
    attributes = {**expected.attributes}
    if (
        attributes.get("phase") == "total"
        and PROFILES[case.route.type].timeout is None
        and case.fault != "endless_stream"
    ):
        attributes["key"] = (
            "first_token_timeout"  # a type without a limit in all has this one for what comes in one piece
        )
    assert attributes == {name: getattr(error, name) for name in attributes}
    partial = getattr(error, "partial", None)
    if expected.pieces is not None:
        assert partial is not None
        assert "".join(pieces[: expected.pieces]) == partial.text
    if expected.cause is not None:
        assert isinstance(error.__cause__, expected.cause)
    assert expected.requests == len(server.generations)
    assert_shows_no_key(error)


def assert_shows_no_key(error: BaseException) -> None:
    texts = [str(error), repr(error), repr(vars(error)), *map(str, getattr(error, "__notes__", ()))]
    texts += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    assert not [text for text in texts if CANARY in text]
