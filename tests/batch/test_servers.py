"""Batches over several servers, and over servers that are busy, go away or start."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import Backend, RequestOptions, open_backend
from ctxbackends._cli.batch.progress import Meter
from ctxbackends.batch import BatchAnswer, BatchModelError, BatchOptions, BatchReport, BatchRow, _limits, _replica
from ctxbackends.batch import run_batch as run
from ctxbackends.errors import (
    APIConnectionError,
    BackendError,
    InsufficientQuotaError,
    ModelMismatchError,
    PermissionDeniedError,
)
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import Do, RecordedRequest, ResponseBuilder, Step
from tests.batch_server import MODEL, BatchServer, serve_batches
from tests.conftest import completion_body


class EchoServer(FaultServer):
    """A server that answers with the prompt, and can go away. ``script_of`` selects other steps by the prompt."""

    def __init__(self, model: str = MODEL) -> None:
        super().__init__(model=model)
        self.script_of: Callable[[str], faults.Script | None] = lambda _: None

    @property
    def prompts(self) -> list[str]:
        return [_prompt(request) for request in self.generations]

    def select_steps(self, request: RecordedRequest) -> Iterable[Step]:
        script = self.select_script(request)
        if request.method == "POST":
            script = self.script_of(_prompt(request)) or (echo if script is faults.respond else script)
        return script(ResponseBuilder(request, self.pieces, self.model))


def _prompt(request: RecordedRequest) -> str:
    return str(request.json["messages"][-1]["content"])


def echo(response: ResponseBuilder) -> Iterable[Step]:
    body = completion_body(f"answer to {_prompt(response.request)}", model=response.model)
    return [0.002, reply(200, body)]


def reply(status: int, body: bytes | dict[str, Any], **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Status", "content-type: application/json", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@asynccontextmanager
async def opened(*servers: FaultServer | BatchServer, **settings: Any) -> AsyncIterator[list[Backend]]:
    """Open backends with the names a, b, c..."""
    backend_type = settings.pop("type", "openai-compatible")
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_backend(
                    backend_type,
                    name=name,
                    endpoint=server.url,
                    **{"default_model": MODEL, "complete_streams": False, **settings},
                )
            )
            for name, server in zip("abc", servers, strict=False)
        ]


def rows(count: int) -> list[BatchRow]:
    return [BatchRow(id=f"r{number}", prompt=f"question {number}") for number in range(count)]


async def collect(backends: list[Backend], batch: Any, **settings: Any) -> tuple[dict[str, BatchAnswer], BatchReport]:
    async with run(backends, batch, **settings) as batch_run:
        answers = [answer async for answer in batch_run]
    assert len({answer.row.id for answer in answers}) == len(answers)
    return {answer.row.id: answer for answer in answers}, batch_run.report


def expected(count: int) -> dict[str, str]:
    return {f"r{number}": f"answer to question {number}" for number in range(count)}


def texts(answers: dict[str, BatchAnswer]) -> dict[str, str]:
    return {row_id: answer.text for row_id, answer in answers.items()}


# --- several servers --------------------------------------------------------------------------------


async def test_the_faster_server_answers_more_rows() -> None:
    async with serve_batches() as slow, serve_batches() as fast, opened(slow, fast) as backends:
        slow.delay, fast.delay = 0.2, 0.01
        answers, report = await collect(backends, rows(200), options=BatchOptions(max_in_flight=4))
        assert expected(200) == texts(answers)
        assert len(fast.prompts) > 2 * len(slow.prompts) > 0
        assert {"a": len(slow.prompts), "b": len(fast.prompts)} == report.by_backend
        assert Counter(answer.backend for answer in answers.values()) == Counter(report.by_backend)
        assert [4, 4] == [slow.max_in_flight, fast.max_in_flight]


@pytest.mark.parametrize(("settings", "limit"), [({}, 5), ({"max_concurrency": 3}, 3), ({"max_concurrency": 9}, 5)])
async def test_never_more_at_the_server_than_the_limit(settings: dict[str, Any], limit: int) -> None:
    async with serve_batches() as server, opened(server, **settings) as backends:
        server.delay = 0.01
        answers, _ = await collect(backends, rows(60), options=BatchOptions(max_in_flight=5))
        assert expected(60) == texts(answers)
        assert limit == server.max_in_flight


@pytest.mark.filterwarnings("ignore::ctxbackends.errors.ModelMismatchWarning")
@pytest.mark.parametrize("policy", [None, "ignore", "error"])
async def test_servers_of_different_models(policy: str | None, tmp_path: Path) -> None:
    async with serve_batches() as server, serve_batches(model="larger") as other:
        server.delay = other.delay = 0.005
        settings = {} if policy is None else {"model_mismatch": policy}
        async with opened(server, other, **settings) as backends:
            with pytest.raises((BatchModelError, ModelMismatchError), match="larger"):
                await collect(backends, rows(200), journal=tmp_path / "journal")
            assert len(server.prompts) + len(other.prompts) < 200
    models = {
        json.loads(line).get("answer", {}).get("model")
        for part in (tmp_path / "journal").glob("part-*.jsonl")
        for line in part.read_text().splitlines()
    }
    assert len(models - {None}) <= 1


# --- a server that goes away ------------------------------------------------------------------------


async def test_a_server_dies_and_comes_back() -> None:
    async with EchoServer() as server, EchoServer() as other, opened(server, other) as backends:
        came_back = asyncio.Event()
        states: list[tuple[str, ...]] = []

        def note(report: BatchReport) -> None:
            if not states or states[-1] != report.unavailable:
                states.append(report.unavailable)
            if states[-2:] == [("b",), ()]:
                came_back.set()

        count = 0

        async def endless() -> AsyncIterator[BatchRow]:
            nonlocal count
            while not came_back.is_set() or count < 100:
                yield BatchRow(id=f"r{count}", prompt=f"question {count}")
                count += 1
                if count == 50:
                    other.play(faults.refuse(0.5))
            for _ in range(100):
                yield BatchRow(id=f"r{count}", prompt=f"question {count}")
                count += 1

        options = BatchOptions(validate=False, max_in_flight=8, max_retries=0)
        answers, report = await collect(backends, endless(), options=options, on_change=note)
        assert expected(count) == texts(answers)
        assert [(), ("b",), ()] == states
        assert {"a", "b"} == {answer.backend for row_id, answer in answers.items() if int(row_id[1:]) >= count - 100}
        assert report.requests <= count + 8 + report.repeated
        assert report.repeated <= 16


@pytest.mark.parametrize("count", [1, 2])
async def test_all_servers_die_and_the_run_is_resumed(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_replica, "MIN_DOWN", 0.1)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(EchoServer()) for _ in range(count)]
        backends = await stack.enter_async_context(opened(*servers))
        options = BatchOptions(max_in_flight=4)
        answered = []
        with pytest.raises(APIConnectionError, match=r"unreachable at http://127.0.0.1:\d+: "):
            async with run(backends, rows(200), options=options, journal=tmp_path / "journal") as batch_run:
                async for answer in batch_run:
                    answered.append(answer)
                    if len(answered) == 60:
                        for server in servers:
                            server.play(faults.refuse(2))
        assert all(answer.error is None for answer in answered)
        assert len(answered) < 200
        for backend in backends:
            await backend.wait_ready(request_options=RequestOptions(ready_timeout=60))
        answers, report = await collect(backends, rows(200), options=options, journal=tmp_path / "journal")
    assert expected(200) == texts(answers)
    assert report.resumed >= len(answered)
    asked = Counter[Any](prompt for server in servers for prompt in server.prompts)
    assert all(
        asked[answer.row.prompt] == 1 for answer in answers.values() if answer.is_resumed and answer.attempts == 1
    )
    assert sum(asked.values()) <= 200 + 2 * 4 * count


async def test_a_server_that_never_comes_back_does_not_end_the_batch() -> None:
    async with EchoServer() as server, EchoServer() as other, opened(server, other) as backends:
        await other.stop()
        answers, report = await collect(backends, rows(100))
        assert expected(100) == texts(answers)
        assert ("b",) == report.unavailable
        await other.start()


async def test_a_server_that_hangs_is_left_out() -> None:
    settings = {"first_token_timeout": 1.5, "timeout": 1.5}
    async with EchoServer() as server, EchoServer() as other, opened(server, other, **settings) as backends:
        other.play(*[echo] * 20)
        other.play_always(faults.no_response(), probes=True)
        answers, report = await collect(backends, rows(300), options=BatchOptions(max_in_flight=4))
        assert expected(300) == texts(answers)
        assert ("b",) == report.unavailable
        assert len(other.prompts) <= 20 + 4


async def test_an_answer_that_always_takes_too_long() -> None:
    settings = {"first_token_timeout": 1.5, "timeout": 1.5}
    async with EchoServer() as server, opened(server, **settings) as backends:
        server.script_of = lambda prompt: faults.no_response() if prompt == "question 7" else None
        answers, _ = await collect(backends, rows(60))
        assert {**expected(60), "r7": ""} == texts(answers)
        assert 2 == server.prompts.count("question 7") == answers["r7"].attempts


async def test_no_server_is_there() -> None:
    async with EchoServer() as server, opened(server) as backends:
        await server.stop()
        with pytest.raises(APIConnectionError, match="unreachable at"):
            await collect(backends, rows(100))
        await server.start()


@pytest.mark.parametrize("backend_type", ["vllm", "llamacpp"])
@pytest.mark.parametrize("fault", [faults.refuse, faults.loading], ids=["refuse", "loading"])
async def test_all_rows_wait_for_a_cold_start(backend_type: str, fault: Callable[[float], faults.Fault]) -> None:
    async with EchoServer() as server, opened(server, type=backend_type) as backends:
        server.play(fault(0.5), probes=True)
        answers, _ = await collect(backends, rows(100), options=BatchOptions(max_retries=0))
        assert expected(100) == texts(answers)


async def test_the_proxy_of_a_server_that_starts() -> None:
    async with EchoServer() as server, opened(server) as backends:
        started = asyncio.get_running_loop().time() + 0.3

        def script_of(_: str) -> faults.Script | None:
            is_up = asyncio.get_running_loop().time() >= started
            return None if is_up else lambda _: [reply(503, b"<html>no upstream</html>")]

        server.script_of = script_of
        answers, _ = await collect(backends, rows(50), options=BatchOptions(max_retries=0))
        assert expected(50) == texts(answers)


async def test_a_server_that_lists_its_models_but_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replica, "MAX_DOWN", 0.5)
    async with EchoServer() as server, opened(server) as backends:
        server.script_of = lambda _: lambda _: [reply(503, b"<html>no upstream</html>")]
        with pytest.raises(BackendError, match="no upstream"):
            await collect(backends, rows(50))


@pytest.mark.parametrize("step", [Do.RESET, Do.CLOSE])
async def test_a_row_that_kills_its_server(step: Do) -> None:
    async with EchoServer() as server, EchoServer() as other, opened(server, other) as backends:
        for each in (server, other):
            each.script_of = lambda prompt: (lambda _: [step]) if prompt == "question 7" else None
        answers, _ = await collect(backends, rows(60))
        assert {**expected(60), "r7": ""} == texts(answers)
        failed = answers["r7"]
        assert failed.error is not None
        assert 3 == failed.attempts == (server.prompts + other.prompts).count("question 7")


# --- servers that are busy --------------------------------------------------------------------------


async def test_retry_after_is_obeyed_for_all_rows() -> None:
    async with EchoServer() as server, EchoServer() as other, opened(server, other) as backends:
        server.play(*[echo] * 20, faults.rate_limited("1"))
        batch: list[BatchRow] = []

        async def rows_until_it_is_asked_again() -> AsyncIterator[BatchRow]:
            while len(server.generations) < 30:
                batch.append(BatchRow(id=f"r{len(batch)}", prompt=f"question {len(batch)}"))
                yield batch[-1]

        options = BatchOptions(max_in_flight=4, validate=False)
        states: list[tuple[str, ...]] = []
        note: Callable[[BatchReport], None] = lambda report: states.append(report.paused)  # noqa: E731
        answers, _ = await collect(backends, rows_until_it_is_asked_again(), options=options, on_change=note)
        assert [(), ("a",), ()] == [state for state, _ in groupby(states)]
        assert expected(len(batch)) == texts(answers)
        times = [request.received_at for request in server.generations]
        (pause,) = [number for number, (one, next_one) in enumerate(pairwise(times)) if next_one - one > 0.9]
        assert 20 <= pause < 20 + 4  # those were in flight
        start, end = times[pause], times[pause + 1]
        assert any(start < request.received_at < end for request in other.generations)


@pytest.mark.parametrize("settings", [{}, {"max_concurrency": 2}])
async def test_two_backends_of_one_server_are_paused_together(settings: dict[str, Any]) -> None:
    async with EchoServer() as server, opened(server, server, api_key="sk-1", **settings) as backends:
        server.play(*[echo] * 20, faults.rate_limited("1"))
        answers, _ = await collect(backends, rows(100), options=BatchOptions(max_in_flight=2))
        assert expected(100) == texts(answers)
        times = [request.received_at for request in server.generations]
        (pause,) = [number for number, (one, next_one) in enumerate(pairwise(times)) if next_one - one > 0.9]
        assert 20 <= pause < 20 + 4


@pytest.mark.parametrize("headers", [{}, {"retry-after-ms": "20"}], ids=["", "retry-after"])
async def test_bad_rows_are_the_only_ones_with_errors(headers: dict[str, str]) -> None:
    async with serve_batches() as server, opened(server) as backends:
        bad = {f"question {number}": 400 for number in range(0, 1000, 200)}
        busy = {f"question {number}": 429 for number in range(199, 1000, 200)}
        server.statuses = {prompt: [(status, headers)] * 100 for prompt, status in (bad | busy).items()}
        answers, report = await collect(backends, rows(1000), options=BatchOptions(max_retries=2))
        errors = {answer.row.prompt: answer.error.status_code for answer in answers.values() if answer.error}
        assert bad | busy == errors
        assert {**expected(1000), **dict.fromkeys((f"r{prompt[9:]}" for prompt in errors), "")} == texts(answers)
        assert {1} == {server.counts[prompt] for prompt in bad}
        assert {5 if headers else 3} == {server.counts[prompt] for prompt in busy}
        assert (990, 10) == (report.answered, report.failed)


async def test_a_server_with_a_limit_of_its_own_loses_no_row() -> None:
    async with EchoServer() as server, opened(server) as backends:
        # Five requests in any 0.2 s; the next ones are rejected with a Retry-After.
        accepted: list[float] = []

        def script_of(_: str) -> faults.Script | None:
            now = asyncio.get_running_loop().time()
            while accepted and accepted[0] <= now - 0.2:
                accepted.pop(0)
            if len(accepted) >= 5:
                milliseconds = str(int((accepted[0] + 0.2 - now) * 1000) + 1)
                body = {"error": {"message": "Rate limit reached", "type": "requests"}}
                return lambda _: [reply(429, body, retry_after_ms=milliseconds)]
            accepted.append(now)
            return None

        server.script_of = script_of
        answers, report = await collect(backends, rows(60))
        assert expected(60) == texts(answers)
        assert report.requests < 60 * 3


async def test_a_server_with_a_limit_that_it_does_not_tell() -> None:
    async with EchoServer() as server, opened(server) as backends:
        last = 0.0

        def script_of(_: str) -> faults.Script | None:
            nonlocal last
            now = asyncio.get_running_loop().time()
            if now - last < 0.1:
                return lambda _: [reply(429, {"error": {"message": "Requests rate limit exceeded", "type": "rate"}})]
            last = now
            return None

        server.script_of = script_of
        answers, report = await collect(backends, rows(60))
        assert expected(60) == texts(answers)
        assert report.requests < 180


async def test_requests_per_minute_by_the_count_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "WINDOW", 1.0)
    async with EchoServer() as server, EchoServer() as other, opened(server, other) as backends:
        answers, _ = await collect(backends, rows(25), options=BatchOptions(requests_per_minute=10))
        assert expected(25) == texts(answers)
        times = sorted(request.received_at for one in (server, other) for request in one.generations)
        assert all(last - first > 0.5 for first, last in zip(times, times[10:], strict=False))


# --- errors of all rows -----------------------------------------------------------------------------

_QUOTA = {
    "error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
}
_DENIED = {"error": {"message": "no access", "type": "invalid_request_error"}}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [(429, _QUOTA, InsufficientQuotaError), (401, _DENIED, BackendError), (403, _DENIED, PermissionDeniedError)],
)
async def test_errors_of_all_rows_end_the_batch(
    status: int, body: dict[str, Any], error: type[BackendError], tmp_path: Path
) -> None:
    async with EchoServer() as server, opened(server) as backends:
        limit = 0 if status == 403 else 40  # after an answer, a 403 is the error of a row

        def script_of(prompt: str) -> faults.Script | None:
            return None if int(prompt.rsplit(maxsplit=1)[-1]) < limit else lambda _: [reply(status, body)]

        server.script_of = script_of
        options = BatchOptions(max_in_flight=4)
        with pytest.raises(error):
            await collect(backends, rows(200), options=options, journal=tmp_path / "journal")
        assert limit < len(server.prompts) <= limit + 8
        first = server.prompts[:limit]
        server.script_of = lambda _: None
        answers, report = await collect(backends, rows(200), options=options, journal=tmp_path / "journal")
        assert expected(200) == texts(answers)
        assert limit == report.resumed
        assert {*first}.isdisjoint(server.prompts[-report.requests :])


def test_progress_names_the_servers_that_get_no_rows() -> None:
    report = BatchReport(rows=3, unavailable=("c",), paused=("a", "b"))
    progress = Meter(clock=lambda: 0.0).measure(report, is_counted=True)
    assert str(progress) == "0 of 3 rows, waiting for c, paused by a, b"
